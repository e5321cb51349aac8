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
	"github.com/hearthws/hearth/internal/ws"
)

// The engine accepts connections by itself: a handshake that is good is answered on the loop, without the goroutine, the
// buffers and the hijacking that net/http takes for it. Everything else, bad handshakes included, is handed over to
// net/http with the bytes that have been read: there is one place where a refusal is written.

// loopsAccept reports whether the event loops can accept from ln.
func (n *Node) loopsAccept(ln net.Listener) bool {
	_, tcp := ln.(*net.TCPListener)
	return tcp && n.loops > 0 && n.Running()
}

func (n *Node) serveOnLoops(ln *net.TCPListener, srv *http.Server) error {
	rest := &fallbackListener{addr: ln.Addr(), conns: make(chan net.Conn, fallbackQueue), done: make(chan struct{})}
	h := &handshakes{n: n, fallback: rest, incomplete: boundedQueue[*handshakeConn]{max: n.cfg.Limits.MaxUnauthenticated, perAddr: maxIncompletePerAddr(n.cfg.Limits)}}
	defer h.close()
	engine := n.loopRanges[0].Transport.(*epoll.Transport)
	stop, err := engine.Listen(ln, h.open)
	if errors.Is(err, transport.ErrClosed) {
		return http.ErrServerClosed // Shutdown was faster
	}
	if err != nil {
		return err
	}
	defer stop.Close()
	return srv.Serve(rest)
}

// handshakes are the connections whose request is not complete yet: they cost little, not for long, and not too many do.
type handshakes struct {
	// Set when made, then read-only.
	n        *Node
	fallback *fallbackListener

	readers sync.Pool // of *bufio.Reader

	mu         sync.Mutex                   // guards the fields below
	incomplete boundedQueue[*handshakeConn] // all have equally long
	timer      *time.Timer
	closed     bool
}

// A handshakeConn is the transport.Handler of a connection until its request is complete.
type handshakeConn struct {
	handshakes *handshakes
	conn       epoll.RawConn

	deadline clock.Instant               // set by open, then read-only
	entry    *queueEntry[*handshakeConn] // set by open, then read-only; what it points to is guarded by heads.mu

	// Owned by the loop.
	buf    []byte             // the part that has come
	cancel context.CancelFunc // of the callbacks that judge the request; nil before
}

func (h *handshakes) open(c epoll.RawConn) transport.Handler {
	x := &handshakeConn{handshakes: h, conn: c, deadline: h.n.env.Clock.Now().Add(headerTimeout)}
	h.mu.Lock()
	defer h.mu.Unlock()
	var excess *queueEntry[*handshakeConn]
	if x.entry, excess = h.incomplete.add(x, c.RemoteAddr().Addr()); excess != nil {
		excess.value.conn.Abort()
	}
	if h.incomplete.len() == 1 && !h.closed {
		if h.timer == nil {
			h.timer = time.AfterFunc(headerTimeout, h.expire)
		} else {
			h.timer.Reset(headerTimeout)
		}
	}
	return x
}

func (h *handshakes) abortLocked(x *queueEntry[*handshakeConn]) {
	h.incomplete.remove(x)
	x.value.conn.Abort()
}

// expire cuts the connections whose time is up.
func (h *handshakes) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.n.env.Clock.Now()
	for x := h.incomplete.oldest(); x != nil; x = h.incomplete.oldest() {
		if d := x.value.deadline; d > now {
			if !h.closed {
				h.timer.Reset(d.Sub(now))
			}
			return
		}
		h.abortLocked(x)
	}
}

// remove takes x out of those that wait.
func (h *handshakes) remove(x *handshakeConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.incomplete.remove(x.entry)
}

// exempt is told that x's request is complete, and the application is deciding about it. From then on x does not have
// to make room for others of its address: how long callbacks take is not its fault, and behind a proxy all come from one.
func (h *handshakes) exempt(x *handshakeConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.incomplete.exempt(x.entry)
}

// close cuts all connections whose request is not complete.
func (h *handshakes) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
	}
	for x := h.incomplete.oldest(); x != nil; x = h.incomplete.oldest() {
		h.abortLocked(x)
	}
}

// Data collects a request's header, and decides where the connection goes.
func (x *handshakeConn) Data(b []byte, now clock.Instant) {
	seen := len(x.buf)
	if seen > 0 {
		x.buf = append(x.buf, b...)
		b = x.buf
	}
	if x.cancel != nil { // the callbacks are at work, and the client does not wait for the answer
		if len(b) > maxEarlyBytes {
			x.conn.Abort()
		}
		return
	}
	end := headerEnd(b, max(0, seen-3))
	if end < 0 && len(b) < maxHeaderBytes {
		if seen == 0 {
			x.buf = bytes.Clone(b)
		}
		return
	}
	q, ok := x.parseUpgrade(b, end)
	switch {
	case !ok:
		x.finish()
		x.fallBack(b)
	case !x.handshakes.n.callbacksMayBlock(q.accepted):
		x.finish()
		if !x.upgrade(q, b, now) {
			x.fallBack(b)
		}
	default:
		if seen == 0 {
			x.buf = bytes.Clone(b)
		}
		x.runCallbacks(q)
	}
}

// A upgradeRequest is a handshake in order, about which the application may have a word to say.
type upgradeRequest struct {
	r        *http.Request
	end      int // of the request, in what has been read
	accepted ws.Accepted
	results  callbackResults // of the application
}

// parseUpgrade reads the request that ends at end; ok says that it is a handshake in order.
func (x *handshakeConn) parseUpgrade(b []byte, end int) (q upgradeRequest, ok bool) {
	if end < 0 || end > maxHeaderBytes || !strictHeader(b[:end]) {
		return q, false
	}
	r, err := x.handshakes.parse(b[:end])
	if err != nil {
		return q, false
	}
	if r.URL.Path != x.handshakes.n.cfg.Path {
		return q, false
	}
	r.RemoteAddr = x.conn.RemoteAddr().String()
	accepted, err := x.handshakes.n.checkRequest(r)
	return upgradeRequest{r: r, end: end, accepted: accepted}, err == nil
}

// runCallbacks lets the application judge, on a goroutine of its own: a loop must not wait, panic or exit. The connection goes on
// counting as one whose request is incomplete.
func (x *handshakeConn) runCallbacks(q upgradeRequest) {
	n := x.handshakes.n
	if !n.beginWork() {
		x.finish()
		x.fallBack(x.buf)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	x.cancel = cancel
	x.handshakes.exempt(x)
	q.r = q.r.WithContext(ctx)
	go func() { // ends with the callbacks, whose context ends with the connection; Env.Running waits for it
		defer n.env.Running.Done()
		ok := false
		defer func() {
			// What went wrong goes wrong again where net/http reports it.
			_ = recover()
			x.conn.Do(func() { x.callbacksDone(q, ok) })
		}()
		var err error
		q.results, err = n.runUpgradeCallbacks(q.r, &q.accepted)
		ok = err == nil
	}()
}

// callbacksDone goes on with a request that the application has judged.
func (x *handshakeConn) callbacksDone(q upgradeRequest, ok bool) {
	x.finish()
	if !ok || !x.upgrade(q, x.buf, x.handshakes.n.env.Clock.Now()) {
		x.fallBack(x.buf)
	}
}

// upgrade makes the connection a session, if there is still room for one.
func (x *handshakeConn) upgrade(q upgradeRequest, read []byte, now clock.Instant) bool {
	n, early := x.handshakes.n, read[q.end:]
	if !n.callbacksMayBlock(q.accepted) && !n.cfg.Upgrade.CheckOrigin(q.r) {
		return false
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.state != running || !n.reserveConn() {
		return false
	}
	s := n.openSession(x.conn, n.loopRanges[0], x.conn.RemoteAddr(), q.results, q.accepted, nil)
	x.conn.SetHandler(s)
	if len(early) > 0 {
		s.Data(early, now)
	}
	return true
}

// parse reads a request's header with net/http's own parser.
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

// fallBack gives the connection to net/http, with what has been read of it.
func (x *handshakeConn) fallBack(read []byte) {
	nc, err := x.conn.Detach()
	if err != nil {
		x.handshakes.n.cfg.Log.Warn("connection can't be handed to net/http", "error", err)
		x.conn.Abort()
		return
	}
	x.handshakes.fallback.push(&prefixConn{Conn: nc, prefix: bytes.Clone(read)})
}

// Ended lets a connection go that said nothing whole.
func (x *handshakeConn) Ended() bool { return false }

// Drained does not come: nothing is awaited.
func (x *handshakeConn) Drained() {}

// Closed is the end of a connection that said nothing whole.
func (x *handshakeConn) Closed(error) { x.finish() }

// finish is the end of x as one that waits.
func (x *handshakeConn) finish() {
	x.handshakes.remove(x)
	if x.cancel != nil {
		x.cancel()
	}
}
