package netconn

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/transport/outqueue"
)

// connection implements transport.Conn.
type connection struct {
	// Set by Adopt, then read-only.
	id      uint64
	loop    *loop
	nc      net.Conn
	raw     net.Conn // the connection under nc (TLS), whose Close does not block
	remote  netip.AddrPort
	handler transport.Handler // called by read; Drained by the loop

	buffered atomic.Int64 // queue.Len, for Buffered without a lock
	dirty    bool         // in loop.dirty; owned by the loop

	mu             sync.Mutex // guards the fields below
	changed        sync.Cond  // a field below has changed that read may wait for
	queue          outqueue.Queue
	ready          int   // bytes of queue that write may take: not those of the current turn
	inFlight       int   // bytes of those that write has passed to a Write that has not returned
	writing        bool  // write is running
	closeRequested bool  // CloseAfterFlush was called
	writeShut      bool  // the writing side is closed, or write is closing it
	paused         bool  // between Pause and Resume
	notifyBelow    int   // argument of NotifyBelow; 0 after Drained
	peerClosed     bool  // the peer has closed its side
	turnTaken      bool  // the loop has taken a turn since
	err            error // the reason of the end; nil while the connection is open
}

func (c *connection) Buffered() int              { return int(c.buffered.Load()) }
func (c *connection) RemoteAddr() netip.AddrPort { return c.remote }
func (c *connection) Loop() int                  { return c.loop.index }

func (c *connection) Write(p []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.closeRequested {
		return false
	}
	if n := c.queue.Len(); n > 0 && n+len(p) > c.loop.t.cfg.BackpressureLimit {
		return false
	}
	c.pushLocked(p)
	return true
}

func (c *connection) Closing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil || c.closeRequested
}

// WriteNow is the same as Write: only another goroutine can write to any kind of socket without
// blocking the loop.
func (c *connection) WriteNow(p []byte) bool { return c.Write(p) }

func (c *connection) Recall(cut func(piece []byte, n int) int) [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.closeRequested {
		return nil
	}
	taken := c.queue.Recall(c.inFlight, cut)
	c.ready = min(c.ready, c.queue.Len())
	c.updateBufferedLocked()
	return taken
}

func (c *connection) NotifyBelow(n int) bool {
	if c.Buffered() < n { // the usual case, without the lock
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue.Len() < n {
		return false
	}
	c.notifyBelow = n
	return true
}

func (c *connection) CloseAfterFlush(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.closeRequested {
		return
	}
	c.closeRequested = true
	c.pushLocked(p)
	c.loop.deadlines.Add(c.id, c.loop.t.cfg.Clock.Now().Add(c.loop.t.cfg.CloseTimeout))
}

// pushLocked queues p, and makes the loop start a writer at the end of the turn.
func (c *connection) pushLocked(p []byte) {
	c.queue.Push(p)
	c.updateBufferedLocked()
	if !c.dirty {
		c.dirty = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

// updateBufferedLocked updates what depends on the length of the queue. It has Drained called if
// NotifyBelow asked for that.
func (c *connection) updateBufferedLocked() {
	now := int64(c.queue.Len())
	if now > 0 && c.buffered.Load() == 0 {
		c.loop.backlogged.Add(1)
	}
	if before := c.buffered.Swap(now); now == 0 && before > 0 {
		c.loop.backlogged.Add(-1)
	}
	if int(now) < c.notifyBelow {
		c.notifyBelow = 0
		c.loop.addDrained(c)
	}
}

// flush starts a writer if there is work for one. The loop calls it at the end of a turn.
func (c *connection) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready = c.queue.Len()
	if c.err == nil && !c.writing && !c.flushedLocked() {
		c.writing = true
		c.loop.t.wg.Go(c.write) // ends when nothing is ready, or by fail; Close waits for it
	}
}

// flushedLocked reports whether everything is written and, after CloseAfterFlush, the writing side
// is closed.
func (c *connection) flushedLocked() bool {
	return c.queue.Len() == 0 && !c.writing && (c.writeShut || !c.closeRequested)
}

// write writes until no more bytes are ready. After CloseAfterFlush, it then closes the writing
// side.
func (c *connection) write() {
	scratch := c.loop.t.buffers.writes.Get().(*[]byte)
	defer c.loop.t.buffers.writes.Put(scratch)
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && c.ready > 0 {
		p := c.queue.Next(*scratch)
		p = p[:min(len(p), c.ready, maxWrite)]
		c.inFlight = len(p)
		c.unlocked(func() error {
			n, err := c.nc.Write(p)
			p = p[:n]
			return err
		})
		c.inFlight = 0
		if c.err == nil {
			c.queue.Advance(len(p))
			c.ready -= len(p)
			c.updateBufferedLocked()
			c.loop.signal() // code that paces itself by Buffered can continue
		}
	}
	if c.err == nil && c.closeRequested && !c.writeShut && c.queue.Len() == 0 {
		c.writeShut = true
		if w, ok := c.nc.(interface{ CloseWrite() error }); ok {
			c.unlocked(w.CloseWrite)
		}
	}
	c.writing = false
	c.changed.Broadcast()
}

// unlocked calls f, which may block, without the lock. If f fails, the connection fails.
func (c *connection) unlocked(f func() error) {
	c.mu.Unlock()
	err := f()
	c.mu.Lock()
	if err == nil {
		return
	}
	if c.peerClosed {
		err = io.EOF // the peer has closed in order before
	}
	c.failLocked(err)
	_ = c.raw.Close()
}

func (c *connection) Abort() { c.fail(transport.ErrClosed) }

func (c *connection) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = true
}

func (c *connection) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = false
	c.changed.Broadcast()
}

// setTurnTaken tells read that the loop has taken a turn since the peer closed. On the loop.
func (c *connection) setTurnTaken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turnTaken = true
	c.changed.Broadcast()
}

// fail cuts the connection with err as the reason. Blocked reads and writes return, and read calls
// Closed. Any goroutine. Never blocks.
func (c *connection) fail(err error) {
	c.mu.Lock()
	c.failLocked(err)
	c.mu.Unlock()
	_ = c.raw.Close() // an error does not matter: the rest is lost anyway
}

// failLocked makes err the reason of the end, unless there is one already.
func (c *connection) failLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.queue.Reset()
	c.ready = 0
	c.updateBufferedLocked()
	c.changed.Broadcast()
}

// read serves the connection until its end. It runs on a goroutine of its own.
func (c *connection) read(early []byte) {
	err := c.readAll(early)
	if err == io.EOF {
		c.awaitFlush()
	}
	c.mu.Lock()
	c.failLocked(err)
	err = c.err
	c.mu.Unlock()
	_ = c.nc.Close() // with TLS this may wait for the peer, until fail is called
	c.loop.t.remove(c)
	c.handler.Closed(err)
}

// readAll passes all bytes to the handler until an error, which it returns.
func (c *connection) readAll(early []byte) error {
	if len(early) > 0 {
		if !c.awaitResume() {
			return transport.ErrClosed
		}
		c.handler.Data(early, c.loop.t.cfg.Clock.Now())
	}
	small := make([]byte, smallRead)
	buf, large := small, (*[]byte)(nil)
	pool := c.loop.t.buffers.reads
	defer func() {
		if large != nil {
			pool.Put(large)
		}
	}()
	for c.awaitResume() {
		n, err := c.nc.Read(buf)
		if n > 0 {
			if !c.awaitResume() {
				break
			}
			c.handler.Data(buf[:n], c.loop.t.cfg.Clock.Now())
		}
		if err != nil {
			return err
		}
		switch full := n == len(buf); {
		case full && large == nil:
			large = pool.Get().(*[]byte)
			buf = *large
		case !full && large != nil:
			pool.Put(large)
			buf, large = small, nil
		}
	}
	return transport.ErrClosed
}

// awaitResume waits while the connection is paused. It reports whether the connection is open.
func (c *connection) awaitResume() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.paused && c.err == nil {
		c.changed.Wait()
	}
	return c.err == nil
}

// awaitFlush is called after the peer has closed its side. It waits for a turn of the loop. Then,
// unless CloseAfterFlush was called or the handler is going to call it, it returns. Otherwise it
// waits until everything is written.
func (c *connection) awaitFlush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peerClosed = true
	c.loop.addPeerClosed(c)
	for c.err == nil && !c.turnTaken {
		c.changed.Wait()
	}
	if c.err == nil && !c.closeRequested && !c.askHandlerLocked() {
		return
	}
	for c.err == nil && !(c.closeRequested && c.flushedLocked()) {
		c.changed.Wait()
	}
}

// askHandlerLocked calls the handler's PeerClosed, without the lock.
func (c *connection) askHandlerLocked() bool {
	c.mu.Unlock()
	defer c.mu.Lock()
	return c.handler.PeerClosed()
}
