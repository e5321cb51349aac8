package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hearthws/hearth"
)

const (
	room      = "ws-default"
	congested = 256 << 10 // bytes that may wait for the slowest client before free pauses
)

// An order requests N messages to the room with Size bytes each. If Rate is not 0, they are sent at
// Rate per second. Otherwise they are sent as fast as clients read: Batch messages at a time, or
// without batches if Batch is 0.
type order struct {
	N     int `json:"n"`
	Size  int `json:"size"`
	Rate  int `json:"rate"`
	Batch int `json:"batch"`

	// Numbered fills messages with their number instead of x.
	Numbered bool `json:"numbered"`
}

// content is the data of a message.
type content struct {
	P string `json:"p"`
}

// contents makes the contents one by one, as an application would: a value that is encoded for each
// message.
func (o order) contents() func() content {
	filling, number := strings.Repeat("x", o.Size), 0
	return func() content {
		if !o.Numbered {
			return content{filling}
		}
		number++
		return content{fmt.Sprintf("%0*d", o.Size, number-1)}
	}
}

// A publisher carries out one order at a time.
type publisher struct {
	server *hearth.Server[struct{}, struct{}] // set once, before start

	mu      sync.Mutex // guards the fields below
	cancel  context.CancelFunc
	done    chan struct{} // closed when the running order has ended; nil before the first order
	stopped bool
}

var errBusy = errors.New("an order is being carried out, or the server stops")

// start carries out o on another goroutine.
func (p *publisher) start(o order) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.runningLocked() {
		return errBusy
	}
	if p.cancel != nil {
		p.cancel() // the context of the last order
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	p.cancel, p.done = cancel, done
	go func() { // ends with its order or with ctx; stop waits for it
		defer close(done)
		if err := p.carryOut(ctx, o); err != nil && ctx.Err() == nil {
			// the load generator reports the missing messages
			fmt.Fprintln(os.Stderr, "publish:", err)
		}
	}()
	return nil
}

func (p *publisher) runningLocked() bool {
	if p.done == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop ends the running order, if any, and rejects further ones.
func (p *publisher) stop() {
	p.mu.Lock()
	p.stopped = true
	cancel, done := p.cancel, p.done
	p.mu.Unlock()
	if done != nil {
		cancel()
		<-done
	}
}

func (p *publisher) carryOut(ctx context.Context, o order) error {
	next := o.contents()
	send := func() error { return p.server.Local().Send(context.Background(), hearth.ToRoom(room), "m", next()) }
	if o.Rate > 0 {
		return paced(ctx, o.N, o.Rate, send)
	}
	target := hearth.ToRoom(room)
	switch o.Batch {
	case 0: // the server decides; 16 messages are far below what may wait
		return saturate(ctx, o.N, 16, send, func() error { return p.server.Local().WaitPending(ctx, target, congested) })
	case 1: // each message is written before the next is sent
		return saturate(ctx, o.N, 1, send, func() error { return p.server.Local().WaitPending(ctx, target, 0) })
	default: // one batch is written while the next is made
		waiting := o.Batch * (o.Size + len(`{"event":"m","data":{"p":""}}`))
		return saturate(ctx, o.N, o.Batch, send, func() error { return p.server.Local().WaitPending(ctx, target, waiting) })
	}
}

// paced calls send n times, rate times per second. It makes up for late calls at once.
func paced(ctx context.Context, n, rate int, send func() error) error {
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for sent := range n {
		timer.Reset(time.Until(start.Add(time.Duration(sent) * time.Second / time.Duration(rate))))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := send(); err != nil {
			return err
		}
	}
	return nil
}

// saturate calls send n times, and waits after each batch of calls.
func saturate(ctx context.Context, n, batch int, send, wait func() error) error {
	for sent := 1; sent <= n && ctx.Err() == nil; sent++ {
		if err := send(); err != nil {
			return err
		}
		if sent%batch != 0 {
			continue
		}
		if err := wait(); err != nil {
			return err
		}
	}
	return ctx.Err()
}
