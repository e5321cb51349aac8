// Command attack attacks `hearth serve` from outside, as hostile or broken clients and a failing
// Redis do, and measures what other clients notice. Run it in bench/ with `go run ./attack`;
// docs/benchmarks.md explains the figures.
package main

import (
	"cmp"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/hearthws/hearth/bench/internal/machine"
	"github.com/hearthws/hearth/bench/internal/process"
)

const (
	exitOK    = 0
	exitFail  = 1 // a target was missed, or an attack could not be run
	exitUsage = 2
)

func main() { os.Exit(process.Main(run)) }

// An attack is one or several rows of the table.
type attack struct {
	name  string
	about string
	redis bool          // it needs redis-server
	limit time.Duration // after this it is stopped and counts as failed
	run   func(context.Context, *lab) ([]figure, error)
}

// attacks returns all attacks in their order.
func attacks() []attack {
	return []attack{
		{"inflate", "8 clients send messages of 128 KiB, compressed to 176 bytes, 2 MB/s in total", false, time.Minute, inflateAuthenticated},
		{"inflate-early", "8 clients that do not authenticate send messages of 16 KiB, compressed to 62 bytes, and come again", false, time.Minute, inflateEarly},
		{"inflate-queue", "40 clients whose callbacks take 3 s each send 369 messages of 128 KiB, compressed", true, time.Minute, inflateQueue},
		{"silent", "one address opens 6,000 sockets and says nothing, in four ways", false, 2 * time.Minute, silent},
		{"logs", "clients do what a server may want to log, over and over", false, 2 * time.Minute, logs},
		{"churn", "20 clients join and leave new rooms for 5 s", true, time.Minute, churn},
		{"flood", "10 clients send invalid messages as fast as they can", false, time.Minute, flood},
		{"failover", "an orderly Sentinel failover under a stream of messages", true, time.Minute, failover},
		{"restart", "Redis is killed and started again under a stream of messages", true, time.Minute, restart},
		{"cut", "Redis closes the connections of all subscribers, under a stream of messages", true, time.Minute, cut},
		{"frozen-node", "a client joins the room that bears another client's id while that client's node stands still for 5 s",
			true, time.Minute, frozenNode},
		{"frozen-redis", "the same while Redis stands still for 8 s, under a stream of messages", true, time.Minute, frozenRedis},
		{"crash", "a node is killed; a client of another one joins rooms named by UUIDs", true, time.Minute, crash},
		{"violation", "good messages, then a frame that violates the protocol, in one write", false, time.Minute, violation},
		{"shutdown", "SIGTERM while messages wait", true, time.Minute, shutdown},
	}
}

const usage = `usage: go run ./attack [options] [-- options of hearth serve]

Attacks hearth serve from outside and measures the effect on other clients. It builds the server of
this repository, or uses the one given by -binary, and starts it on free ports of 127.0.0.1. It also
starts redis-server, or skips the attacks that need it if it is not installed. Each attack is
bounded in time, connections and memory: a server that uses more than 3 GiB is killed. A full run
takes about two and a half minutes; Ctrl-C ends it at once.

The exit code is 0 if all targets are met, 1 if one is missed or an attack failed, 2 for a wrong option.

  go run ./attack                              everything, once
  go run ./attack -list                        which attacks there are
  go run ./attack -run 'inflate|flood' -rounds 3
  go run ./attack -binary /usr/local/bin/hearth -json > results.jsonl
  go run ./attack -run silent -- --transport netconn

Options:
`

// options are the options of the command line.
type options struct {
	binary string
	commit string // of binary
	run    *regexp.Regexp
	rounds int
	json   bool
	list   bool
	serve  []string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	set := flag.NewFlagSet("attack", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() {
		fmt.Fprint(stderr, usage)
		set.PrintDefaults()
	}
	set.StringVar(&o.binary, "binary", "", "the hearth to attack (default: built from this repository)")
	set.StringVar(&o.commit, "commit", "", "the commit of -binary, for the record, if it does not say so itself")
	pattern := set.String("run", "", "run only attacks whose name matches this regular expression")
	set.IntVar(&o.rounds, "rounds", 1, "how often each attack is run; the table has the median of latencies, and the worst of all else")
	set.BoolVar(&o.json, "json", false, "print one JSON object a line instead of the table")
	set.BoolVar(&o.list, "list", false, "list the attacks")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	o.serve = set.Args()
	if at := len(args) - len(o.serve) - 1; len(o.serve) > 0 && (at < 0 || args[at] != "--") {
		return o, fmt.Errorf("unexpected argument %q; put options of hearth serve after --", o.serve[0])
	}
	if o.rounds < 1 {
		return o, fmt.Errorf("-rounds %d: at least 1", o.rounds)
	}
	var err error
	if o.run, err = regexp.Compile(*pattern); err != nil {
		return o, fmt.Errorf("-run: %w", err)
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(stderr, "attack:", err)
		return exitUsage
	}
	var chosen []attack
	for _, a := range attacks() {
		if o.run.MatchString(a.name) {
			chosen = append(chosen, a)
		}
	}
	if len(chosen) == 0 {
		fmt.Fprintf(stderr, "attack: no attack matches -run %q; -list shows them\n", o.run)
		return exitUsage
	}
	if o.list {
		for _, a := range chosen {
			fmt.Fprintf(stdout, "%-13s %s\n", a.name, a.about)
		}
		return exitOK
	}
	if err := attackAll(ctx, o, chosen, args, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "attack:", err)
		return exitFail
	}
	return exitOK
}

var errMissed = errors.New("targets were missed")

// attackAll runs the chosen attacks and prints the results.
func attackAll(ctx context.Context, o options, chosen []attack, args []string, stdout, stderr io.Writer) error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("the attacks need Linux (/proc, all of 127.0.0.0/8), this is %s", runtime.GOOS)
	}
	if err := enoughFiles(); err != nil {
		return err
	}
	if o.binary == "" {
		dir, err := os.MkdirTemp("", "hearth-attack-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.binary = filepath.Join(dir, "hearth")
		if o.commit, err = build(ctx, o.binary); err != nil {
			return err
		}
	}
	o.commit = cmp.Or(o.commit, readCommit(o.binary))
	if _, err := process.Output(ctx, "", o.binary, "version"); err != nil {
		return fmt.Errorf("start the binary: %w", err)
	}
	report := reporter{out: stdout, json: o.json}
	report.about(describe(ctx, o, args))
	var errs []error
	for _, a := range chosen {
		if a.redis && !hasRedis() {
			report.skipped(a.name, "redis-server not found")
			continue
		}
		var rounds [][]figure
		for range o.rounds {
			figures, err := a.attempt(ctx, &lab{binary: o.binary, options: o.serve})
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				report.failed(a.name, err)
				errs = append(errs, fmt.Errorf("%s: %w", a.name, err))
				continue
			}
			rounds = append(rounds, figures)
		}
		for _, r := range joinRounds(a.name, rounds) {
			report.row(r)
		}
	}
	if report.missed > 0 {
		errs = append(errs, fmt.Errorf("%w: %d", errMissed, report.missed))
	}
	return errors.Join(errs...)
}

// attempt runs an attack once, within its limit.
func (a attack) attempt(ctx context.Context, l *lab) ([]figure, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, a.limit, fmt.Errorf("not done within %v", a.limit))
	defer cancel() // closes all connections
	defer l.close()
	figures, err := a.run(ctx, l)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return figures, err
}

// enoughFiles raises the limit of open files, for this process and the servers that it starts.
func enoughFiles() error {
	const need = silentSockets + 500
	limit, err := process.RaiseFileLimit()
	if err == nil && limit < need {
		err = fmt.Errorf("the attacks need %d open files per process, the hard limit is %d: raise it (ulimit -Hn)", need, limit)
	}
	return err
}

// build builds the server of this repository, and returns the commit.
func build(ctx context.Context, to string) (commit string, err error) {
	dir, err := process.Output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}", "github.com/hearthws/hearth")
	if err != nil {
		return "", fmt.Errorf("find the sources of hearth (run it in bench/): %w", err)
	}
	dir = strings.TrimSpace(dir)
	if _, err := process.Output(ctx, dir, "go", "build", "-o", to, "./cmd/hearth"); err != nil {
		return "", fmt.Errorf("build hearth: %w", err)
	}
	commit, modified := machine.Commit(ctx, dir)
	if modified {
		commit += ", modified"
	}
	return commit, nil
}

// readCommit returns the commit that the Go tool recorded in a binary, or "unknown".
func readCommit(binary string) string {
	commit, modified := "unknown", ""
	if info, err := buildinfo.ReadFile(binary); err == nil {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = ", modified"
			}
		}
	}
	return commit + modified
}

// An about describes the run: what was attacked, where and when.
type about struct {
	Kind     string            `json:"kind"` // "about"
	Date     time.Time         `json:"date"`
	Command  []string          `json:"command"`
	Commit   string            `json:"commit"` // of the attacked binary, with ", modified" if known
	Rounds   int               `json:"rounds"`
	Load     string            `json:"load"` // the machine's load averages at the start
	Machine  machine.Machine   `json:"machine"`
	Versions map[string]string `json:"versions"`
}

func describe(ctx context.Context, o options, args []string) about {
	a := about{
		Kind: "about", Date: time.Now().UTC().Truncate(time.Second), Command: append([]string{"attack"}, args...),
		Commit: o.commit, Rounds: o.rounds, Load: "unknown", Machine: machine.Describe(),
		Versions: map[string]string{"go": "unknown"},
	}
	if info, err := buildinfo.ReadFile(o.binary); err == nil {
		a.Versions["go"] = info.GoVersion
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		a.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	}
	if hasRedis() {
		a.Versions["redis"] = machine.FirstLine(ctx, "", "redis-server", "--version")
	}
	return a
}

// A reporter prints the table, or JSON.
type reporter struct {
	out    io.Writer
	json   bool
	missed int
}

func (r *reporter) line(v any) {
	if b, err := json.Marshal(v); err == nil {
		fmt.Fprintf(r.out, "%s\n", b)
	}
}

func (r *reporter) about(a about) {
	if r.json {
		r.line(a)
		return
	}
	fmt.Fprintf(r.out, "hearth %s, %s; %d cores of %s, Linux %s; load %s\n\n", a.Commit, a.Versions["go"], a.Machine.Cores,
		a.Machine.CPU, a.Machine.Kernel, a.Load)
}

func (r *reporter) row(row row) {
	if !row.Met {
		r.missed++
	}
	if r.json {
		r.line(row)
	} else {
		row.print(r.out)
	}
}

func (r *reporter) skipped(attack, why string) {
	if r.json {
		r.line(map[string]string{"kind": "skipped", "attack": attack, "why": why})
	} else {
		fmt.Fprintf(r.out, "%-13s skipped: %s\n", attack, why)
	}
}

func (r *reporter) failed(attack string, err error) {
	if r.json {
		r.line(map[string]string{"kind": "failed", "attack": attack, "error": err.Error()})
	} else {
		fmt.Fprintf(r.out, "%-13s FAILED: %v\n", attack, err)
	}
}
