package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/transport/epoll"
)

// The event loops accept connections themselves. They answer a valid handshake without the
// goroutine, the buffers and the hijacking that net/http needs for it. They pass every other
// connection, including those with invalid handshakes, to net/http with the bytes that were read.
// So only ServeHTTP writes the responses to rejected handshakes.

// loopsAccept reports whether the event loops can accept connections from ln.
func (n *Node) loopsAccept(ln net.Listener) bool {
	_, tcp := ln.(*net.TCPListener)
	return tcp && n.transports.loops > 0 && n.Running()
}

// serveOnLoops makes the event loops accept connections from ln. srv serves those that are no valid
// handshakes.
func (n *Node) serveOnLoops(ln *net.TCPListener, srv *http.Server) error {
	fallback := newFallbackListener(ln.Addr())
	h := newHandshakes(n, fallback, n.cfg.Limits.MaxUnauthenticated, maxIncompletePerAddr(n.cfg.Limits))
	defer h.close()
	loops := n.transports.ranges[0].Transport.(*epoll.Transport)
	stop, err := loops.Listen(ln, h.open)
	if errors.Is(err, transport.ErrClosed) {
		return http.ErrServerClosed // Shutdown was faster
	}
	if err != nil {
		return err
	}
	defer stop.Close()
	return srv.Serve(fallback)
}

// handshakes manages the connections whose HTTP request is incomplete. It bounds their number,
// their age and the bytes that are kept for each.
type handshakes struct {
	// Set when made, then read-only.
	n        *Node
	fallback *fallbackListener

	readers sync.Pool // of *bufio.Reader

	mu         sync.Mutex                   // guards the fields below
	incomplete boundedQueue[*handshakeConn] // the oldest expires first
	timer      *time.Timer
	closed     bool
}

// newHandshakes makes handshakes with limits for all connections and for those of one address.
func newHandshakes(n *Node, fallback *fallbackListener, limit, perAddr int) *handshakes {
	return &handshakes{n: n, fallback: fallback, incomplete: boundedQueue[*handshakeConn]{max: limit, perAddr: perAddr}}
}

// A handshakeConn is the transport.Handler of a connection until its request is complete.
type handshakeConn struct {
	handshakes *handshakes
	conn       epoll.RawConn

	deadline clock.Instant               // set by open, then read-only
	entry    *queueEntry[*handshakeConn] // set by open; handshakes.mu guards its fields

	// Owned by the loop.
	buf    []byte             // what was read, if the request was not complete at the first read
	cancel context.CancelFunc // of the callbacks' context; nil until they are called
}

// open returns the handler of a new connection. If there are too many connections, it cuts the
// oldest.
func (h *handshakes) open(raw epoll.RawConn) transport.Handler {
	c := &handshakeConn{handshakes: h, conn: raw, deadline: h.n.env.Clock.Now().Add(headerTimeout)}
	h.mu.Lock()
	defer h.mu.Unlock()
	var excess *queueEntry[*handshakeConn]
	if c.entry, excess = h.incomplete.add(c, raw.RemoteAddr().Addr()); excess != nil {
		excess.value.conn.Abort()
	}
	if h.incomplete.len() == 1 && !h.closed {
		if h.timer == nil {
			h.timer = time.AfterFunc(headerTimeout, h.expire)
		} else {
			h.timer.Reset(headerTimeout)
		}
	}
	return c
}

// cutLocked cuts a connection and removes it from the queue.
func (h *handshakes) cutLocked(e *queueEntry[*handshakeConn]) {
	h.incomplete.remove(e)
	e.value.conn.Abort()
}

// expire cuts the connections whose deadline has passed.
func (h *handshakes) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.n.env.Clock.Now()
	for e := h.incomplete.oldest(); e != nil; e = h.incomplete.oldest() {
		if d := e.value.deadline; d > now {
			if !h.closed {
				h.timer.Reset(d.Sub(now))
			}
			return
		}
		h.cutLocked(e)
	}
}

// remove removes c from the queue of incomplete requests.
func (h *handshakes) remove(c *handshakeConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.incomplete.remove(c.entry)
}

// exempt removes c from the limit of incomplete requests per address, because its request is
// complete and the application decides about it: behind a proxy all clients have the same address.
// From then on callbackLimit applies.
func (h *handshakes) exempt(c *handshakeConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.incomplete.exempt(c.entry)
}

// close cuts all connections whose request is incomplete.
func (h *handshakes) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
	}
	for e := h.incomplete.oldest(); e != nil; e = h.incomplete.oldest() {
		h.cutLocked(e)
	}
}

// parse parses the header of a request with net/http's parser.
func (h *handshakes) parse(request []byte) (*http.Request, error) {
	br, _ := h.readers.Get().(*bufio.Reader)
	if br == nil {
		br = bufio.NewReaderSize(nil, 1024)
	}
	defer h.readers.Put(br)
	br.Reset(bytes.NewReader(request))
	defer br.Reset(nil)
	return http.ReadRequest(br)
}

// Data collects the header of the request. When it is complete, Data upgrades the connection, calls
// the application's callbacks, or passes the connection to net/http.
func (c *handshakeConn) Data(b []byte, now clock.Instant) {
	seen := len(c.buf)
	if seen > 0 {
		c.buf = append(c.buf, b...)
		b = c.buf
	}
	if c.cancel != nil { // the callbacks are running, and the client sends before it has the answer
		if len(b) > maxEarlyBytes {
			c.conn.Abort()
		}
		return
	}
	end := headerEnd(b, max(0, seen-3))
	if end < 0 && len(b) < maxHeaderBytes {
		if seen == 0 {
			c.buf = bytes.Clone(b)
		}
		return
	}
	n := c.handshakes.n
	u, ok := c.parseUpgrade(b, end)
	switch {
	case !ok:
		c.finish()
		c.fallBack(b, nil)
	case !n.upgrader.callbacksMayBlock(u.verdict.accepted):
		c.finish()
		if !n.upgrader.callbacks.CheckOrigin(u.r) || !c.upgrade(u, b, now) {
			c.fallBack(b, nil)
		}
	default:
		if seen == 0 {
			c.buf = bytes.Clone(b)
		}
		c.runCallbacks(u)
	}
}

// An upgradeRequest is a valid handshake. The application's callbacks may still reject it.
type upgradeRequest struct {
	r       *http.Request
	end     int // length of the request in the bytes that were read
	verdict verdict
}

// parseUpgrade parses the request that ends at end. ok reports whether it is a valid handshake.
func (c *handshakeConn) parseUpgrade(b []byte, end int) (u upgradeRequest, ok bool) {
	if end < 0 || end > maxHeaderBytes || !strictHeader(b[:end]) {
		return u, false
	}
	r, err := c.handshakes.parse(b[:end])
	if err != nil {
		return u, false
	}
	if r.URL.Path != c.handshakes.n.cfg.Path {
		return u, false
	}
	r.RemoteAddr = c.conn.RemoteAddr().String()
	accepted, err := c.handshakes.n.checkRequest(r)
	return upgradeRequest{r: r, end: end, verdict: verdict{accepted: accepted}}, err == nil
}

// runCallbacks calls the application's callbacks on a goroutine of their own, since a loop must not
// block, panic or exit. Meanwhile the connection still counts as one whose request is incomplete.
func (c *handshakeConn) runCallbacks(u upgradeRequest) {
	n := c.handshakes.n
	if !n.beginWork() {
		c.finish()
		c.fallBack(c.buf, nil)
		return
	}
	release, ok := n.upgrader.running.begin(u.r.RemoteAddr)
	if !ok {
		n.env.Running.Done()
		c.finish()
		c.fallBack(c.buf, &verdict{err: unavailable(tooManyHandshakes)})
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.handshakes.exempt(c)
	u.r = u.r.WithContext(ctx)
	// The goroutine ends with the callbacks, whose context ends with the connection. Env.Running
	// waits for it.
	go func() {
		defer n.env.Running.Done()
		accepted := u.verdict.accepted
		u.verdict.err = errInternal // if a callback calls runtime.Goexit
		defer func() { c.conn.Do(func() { c.callbacksDone(u) }) }()
		defer release()
		u.verdict = n.upgrader.runCallbacks(u.r, accepted)
	}()
}

// callbacksDone continues with a request after the callbacks.
func (c *handshakeConn) callbacksDone(u upgradeRequest) {
	c.finish()
	if u.verdict.err != nil || !c.upgrade(u, c.buf, c.handshakes.n.env.Clock.Now()) {
		c.fallBack(c.buf, &u.verdict)
	}
}

// upgrade replaces c with a session. It reports false, and does nothing, if the node is not
// running, or there are too many connections.
func (c *handshakeConn) upgrade(u upgradeRequest, read []byte, now clock.Instant) bool {
	n, early := c.handshakes.n, read[u.end:]
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.state != running || !n.conns.reserve() {
		return false
	}
	s := n.openSession(c.conn, n.transports.ranges[0], c.conn.RemoteAddr(), u.verdict.results, u.verdict.accepted, nil)
	c.conn.SetHandler(s)
	if len(early) > 0 {
		s.Data(early, now)
	}
	return true
}

// fallBack passes the connection to net/http, with the bytes that were read from it. v is the
// verdict about its first request if the application's callbacks were called for it, else nil.
func (c *handshakeConn) fallBack(read []byte, v *verdict) {
	nc, err := c.conn.Detach()
	if err != nil {
		c.handshakes.n.cfg.Log.Warn("connection can't be passed to net/http", "error", err)
		c.conn.Abort()
		return
	}
	c.handshakes.fallback.push(&prefixConn{Conn: nc, prefix: bytes.Clone(read), verdict: v})
}

// PeerClosed makes the loop close a connection that the peer has closed before its request was
// complete.
func (c *handshakeConn) PeerClosed() bool { return false }

// Drained does nothing: c never asks for the notification.
func (c *handshakeConn) Drained() {}

// Closed handles the end of a connection whose request was never completed.
func (c *handshakeConn) Closed(error) { c.finish() }

// finish removes c from the queue of incomplete requests, and cancels its callbacks.
func (c *handshakeConn) finish() {
	c.handshakes.remove(c)
	if c.cancel != nil {
		c.cancel()
	}
}
