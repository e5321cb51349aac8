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

// connection implements RawConn. Most of the transport's memory is in connections, so one must not
// exceed 80 bytes. The fields that a write needs come first, so that they share a cache line.
type connection struct {
	loop     *loop           // set by newConnection, then read-only
	out      *outqueue.Queue // nil while the queue is empty; owned by the loop
	buffered atomic.Int64    // the result of Buffered; any goroutine
	fd       int32           // owned by the loop
	state    state           // owned by the loop

	interest    uint16        // events that epoll was last asked for; owned by the loop
	requests    atomic.Uint32 // a set of the requests below; any goroutine
	notifyBelow int32         // argument of NotifyBelow; owned by the loop
	serial      uint32        // the upper half of the id; set by newConnection, then read-only

	// The peer's address. A netip.AddrPort takes twice the memory, for the zone. Set by
	// newConnection, then read-only.
	port uint16   // 0 if the peer has no address, as on a Unix socket
	ip   [16]byte // an IPv4 address in its IPv6 form

	handler transport.Handler // owned by the loop, once registered
}

// state is a set of the constants below.
type state uint16

const (
	registered     state = 1 << iota // in loop.conns; the handler is set
	dirty                            // in loop.dirty, to be flushed at the end of the turn
	blocked                          // the socket takes no more until epoll reports it writable
	closeRequested                   // CloseAfterFlush was called
	writeShut                        // then everything was written, and the writing side shut down
	peerClosed                       // the peer has closed its side
	toBeClosed                       // in loop.toClose, or closed
	wantsDrained                     // NotifyBelow was called and Drained not yet
)

// Requests, set by any goroutine and applied by the loop. requestsPosted means that loop.commands
// has a command for them, so that there is one command however often they change.
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

// id returns the key of the connection in events and deadlines. Unlike fd, no earlier connection
// had it.
func (c *connection) id() uint64 { return newID(c.serial, c.fd) }

func (c *connection) Abort()  { c.request(abortRequested, 0) }
func (c *connection) Pause()  { c.request(pauseRequested, 0) }
func (c *connection) Resume() { c.request(0, pauseRequested) }

// request sets and unsets requests, and makes the loop apply them.
func (c *connection) request(set, unset uint32) {
	for {
		old := c.requests.Load()
		now := old&^unset | set
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

// is reports whether the state has any of s.
func (c *connection) is(s state) bool { return c.state&s != 0 }

func (c *connection) Write(p []byte) bool {
	if c.is(toBeClosed|closeRequested) || !c.fits(len(p)) {
		return false
	}
	c.push(p)
	return true
}

func (c *connection) Closing() bool { return c.is(toBeClosed | closeRequested) }

// fits reports whether the limit allows n more bytes. The socket was not given the bytes of this
// turn yet, so if they take the space, fits first flushes c.
func (c *connection) fits(n int) bool {
	limit := c.loop.t.cfg.BackpressureLimit
	if c.out != nil && c.out.Len()+n > limit && !c.is(blocked) {
		c.loop.flush(c)
	}
	return !c.is(toBeClosed) && (c.out == nil || c.out.Len()+n <= limit)
}

func (c *connection) WriteNow(p []byte) bool {
	if c.out != nil || len(p) == 0 {
		return c.Write(p)
	}
	if c.is(toBeClosed | closeRequested) {
		return false
	}
	n, errno := send(c.fd, p)
	if errno != 0 && errno != unix.EAGAIN {
		c.loop.fail(c, os.NewSyscallError("send", errno))
		return false
	}
	if n < len(p) {
		c.state |= blocked // before push, which then schedules no flush
		c.push(p)          // with the written part, because Recall passes whole pieces to cut
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

// setBuffered sets the result of Buffered. It has Drained called if NotifyBelow asked for that.
func (c *connection) setBuffered(n int) {
	c.buffered.Store(int64(n))
	if c.is(wantsDrained) && n < int(c.notifyBelow) {
		c.state &^= wantsDrained
		c.loop.drained = append(c.loop.drained, c.handler)
	}
}

func (c *connection) Recall(cut func(piece []byte, n int) int) [][]byte {
	if c.out == nil || c.is(toBeClosed|closeRequested) {
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
	if c.is(toBeClosed | closeRequested) {
		return
	}
	c.state |= closeRequested
	c.push(p)
	c.scheduleFlush()
	if c.is(registered) {
		c.loop.startCloseTimeout(c)
	}
}

// push queues p and schedules a flush.
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

// scheduleFlush makes the loop flush c at the end of the turn, unless it waits for the socket.
func (c *connection) scheduleFlush() {
	if !c.is(dirty | blocked) {
		c.state |= dirty
		c.loop.dirty = append(c.loop.dirty, c)
	}
}
