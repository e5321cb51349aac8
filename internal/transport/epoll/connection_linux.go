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

// connection implements RawConn. An idle server consists of these: keep it within 80 bytes. What a
// write needs comes first, so that it is in one line of the processor's cache.
type connection struct {
	loop     *loop           // set when it is made, then read-only
	out      *outqueue.Queue // nil while nothing waits; owned by the loop
	buffered atomic.Int64    // what Buffered returns; any goroutine
	fd       int32           // owned by the loop
	state    state           // owned by the loop

	interest    uint16        // what epoll has been asked for, as far as it ever is; owned by the loop
	requests    atomic.Uint32 // what others want of it; any goroutine
	notifyBelow int32         // wantsDrained: what the handler waits for Buffered to fall below; owned by the loop
	serial      uint32        // the upper half of the id; set when it is made, then read-only

	// The peer's address: a netip.AddrPort without the zone takes half the memory. Set when it is
	// made, then read-only.
	port uint16   // 0 if the peer has no address, as on a Unix socket
	ip   [16]byte // an IPv4 address in its IPv6 form

	handler transport.Handler // owned by the loop, once registered
}

// state is a set of what has happened to a connection.
type state uint16

const (
	registered     state = 1 << iota // by the loop, which knows its handler now
	dirty                            // in loop.dirty, to be written at the end of the turn
	blocked                          // the socket takes no more: epoll will tell
	closeRequested                   // CloseAfterFlush was called
	writeShut                        // and everything is written, and the writing side shut
	peerClosed                       // the peer has closed its side
	closing                          // in loop.closing, or gone
	wantsDrained                     // the handler is to be told that it has drained
)

// Orders, set by any goroutine and carried out by the loop. posted says that the connection is in loop.commands for it,
// so that it is there once, however often requests change.
const (
	requestsPosted uint32 = 1 << iota
	pauseRequested
	abortRequested
)

func (c *connection) Buffered() int { return int(c.buffered.Load()) }
func (c *connection) Loop() int     { return c.loop.index }

// RemoteAddr returns the peer's address. A link-local IPv6 address lacks its zone.
func (c *connection) RemoteAddr() netip.AddrPort {
	if c.port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(c.ip).Unmap(), c.port)
}

// id returns what names the connection in events and deadlines. Unlike fd, it is never that of an
// earlier connection.
func (c *connection) id() uint64 { return newID(c.serial, c.fd) }

func (c *connection) Abort()  { c.request(abortRequested, 0) }
func (c *connection) Pause()  { c.request(pauseRequested, 0) }
func (c *connection) Resume() { c.request(0, pauseRequested) }

func (c *connection) request(set, clear uint32) {
	for {
		old := c.requests.Load()
		now := old&^clear | set
		if now == old {
			return
		}
		if c.requests.CompareAndSwap(old, now|requestsPosted) {
			if old&requestsPosted == 0 {
				c.loop.post(command{kind: apply, c: c})
			}
			return
		}
	}
}

// is reports whether any of s has happened.
func (c *connection) is(s state) bool { return c.state&s != 0 }

func (c *connection) Write(p []byte) bool {
	if c.is(closing|closeRequested) || !c.fits(len(p)) {
		return false
	}
	c.push(p)
	return true
}

func (c *connection) Closing() bool { return c.is(closing | closeRequested) }

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
	if c.is(closing | closeRequested) {
		return false
	}
	n, errno := send(c.fd, p)
	if errno != 0 && errno != unix.EAGAIN {
		c.loop.fail(c, os.NewSyscallError("send", errno))
		return false
	}
	if n < len(p) {
		c.state |= blocked
		c.push(p) // whole: Recall needs its beginning
		c.out.Advance(n)
		c.setBuffered(c.out.Len())
		c.loop.updateInterest(c)
	}
	return true
}

func (c *connection) NotifyBelow(n int) bool {
	if c.out == nil || c.out.Len() < n {
		return false
	}
	c.state |= wantsDrained
	c.notifyBelow = int32(min(n, math.MaxInt32))
	return true
}

// owes keeps how much waits, for Buffered and whoever awaits that it falls.
func (c *connection) setBuffered(n int) {
	c.buffered.Store(int64(n))
	if c.is(wantsDrained) && n < int(c.notifyBelow) {
		c.state &^= wantsDrained
		c.loop.drained = append(c.loop.drained, c.handler)
	}
}

func (c *connection) Recall(cut func(piece []byte, n int) int) [][]byte {
	if c.out == nil || c.is(closing|closeRequested) {
		return nil
	}
	taken := c.out.Recall(0, cut)
	c.setBuffered(c.out.Len())
	if c.out.Len() == 0 {
		c.loop.recycle(c)
	}
	return taken
}

func (c *connection) CloseAfterFlush(p []byte) {
	if c.is(closing | closeRequested) {
		return
	}
	c.state |= closeRequested
	c.push(p)
	c.scheduleFlush()
	if c.is(registered) {
		c.loop.startCloseTimeout(c)
	}
}

// push queues p, and sees to it that it is written.
func (c *connection) push(p []byte) {
	if len(p) == 0 {
		return
	}
	if c.out == nil {
		c.out = c.loop.newQueue()
		c.loop.backlogged.Add(1)
	}
	c.out.Push(p)
	c.setBuffered(c.out.Len())
	c.scheduleFlush()
}

// touch has the loop look after the connection at the end of the turn, unless epoll will say when.
func (c *connection) scheduleFlush() {
	if !c.is(dirty | blocked) {
		c.state |= dirty
		c.loop.dirty = append(c.loop.dirty, c)
	}
}
