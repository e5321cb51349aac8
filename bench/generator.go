package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	"github.com/hearthws/hearth/bench/internal/process"
)

// A generator is a running load generator for one server. It is not safe for concurrent use.
type generator struct {
	kill   context.CancelFunc
	orders io.WriteCloser // each line starts a turn
	lines  *bufio.Reader
	stderr process.Tail
	wait   func() error // waits until it has ended; may be called again
}

// startGenerator starts a load generator. It ends with ctx, with end, with kill and wait, or with
// this process.
func startGenerator(ctx context.Context, command []string) (*generator, error) {
	ctx, kill := context.WithCancel(ctx)
	g := &generator{kill: kill}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = &g.stderr
	cmd.SysProcAttr = process.DieWithParent()
	g.wait = sync.OnceValue(cmd.Wait)
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		g.lines = bufio.NewReader(stdout)
		g.orders, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		kill()
		return nil, fmt.Errorf("start the load generator: %w", err)
	}
	return g, nil
}

// turn starts a turn. Errors are found when its reading is read.
func (g *generator) turn() { _, _ = io.WriteString(g.orders, "\n") }

// read returns the next line of its output. Everything in the load generator has a time limit of
// its own; limit is a second one, in case those fail.
func (g *generator) read(limit time.Duration) (reading, error) {
	timer := time.AfterFunc(limit, g.kill)
	line, err := g.lines.ReadBytes('\n')
	inTime := timer.Stop()
	if err == nil {
		return parseReading(line)
	}
	if ended := g.wait(); ended != nil {
		err = ended
	}
	if !inTime {
		err = fmt.Errorf("no output in %v: %w", limit, err)
	}
	return reading{}, g.gaveUp(err)
}

// end ends the turns, and waits until the load generator has ended.
func (g *generator) end() error {
	_ = g.orders.Close() // it may have ended already
	timer := time.AfterFunc(process.StopTimeout, g.kill)
	defer timer.Stop()
	if err := g.wait(); err != nil {
		return g.gaveUp(err)
	}
	return nil
}

func (g *generator) gaveUp(err error) error {
	return fmt.Errorf("the load generator gave up: %w: %s", err, &g.stderr)
}
