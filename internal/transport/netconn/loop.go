package netconn

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/internal/transport/outqueue"
)

// A loop calls Tick, starts writers for what was queued there, and cuts off those whose time has come.
type loop struct {
	// Set by New, then read-only.
	t     *Transport
	index int
	wake  chan struct{} // holds a token, or run has just taken it, while signalled is true

	signalled atomic.Bool
	count     atomic.Int32 // connections
	owing     atomic.Int32 // those of them whose queue is not empty; written with the connection's mu held

	mu      sync.Mutex    // guards the fields below; innermost
	ending  []*connection // whose peer has closed: they need one more turn
	drained []*connection // whose handlers are to be told so before the next Tick

	// Owned by run.
	ended     []*connection // taken from ending, not yet told
	telling   []*connection // taken from drained
	dirty     []*connection // written to in this turn
	deadlines outqueue.Deadlines
}

// signal makes run take a turn. The swap, read by that of turn, makes what came before visible to it.
func (l *loop) signal() {
	if !l.signalled.Swap(true) {
		l.wake <- struct{}{}
	}
}

// end asks for a turn, after which c.turned is set.
func (l *loop) end(c *connection) {
	l.mu.Lock()
	l.ending = append(l.ending, c)
	l.mu.Unlock()
	l.signal()
}

// drain has the connection's handler told that it has drained.
func (l *loop) drain(c *connection) {
	l.mu.Lock()
	l.drained = append(l.drained, c)
	l.mu.Unlock()
	l.signal()
}

func (l *loop) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for more := false; ; {
		var timeout <-chan time.Time
		if wait, ok := l.deadlines.Wait(l.t.cfg.Clock.Now(), l.live); ok {
			timer.Reset(wait)
			timeout = timer.C
		}
		if more {
			select {
			case <-l.t.done:
				return
			case <-l.wake:
				l.signalled.Swap(false)
			default:
			}
		} else {
			select {
			case <-l.t.done:
				return
			case <-l.wake:
				l.signalled.Swap(false)
			case <-timeout:
			}
		}
		more = l.turn()
	}
}

func (l *loop) live(id uint64) bool { return l.t.lookup(id) != nil }

func (l *loop) turn() (more bool) {
	l.mu.Lock()
	l.ended = append(l.ended, l.ending...)
	clear(l.ending)
	l.ending = l.ending[:0]
	l.telling, l.drained = l.drained, l.telling[:0]
	l.mu.Unlock()
	for i, c := range l.telling {
		l.telling[i] = nil
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
	for i, c := range l.ended {
		l.deadlines.Add(c.id, now.Add(l.t.cfg.CloseTimeout))
		c.tell()
		l.ended[i] = nil
	}
	l.ended = l.ended[:0]
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
