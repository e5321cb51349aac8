package epoll

import (
	"math"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/transport/outqueue"
	"golang.org/x/sys/unix"
)

// connection implements RawConn. An idle server consists of these: keep it within 96 bytes. What a
// write needs comes first, so that it is in one line of the processor's cache.
type connection struct {
	loop    *loop           // set when it is made, then read-only
	out     *outqueue.Queue // nil while nothing waits; owned by the loop
	waiting atomic.Int64    // what Buffered returns; any goroutine
	fd      int32           // owned by the loop
	state   state           // owned by the loop

	interest uint16            // what epoll has been asked for, as far as it ever is; owned by the loop
	orders   atomic.Uint32     // what others want of it; any goroutine
	low      int32             // awaited: what the handler waits for Buffered to fall below; owned by the loop
	id       uint64            // unlike fd, never that of an earlier connection; set when it is made, then read-only
	handler  transport.Handler // owned by the loop, once registered
	remote   netip.AddrPort    // set when it is made, then read-only
}

// state is a set of what has happened to a connection.
type state uint16

const (
	registered state = 1 << iota // by the loop, which knows its handler now
	dirty                        // in loop.dirty, to be written at the end of the turn
	blocked                      // the socket takes no more: epoll will tell
	finishing                    // CloseAfterFlush was called
	shut                         // and everything is written, and the writing side shut
	ended                        // the peer has closed its side
	closing                      // in loop.closing, or gone
	awaited                      // the handler is to be told that it has drained
)

// Orders, set by any goroutine and carried out by the loop. ordered says that the connection is in loop.commands for it,
// so that it is there once, however often orders change.
const (
	ordered uint32 = 1 << iota
	paused
	aborted
)

func (c *connection) Buffered() int              { return int(c.waiting.Load()) }
func (c *connection) RemoteAddr() netip.AddrPort { return c.remote }
func (c *connection) Loop() int                  { return c.loop.index }

func (c *connection) Abort()  { c.order(aborted, 0) }
func (c *connection) Pause()  { c.order(paused, 0) }
func (c *connection) Resume() { c.order(0, paused) }

func (c *connection) order(set, clear uint32) {
	for {
		old := c.orders.Load()
		now := old&^clear | set
		if now == old {
			return
		}
		if c.orders.CompareAndSwap(old, now|ordered) {
			if old&ordered == 0 {
				c.loop.post(command{kind: obey, c: c})
			}
			return
		}
	}
}

// is reports whether any of s has happened.
func (c *connection) is(s state) bool { return c.state&s != 0 }

func (c *connection) Write(p []byte) bool {
	if c.is(closing|finishing) || !c.fits(len(p)) {
		return false
	}
	c.push(p)
	return true
}

func (c *connection) Closing() bool { return c.is(closing | finishing) }

// fits reports whether n more bytes may wait. What came in this turn does not have to: it is written before anything
// is refused for it.
func (c *connection) fits(n int) bool {
	limit := c.loop.t.cfg.BackpressureLimit
	if c.out != nil && c.out.Len()+n > limit && !c.is(blocked) {
		c.loop.flush(c)
	}
	return !c.is(closing) && (c.out == nil || c.out.Len()+n <= limit)
}

func (c *connection) WriteNow(p []byte) bool {
	if c.out != nil || len(p) == 0 {
		return c.Write(p)
	}
	if c.is(closing | finishing) {
		return false
	}
	n, errno := send(c.fd, p)
	if errno != 0 && errno != unix.EAGAIN {
		c.loop.lose(c, os.NewSyscallError("send", errno))
		return false
	}
	if n < len(p) {
		c.state |= blocked
		c.push(p) // whole: Recall needs its beginning
		c.out.Advance(n)
		c.owes(c.out.Len())
		c.loop.watch(c)
	}
	return true
}

func (c *connection) NotifyBelow(n int) bool {
	if c.out == nil || c.out.Len() < n {
		return false
	}
	c.state |= awaited
	c.low = int32(min(n, math.MaxInt32))
	return true
}

// owes keeps how much waits, for Buffered and whoever awaits that it falls.
func (c *connection) owes(n int) {
	c.waiting.Store(int64(n))
	if c.is(awaited) && n < int(c.low) {
		c.state &^= awaited
		c.loop.drained = append(c.loop.drained, c.handler)
	}
}

func (c *connection) Recall(cut func(piece []byte, n int) int) [][]byte {
	if c.out == nil || c.is(closing|finishing) {
		return nil
	}
	taken := c.out.Recall(0, cut)
	c.owes(c.out.Len())
	if c.out.Len() == 0 {
		c.loop.recycle(c)
	}
	return taken
}

func (c *connection) CloseAfterFlush(p []byte) {
	if c.is(closing | finishing) {
		return
	}
	c.state |= finishing
	c.push(p)
	c.touch()
	if c.is(registered) {
		c.loop.expire(c)
	}
}

// push queues p, and sees to it that it is written.
func (c *connection) push(p []byte) {
	if len(p) == 0 {
		return
	}
	if c.out == nil {
		c.out = c.loop.queue()
		c.loop.owing.Add(1)
	}
	c.out.Push(p)
	c.owes(c.out.Len())
	c.touch()
}

// touch has the loop look after the connection at the end of the turn, unless epoll will say when.
func (c *connection) touch() {
	if !c.is(dirty | blocked) {
		c.state |= dirty
		c.loop.dirty = append(c.loop.dirty, c)
	}
}
