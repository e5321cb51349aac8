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
	raw     net.Conn // what is under nc: its Close does not block
	remote  netip.AddrPort
	handler transport.Handler // called by read only

	waiting atomic.Int64 // queue.Len, for Buffered
	dirty   bool         // in loop.dirty; owned by the loop

	mu        sync.Mutex // guards the fields below
	changed   sync.Cond  // something below is no longer what read may be waiting for
	queue     outqueue.Queue
	ready     int   // the bytes of queue from earlier turns: those of this turn are not yet for write
	given     int   // of those, what write has given to the socket, which has not taken all of it yet
	writing   bool  // write runs
	finishing bool  // CloseAfterFlush was called
	shut      bool  // the writing side is closed, or about to be
	paused    bool  // between Pause and Resume
	low       int   // what the handler waits for queue.Len to fall below; 0: it does not
	ended     bool  // the peer has closed
	turned    bool  // the loop took a turn after ended
	err       error // why the connection is closed; nil while it is open
}

func (c *connection) Buffered() int              { return int(c.waiting.Load()) }
func (c *connection) RemoteAddr() netip.AddrPort { return c.remote }
func (c *connection) Loop() int                  { return c.loop.index }

func (c *connection) Write(p []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.finishing {
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
	return c.err != nil || c.finishing
}

// WriteNow is Write: a socket of any kind can be written without blocking only by another goroutine.
func (c *connection) WriteNow(p []byte) bool { return c.Write(p) }

func (c *connection) Recall(cut func(piece []byte, n int) int) [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.finishing {
		return nil
	}
	taken := c.queue.Recall(c.given, cut)
	c.ready = min(c.ready, c.queue.Len())
	c.owesLocked()
	return taken
}

func (c *connection) NotifyBelow(n int) bool {
	if c.Buffered() < n { // mostly, and it costs no lock
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue.Len() < n {
		return false
	}
	c.low = n
	return true
}

func (c *connection) CloseAfterFlush(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.finishing {
		return
	}
	c.finishing = true
	c.pushLocked(p)
	c.loop.deadlines.Add(c.id, c.loop.t.cfg.Clock.Now().Add(c.loop.t.cfg.CloseTimeout))
}

// pushLocked queues p, and has the loop start a writer at the end of the turn.
func (c *connection) pushLocked(p []byte) {
	c.queue.Push(p)
	c.owesLocked()
	if !c.dirty {
		c.dirty = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

// owesLocked tells others how much waits now.
func (c *connection) owesLocked() {
	now := int64(c.queue.Len())
	if now > 0 && c.waiting.Load() == 0 {
		c.loop.owing.Add(1)
	}
	if before := c.waiting.Swap(now); now == 0 && before > 0 {
		c.loop.owing.Add(-1)
	}
	if int(now) < c.low {
		c.low = 0
		c.loop.drain(c)
	}
}

// flush, at the end of a turn, starts a writer if there is something to do for one. On the loop.
func (c *connection) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready = c.queue.Len()
	if c.err == nil && !c.writing && !c.settledLocked() {
		c.writing = true
		c.loop.t.wg.Go(c.write) // ends when nothing waits, or by fail; Close waits
	}
}

// settledLocked reports whether everything is written and, after CloseAfterFlush, the writing side shut.
func (c *connection) settledLocked() bool {
	return c.queue.Len() == 0 && !c.writing && (c.shut || !c.finishing)
}

// write writes until nothing is ready.
func (c *connection) write() {
	scratch := c.loop.t.buffers.writes.Get().(*[]byte)
	defer c.loop.t.buffers.writes.Put(scratch)
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && c.ready > 0 {
		p := c.queue.Next(*scratch)
		p = p[:min(len(p), c.ready, pieceMax)]
		c.given = len(p)
		c.unlocked(func() error {
			n, err := c.nc.Write(p)
			p = p[:n]
			return err
		})
		c.given = 0
		if c.err == nil {
			c.queue.Advance(len(p))
			c.ready -= len(p)
			c.owesLocked()
			c.loop.signal() // for whoever paces itself by Buffered
		}
	}
	if c.err == nil && c.finishing && !c.shut && c.queue.Len() == 0 {
		c.shut = true
		if w, ok := c.nc.(interface{ CloseWrite() error }); ok {
			c.unlocked(w.CloseWrite)
		}
	}
	c.writing = false
	c.changed.Broadcast()
}

// unlocked calls f, which may block, without the lock, and fails the connection with its error.
func (c *connection) unlocked(f func() error) {
	c.mu.Unlock()
	err := f()
	c.mu.Lock()
	if err == nil {
		return
	}
	if c.ended {
		err = io.EOF // the peer is gone, and it was polite
	}
	c.endLocked(err)
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

// tell lets read know that the loop has taken its turn after the peer's end. On the loop.
func (c *connection) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turned = true
	c.changed.Broadcast()
}

// fail cuts the connection: whatever blocks on it returns, and read calls Closed. Any goroutine; never blocks.
func (c *connection) fail(err error) {
	c.mu.Lock()
	c.endLocked(err)
	c.mu.Unlock()
	_ = c.raw.Close() // its error is of no interest: what was not written is lost anyway
}

// endLocked makes err the reason of the end, unless there was one before.
func (c *connection) endLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.queue.Reset()
	c.ready = 0
	c.owesLocked()
	c.changed.Broadcast()
}

// read is the life of the connection.
func (c *connection) read(early []byte) {
	err := c.readAll(early)
	if err == io.EOF {
		c.settle()
	}
	c.mu.Lock()
	c.endLocked(err)
	err = c.err
	c.mu.Unlock()
	_ = c.nc.Close() // for TLS this may wait for the peer; fail cuts that short
	c.loop.t.remove(c)
	c.handler.Closed(err)
}

// readAll hands over what arrives, until an error.
func (c *connection) readAll(early []byte) error {
	if len(early) > 0 {
		if !c.proceed() {
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
	for c.proceed() {
		n, err := c.nc.Read(buf)
		if n > 0 {
			if !c.proceed() {
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

// proceed waits while reading is paused. It reports whether the connection is open.
func (c *connection) proceed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.paused && c.err == nil {
		c.changed.Wait()
	}
	return c.err == nil
}

// settle, after the peer's end, waits for a turn of the loop, and then until CloseAfterFlush is done, if there is to be one.
func (c *connection) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.loop.end(c)
	for c.err == nil && !c.turned {
		c.changed.Wait()
	}
	if c.err == nil && !c.finishing && !c.endedLocked() {
		return
	}
	for c.err == nil && !(c.finishing && c.settledLocked()) {
		c.changed.Wait()
	}
}

// endedLocked asks the handler, without the lock, whether it wants to have something written yet.
func (c *connection) endedLocked() bool {
	c.mu.Unlock()
	defer c.mu.Lock()
	return c.handler.PeerClosed()
}
