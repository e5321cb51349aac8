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

// A generator is a load generator at work on one server. Not safe for use by several goroutines.
type generator struct {
	kill   context.CancelFunc
	orders io.WriteCloser // a line asks for a turn
	lines  *bufio.Reader
	stderr process.Tail
	wait   func() error // until it has ended; again and again, if need be
}

// startGenerator starts a load generator. It ends with ctx, with end, with kill and wait, or with
// us.
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

// turn asks for a turn. What stands in its way shows when its reading is read.
func (g *generator) turn() { _, _ = io.WriteString(g.orders, "\n") }

// read takes the next line that it says. Everything in the load generator has an end of its own;
// limit is for when that fails.
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
		err = fmt.Errorf("nothing said in %v: %w", limit, err)
	}
	return reading{}, g.gaveUp(err)
}

// end tells it that there are no more turns, and waits until it has ended.
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
