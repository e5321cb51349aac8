package netconn

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/internal/transport/outqueue"
)

// A loop calls Tick, starts a writer for each connection that has queued bytes, and cuts
// connections whose deadline has passed.
type loop struct {
	// Set by New, then read-only.
	t     *Transport
	index int
	wake  chan struct{} // has a token, or run has just taken it, while signalled is true

	signalled  atomic.Bool
	count      atomic.Int32 // connections
	backlogged atomic.Int32 // connections with queued bytes; changed with their mu held

	mu          sync.Mutex    // guards the fields below; locked after all others
	peersClosed []*connection // the peer has closed; they need one more turn
	drained     []*connection // Drained is called before the next Tick

	// Owned by run.
	turnDone  []*connection // taken from peersClosed; had their turn
	notifying []*connection // taken from drained
	dirty     []*connection // written to in this turn
	deadlines outqueue.Deadlines
}

// signal makes run take a turn. Run's Swap of signalled reads the value of this one, so the turn
// sees everything that was done before.
func (l *loop) signal() {
	if !l.signalled.Swap(true) {
		l.wake <- struct{}{}
	}
}

// addPeerClosed makes the loop take a turn and then set c.turnTaken.
func (l *loop) addPeerClosed(c *connection) {
	l.mu.Lock()
	l.peersClosed = append(l.peersClosed, c)
	l.mu.Unlock()
	l.signal()
}

// addDrained makes the loop call Drained of the handler of c.
func (l *loop) addDrained(c *connection) {
	l.mu.Lock()
	l.drained = append(l.drained, c)
	l.mu.Unlock()
	l.signal()
}

func (l *loop) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	always := make(chan struct{})
	close(always)
	for more := false; ; {
		var timeout <-chan time.Time
		if wait, ok := l.deadlines.Wait(l.t.cfg.Clock.Now(), l.live); ok {
			timer.Reset(wait)
			timeout = timer.C
		}
		var now <-chan struct{}
		if more {
			now = always
		}
		select {
		case <-l.t.done:
			return
		case <-l.wake:
			l.signalled.Swap(false)
		case <-timeout:
		case <-now:
		}
		more = l.turn()
	}
}

func (l *loop) live(id uint64) bool { return l.t.lookup(id) != nil }

func (l *loop) turn() (more bool) {
	l.mu.Lock()
	l.turnDone, l.peersClosed = l.peersClosed, l.turnDone[:0]
	l.notifying, l.drained = l.drained, l.notifying[:0]
	l.mu.Unlock()
	for i, c := range l.notifying {
		l.notifying[i] = nil
		c.handler.Drained()
	}

	more = l.t.cfg.Tick(l.index)
	for i, c := range l.dirty {
		c.dirty = false
		c.flush()
		l.dirty[i] = nil
	}
	l.dirty = l.dirty[:0]

	now := l.t.cfg.Clock.Now()
	for i, c := range l.turnDone {
		l.deadlines.Add(c.id, now.Add(l.t.cfg.CloseTimeout))
		c.setTurnTaken()
		l.turnDone[i] = nil
	}
	for {
		id, ok := l.deadlines.Due(now)
		if !ok {
			return more
		}
		if c := l.t.lookup(id); c != nil {
			c.fail(os.ErrDeadlineExceeded)
		}
	}
}
