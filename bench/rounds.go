package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/hearthws/hearth/seal"
)

// A result is one server's turn in one round of one measure.
type result struct {
	Kind    string             `json:"kind"` // "result"
	Measure string             `json:"measure"`
	Server  string             `json:"server"`
	Round   int                `json:"round"`
	Error   string             `json:"error,omitempty"` // lost, wrong, closed, or not run at all: Figures do not count
	Bound   string             `json:"bound,omitempty"`
	Shares  shares             `json:"shares"`
	Figures map[string]float64 `json:"figures,omitempty"`
	Command []string           `json:"command"` // the load generator's
	Reading *reading           `json:"reading,omitempty"`
}

// runRounds lets the servers take turns, measure by measure within each round. A turn that fails is in the results and
// does not end the run: only ctx and a recorder that cannot write do.
func runRounds(ctx context.Context, env *environment, opts options, rec *recorder, progress io.Writer) ([]result, error) {
	var results []result
	for round := range opts.rounds {
		for _, m := range opts.measures {
			for _, server := range rotate(m.serversOf(opts.servers), round) {
				source := 2 + len(results)*7%200 // other loopback addresses than the last turn's
				r := takeTurn(ctx, env, m, server, m.size(opts.check), source, opts.check)
				r.Round = round
				if err := ctx.Err(); err != nil {
					return results, fmt.Errorf("interrupted in round %d: %w", round+1, err)
				}
				results = append(results, r)
				if err := rec.write(r); err != nil {
					return results, err
				}
				fmt.Fprintf(progress, "round %d of %d: %s\n", round+1, opts.rounds, r)
			}
		}
	}
	return results, nil
}

// rotate begins each round with another server, so that none always follows the same one.
func rotate(servers []string, round int) []string {
	first := round % len(servers)
	return append(append([]string(nil), servers[first:]...), servers[:first]...)
}

// takeTurn starts the server, as many nodes of it as the measure wants, drives it, and stops it.
func takeTurn(ctx context.Context, env *environment, m measure, server string, l load, source int, check bool) result {
	r := result{Kind: "result", Measure: m.name, Server: server}
	err := func() error {
		var nodes []*process
		stop := func() error {
			var errs []error
			for _, p := range nodes {
				errs = append(errs, p.stop())
			}
			return errors.Join(errs...)
		}
		for range max(1, m.nodes) {
			p, err := startProcess(ctx, env.command(server, m), env.dir[server], serverReady)
			if err != nil {
				return errors.Join(err, stop())
			}
			nodes = append(nodes, p)
		}
		if !check {
			pause(ctx, 600*time.Millisecond) // its start is not what we measure
		}
		driveErr := r.drive(ctx, env, m, nodes, l.of(server), source, check)
		for _, p := range nodes {
			if driveErr != nil && !p.alive() {
				driveErr = fmt.Errorf("%w\nthe server has ended: %v\n%s", driveErr, p.err, p.stderr)
			}
		}
		return errors.Join(driveErr, stop())
	}()
	if err != nil {
		r.Error = err.Error()
	}
	if !check {
		pause(ctx, 300*time.Millisecond)
	}
	return r
}

// drive runs the load generator against a server and fills in what it read.
func (r *result) drive(ctx context.Context, env *environment, m measure, nodes []*process, l load, source int, check bool) error {
	transcript, err := os.CreateTemp("", "hearth-bench-transcript-")
	if err != nil {
		return fmt.Errorf("make a file for what encrypted clients get: %w", err)
	}
	defer os.Remove(transcript.Name())
	defer transcript.Close()
	if r.Command, err = loadCommand(env, m, nodes, l, source, check, transcript.Name()); err != nil {
		return err
	}
	seen, err := runLoad(ctx, r.Command, l)
	if err != nil {
		return err
	}
	r.Reading = &seen
	r.Shares = seen.shares()
	r.Bound = r.Shares.bound(len(nodes), runtime.NumCPU())
	if err := seen.problem(); err != nil {
		return err
	}
	if l.kept > 0 {
		if err := seen.openTranscript(transcript.Name(), env.key, m, l); err != nil {
			return fmt.Errorf("what encrypted clients got: %w", err)
		}
		if r.Server != serverRef && seen.Reordered > 0 { // the reference is known for it, and says so
			return fmt.Errorf("%d messages out of order", seen.Reordered)
		}
	}
	if m.sealed && r.Server == serverLimit {
		if seen.AESUS, err = measureAES(); err != nil {
			return err
		}
	}
	r.Figures = make(map[string]float64, len(m.figures))
	for _, f := range m.figures {
		r.Figures[f.key] = f.of(seen)
	}
	return nil
}

// loadCommand is the load generator's command line.
func loadCommand(env *environment, m measure, nodes []*process, l load, source int, check bool, transcript string) ([]string, error) {
	command := []string{env.load, "-source", strconv.Itoa(source)}
	for i, p := range nodes {
		address, err := netip.ParseAddrPort(p.ready)
		if err != nil {
			return nil, fmt.Errorf("the server's address: %w", err)
		}
		suffix := [2]string{"", "2"}[i]
		command = append(command, "-port"+suffix, strconv.Itoa(int(address.Port())), "-pid"+suffix, strconv.Itoa(p.pid()))
	}
	if m.redis {
		command = append(command, "-redis-port", strconv.Itoa(env.redis.port), "-redis-pid", strconv.Itoa(env.redis.process.pid()))
	}
	if l.sealed > 0 {
		command = append(command, "-sealed", strconv.Itoa(l.sealed), "-key", env.key.PublicKey().String())
	}
	if l.kept > 0 {
		command = append(command, "-kept", strconv.Itoa(l.kept), "-transcript", transcript)
	}
	return append(command, l.args(m.mode, check)...), nil
}

// runLoad runs the load generator to its end.
func runLoad(ctx context.Context, command []string, l load) (reading, error) {
	// Everything in the load generator has an end of its own; this is for when that fails.
	limit := time.Duration((l.seconds+2*l.settle)*float64(time.Second)) + 90*time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var stdout strings.Builder
	var stderr tail
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Run(); err != nil {
		return reading{}, fmt.Errorf("the load generator gave up: %w: %s", err, &stderr)
	}
	return parseReading([]byte(stdout.String()))
}

// openTranscript decrypts what the kept clients got and checks that it is what was sent.
func (r *reading) openTranscript(path string, key *seal.PrivateKey, m measure, l load) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	t, err := parseTranscript(data)
	if err != nil {
		return err
	}
	first := 0
	if m.mode == "mixed" { // those before it were for the clients in clear alone
		first = l.messages
	}
	r.Opened, r.Reordered, err = t.open(key, l.kept, first, l.messages)
	return err
}

// late says whether messages of a paced fan-out came so late that they arrived together: some server then wrote them
// together, and looks better than it is.
func (r result) late() bool {
	const together = 1.02 // messages a read
	return r.Reading != nil && r.Reading.SpreadP50US > 0 && float64(r.Reading.Got) > together*float64(r.Reading.Reads)
}

func (r result) String() string {
	name := fmt.Sprintf("%-15s %-11s", r.Measure, r.Server)
	if r.Error != "" {
		return name + "FAILED: " + strings.ReplaceAll(r.Error, "\n", "; ")
	}
	var parts []string
	for _, m := range measures {
		if m.name != r.Measure {
			continue
		}
		for _, f := range m.figures {
			parts = append(parts, number(r.Figures[f.key])+" "+f.name)
		}
	}
	return name + strings.Join(parts, ", ")
}

func countFailed(results []result) int {
	failed := 0
	for _, r := range results {
		if r.Error != "" {
			failed++
		}
	}
	return failed
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
