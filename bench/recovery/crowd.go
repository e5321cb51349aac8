package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxNumber      = 1 << 20 // of a message in a room
	connectAtATime = 64
	settleTimeout  = 30 * time.Second // for the clients to receive the last messages
	settleQuiet    = 3 * time.Second  // without a further message, those that are missing are lost
)

// A crowd is a number of clients.
type crowd struct {
	// Read-only once the clients run.
	dialect dialect
	every   time.Duration // the mean time between two cuts of a client; 0: no cuts
	away    time.Duration // how long a client that was cut stays away
	tickets bool          // clients ask for tickets and use them

	addrs    atomic.Pointer[[]string] // of the nodes; the slice is replaced and never changed
	cutting  atomic.Bool              // clients may be cut
	ready    atomic.Int64             // clients that have joined their rooms, and recovered
	received atomic.Int64             // messages, each counted once for a client
	rejected atomic.Int64             // tickets

	interruptions atomic.Int64  // rooms that a server took clients out of
	connecting    chan struct{} // bounds the first connections at a time

	mu         sync.Mutex // guards the fields below
	violations int
	first      string         // the first violation
	notices    map[string]int // errors that ended connections
	reasons    map[string]int // why servers did not recover messages

	clients []*client
	stop    context.CancelFunc
	running sync.WaitGroup
}

// newCrowd makes n clients, of which each joins some of the rooms.
func newCrowd(d dialect, addrs []string, n int, rooms []string, each int) *crowd {
	c := &crowd{dialect: d, connecting: make(chan struct{}, connectAtATime), notices: map[string]int{}, reasons: map[string]int{}}
	c.addrs.Store(&addrs)
	for i := range n {
		member := &client{crowd: c, number: i, random: rand.New(rand.NewPCG(1, uint64(i))), node: -1,
			ledgers: map[string]*ledger{}, positions: map[string]position{}}
		for j := range each {
			room := rooms[(i+j)%len(rooms)]
			member.rooms = append(member.rooms, room)
			member.ledgers[room] = &ledger{}
		}
		c.clients = append(c.clients, member)
	}
	return c
}

// start runs the clients until end is called, and waits until all have joined their rooms.
func (c *crowd) start(ctx context.Context) error {
	running, cancel := context.WithCancel(ctx)
	c.stop = cancel
	for _, member := range c.clients {
		c.running.Go(func() { member.run(running) }) // ends with the context; end waits for it
	}
	return c.awaitReady(ctx, len(c.clients))
}

// end stops the clients. Then their results can be read.
func (c *crowd) end() {
	c.stop()
	c.running.Wait()
}

// awaitReady waits until n clients have joined their rooms.
func (c *crowd) awaitReady(ctx context.Context, n int) error {
	for begun := time.Now(); int(c.ready.Load()) < n; {
		if time.Since(begun) > settleTimeout+time.Duration(n)*10*time.Millisecond {
			return fmt.Errorf("only %d of %d clients have joined their rooms; %v", c.ready.Load(), n, c.noticed())
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until all clients are connected and have received the last of sent messages in each
// room, or until nothing arrives any more. Clients that are not back then count as they are.
func (c *crowd) settle(ctx context.Context, sent int) error {
	c.cutting.Store(false)
	expected := int64(0)
	for _, member := range c.clients {
		expected += int64(len(member.rooms) * sent)
	}
	last, changed := int64(-1), time.Now()
	for begun := time.Now(); time.Since(begun) < settleTimeout; {
		all := int(c.ready.Load()) == len(c.clients)
		if got := c.received.Load(); got != last || !all {
			last, changed = got, time.Now()
		}
		if all && (last >= expected || time.Since(changed) > settleQuiet) {
			break
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	// A duplicate of the last message would arrive now.
	return sleep(ctx, 250*time.Millisecond)
}

// violation counts a message of the server that its protocol does not allow.
func (c *crowd) violation(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.violations++; c.violations == 1 {
		c.first = fmt.Sprintf(format, args...)
	}
}

// notice counts errors that ended connections, for the messages of errors.
func (c *crowd) notice(err error) {
	const most = 20
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner // without the addresses
	}
	text := err.Error()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.notices[text]; known || len(c.notices) < most {
		c.notices[text]++
	}
}

// unrecovered counts a join after which messages are missing, for its reason.
func (c *crowd) unrecovered(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reasons[reason]++
}

// noticed returns how often each error has ended a connection, or an attempt to connect.
func (c *crowd) noticed() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.notices)
}

// tally adds up what all clients received. The clients must have ended.
func (c *crowd) tally(sent int) (t tally) {
	for _, member := range c.clients {
		for _, l := range member.ledgers {
			t.settle(l, sent)
		}
	}
	return t
}
