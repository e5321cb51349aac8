package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/hearthws/hearth/bench/internal/process"
)

// An entrant is a server in one round of one measure: its processes, the load generator that drives
// them, and the result.
type entrant struct {
	env     *environment
	measure measure
	load    load
	// loopback addresses of its clients: different from those of others at the same time
	source int
	check  bool

	nodes      []*process.Process
	generator  *generator // nil until it is started
	transcript string     // the file of the messages to encrypted clients; empty if not needed
	connected  reading    // the reading of the connects, if servers take turns
	turns      []reading
	result     result
}

// newEntrants returns an entrant for each server of a measure. before is the number of entrants of
// other measures.
func newEntrants(env *environment, m measure, servers []string, before int, check bool) []*entrant {
	var entrants []*entrant
	for i, server := range servers {
		entrants = append(entrants, &entrant{
			env: env, measure: m, load: m.size(check).of(server), check: check,
			source: 2 + (before+i)*7%200, // a load generator uses six addresses
			result: result{Kind: "result", Measure: m.name, Server: server},
		})
	}
	return entrants
}

// attempt calls f for an entrant that has not failed. If f fails, the entrant is stopped at once,
// and the others continue without it.
func (e *entrant) attempt(what func() error) {
	if e.result.Error != "" {
		return
	}
	err := what()
	if err == nil {
		return
	}
	const grace = time.Second // for a server that is just ending: its last output says most
	for _, p := range e.nodes {
		if p.EndsWithin(grace) {
			err = fmt.Errorf("%w\nthe server has ended: %v\n%s", err, p.Err(), p.Stderr)
		}
	}
	e.result.Error = errors.Join(err, e.stop()).Error()
}

// start starts the server, with as many nodes as the measure needs, and the load generator. If
// servers take turns, it returns once all clients are connected.
func (e *entrant) start(ctx context.Context) error {
	for range max(1, e.measure.nodes) {
		p, err := process.Start(ctx, process.Command{
			Args: e.env.command(e.result.Server, e.measure), Dir: e.env.dir[e.result.Server], Ready: serverReady,
		})
		if err != nil {
			return err
		}
		e.nodes = append(e.nodes, p)
	}
	if !e.check {
		pause(ctx, 600*time.Millisecond) // the start of the server is not measured
	}
	err := e.makeTranscript()
	if err != nil {
		return err
	}
	if e.result.Command, err = e.command(); err != nil {
		return err
	}
	if e.generator, err = startGenerator(ctx, e.result.Command); err != nil {
		return err
	}
	if e.load.turns > 0 {
		e.connected, err = e.generator.read(e.load.limit())
	}
	return err
}

func (e *entrant) makeTranscript() error {
	if e.load.kept == 0 {
		return nil
	}
	file, err := os.CreateTemp("", "hearth-bench-transcript-")
	if err != nil {
		return fmt.Errorf("create the file for the messages to encrypted clients: %w", err)
	}
	e.transcript = file.Name()
	return file.Close()
}

// command returns the command line of the load generator.
func (e *entrant) command() ([]string, error) {
	command := []string{e.env.load, "-source", strconv.Itoa(e.source)}
	for i, p := range e.nodes {
		address, err := netip.ParseAddrPort(p.Ready)
		if err != nil {
			return nil, fmt.Errorf("the server's address: %w", err)
		}
		suffix := [2]string{"", "2"}[i]
		command = append(command, "-port"+suffix, strconv.Itoa(int(address.Port())), "-pid"+suffix, strconv.Itoa(p.PID()))
	}
	if e.measure.redis {
		redis := e.env.redis
		command = append(command, "-redis-port", strconv.Itoa(redis.Port), "-redis-pid", strconv.Itoa(redis.Process.PID()))
	}
	if e.load.sealed > 0 {
		command = append(command, "-sealed", strconv.Itoa(e.load.sealed), "-key", e.env.key.PublicKey().String())
	}
	if e.transcript != "" {
		command = append(command, "-kept", strconv.Itoa(e.load.kept), "-transcript", e.transcript)
	}
	return append(command, e.load.args(e.measure.mode, e.check)...), nil
}

// takeTurn lets the load generator drive the server for one turn, and checks the reading.
func (e *entrant) takeTurn() error {
	if e.load.turns == 0 {
		return e.readTurn()
	}
	e.generator.turn()
	number := len(e.turns)
	if err := e.readTurn(); err != nil {
		return fmt.Errorf("in turn %d of %d: %w", number, e.load.turns, err)
	}
	return nil
}

func (e *entrant) readTurn() error {
	seen, err := e.generator.read(e.load.limit())
	if err != nil {
		return err
	}
	e.turns = append(e.turns, seen)
	return seen.problem()
}

// finish stops the remaining processes of the entrant and completes its result.
func (e *entrant) finish() result {
	if e.generator != nil {
		e.attempt(e.generator.end)
	}
	e.sumUp()
	e.attempt(e.openTranscript)
	e.attempt(e.figure)
	e.attempt(e.stop)
	return e.result
}

// sumUp makes one reading of the turns that count: all except the first, or the only one.
func (e *entrant) sumUp() {
	counting := e.turns
	if e.load.turns > 0 {
		e.result.Turns = e.turns
		counting = e.turns[min(1, len(e.turns)):]
	}
	if len(counting) == 0 {
		return
	}
	sum := sumTurns(counting)
	if e.load.turns > 0 {
		sum.ConnectSeconds, sum.ConnectCPUS = e.connected.ConnectSeconds, e.connected.ConnectCPUS
	}
	e.result.Reading = &sum
	e.result.Shares = sum.shares()
	e.result.Bound = e.result.Shares.bound(len(e.nodes), runtime.NumCPU())
}

// openTranscript decrypts the messages that the kept clients received and checks them.
func (e *entrant) openTranscript() error {
	if e.transcript == "" {
		return nil
	}
	data, err := os.ReadFile(e.transcript)
	if err != nil {
		return fmt.Errorf("read the messages to encrypted clients: %w", err)
	}
	first := 0
	if e.measure.mode == "mixed" { // the earlier ones were for the unencrypted clients only
		first = e.load.messages
	}
	seen := e.result.Reading
	t, err := parseTranscript(data)
	if err == nil {
		seen.Opened, seen.Reordered, err = t.open(e.env.key, e.load.kept, first, e.load.messages)
	}
	if err != nil {
		return fmt.Errorf("messages to encrypted clients: %w", err)
	}
	// the reference is known to reorder, and gets a remark
	if e.result.Server != serverRef && seen.Reordered > 0 {
		return fmt.Errorf("%d messages out of order", seen.Reordered)
	}
	return nil
}

// figure computes the figures.
func (e *entrant) figure() error {
	if e.measure.sealed && e.result.Server == serverLimit {
		var err error
		if e.result.Reading.AESUS, err = measureAES(); err != nil {
			return err
		}
	}
	e.result.Figures = make(map[string]float64, len(e.measure.figures))
	for _, f := range e.measure.figures {
		e.result.Figures[f.key] = f.of(*e.result.Reading)
	}
	return nil
}

// stop ends the load generator, if it is running, and the server.
func (e *entrant) stop() error {
	if e.transcript != "" {
		defer os.Remove(e.transcript)
	}
	if e.generator != nil {
		e.generator.kill()
		_ = e.generator.wait() // its error is known already or does not matter
	}
	var errs []error
	for _, p := range e.nodes {
		errs = append(errs, p.Stop())
	}
	return errors.Join(errs...)
}
