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

// engineListens reports whether the event loops can accept from ln.
func (n *Node) engineListens(ln net.Listener) bool {
	_, tcp := ln.(*net.TCPListener)
	return tcp && n.loops > 0 && n.Running()
}

func (n *Node) serveEngine(ln *net.TCPListener, srv *http.Server) error {
	rest := &handover{addr: ln.Addr(), conns: make(chan net.Conn, handoverQueue), done: make(chan struct{})}
	h := &heads{n: n, rest: rest, waiting: arrivals[*head]{max: n.cfg.Limits.MaxUnauthenticated, perAddr: perAddr(n.cfg.Limits)}}
	defer h.close()
	engine := n.carriers[0].Transport.(*epoll.Transport)
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

// heads are the connections whose request is not complete yet: they cost little, not for long, and not too many do.
type heads struct {
	// Set when made, then read-only.
	n    *Node
	rest *handover

	readers sync.Pool // of *bufio.Reader

	mu      sync.Mutex      // guards the fields below
	waiting arrivals[*head] // all have equally long
	timer   *time.Timer
	closed  bool
}

// A head is the transport.Handler of a connection until its request is complete.
type head struct {
	heads *heads
	conn  epoll.RawConn

	deadline clock.Instant   // set by open, then read-only
	place    *arrival[*head] // set by open, then read-only; what it points to is guarded by heads.mu

	// Owned by the loop.
	buf    []byte             // the part that has come
	cancel context.CancelFunc // of the callbacks that judge the request; nil before
}

func (h *heads) open(c epoll.RawConn) transport.Handler {
	x := &head{heads: h, conn: c, deadline: h.n.env.Clock.Now().Add(headTimeout)}
	h.mu.Lock()
	defer h.mu.Unlock()
	var excess *arrival[*head]
	if x.place, excess = h.waiting.add(x, c.RemoteAddr().Addr()); excess != nil {
		excess.value.conn.Abort()
	}
	if h.waiting.len() == 1 && !h.closed {
		if h.timer == nil {
			h.timer = time.AfterFunc(headTimeout, h.expire)
		} else {
			h.timer.Reset(headTimeout)
		}
	}
	return x
}

func (h *heads) cutLocked(x *arrival[*head]) {
	h.waiting.remove(x)
	x.value.conn.Abort()
}

// expire cuts the connections whose time is up.
func (h *heads) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.n.env.Clock.Now()
	for x := h.waiting.oldest(); x != nil; x = h.waiting.oldest() {
		if d := x.value.deadline; d > now {
			if !h.closed {
				h.timer.Reset(d.Sub(now))
			}
			return
		}
		h.cutLocked(x)
	}
}

// leave takes x out of those that wait.
func (h *heads) leave(x *head) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting.remove(x.place)
}

// asking is told that x's request is complete, and the application is deciding about it. From then on x does not have
// to make room for others of its address: how long callbacks take is not its fault, and behind a proxy all come from one.
func (h *heads) asking(x *head) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting.forget(x.place)
}

// close cuts all connections whose request is not complete.
func (h *heads) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
	}
	for x := h.waiting.oldest(); x != nil; x = h.waiting.oldest() {
		h.cutLocked(x)
	}
}

// Data collects a request's header, and decides where the connection goes.
func (x *head) Data(b []byte, now clock.Instant) {
	seen := len(x.buf)
	if seen > 0 {
		x.buf = append(x.buf, b...)
		b = x.buf
	}
	if x.cancel != nil { // the callbacks are at work, and the client does not wait for the answer
		if len(b) > earlyMax {
			x.conn.Abort()
		}
		return
	}
	end := headEnd(b, max(0, seen-3))
	if end < 0 && len(b) < headMax {
		if seen == 0 {
			x.buf = bytes.Clone(b)
		}
		return
	}
	q, ok := x.question(b, end)
	switch {
	case !ok:
		x.leave()
		x.handOver(b)
	case !x.heads.n.asks(q.accepted):
		x.leave()
		if !x.upgrade(q, b, now) {
			x.handOver(b)
		}
	default:
		if seen == 0 {
			x.buf = bytes.Clone(b)
		}
		x.ask(q)
	}
}

// A question is a handshake in order, about which the application may have a word to say.
type question struct {
	r        *http.Request
	end      int // of the request, in what has been read
	accepted ws.Accepted
	answers  answers // of the application
}

// question reads the request that ends at end; ok says that it is a handshake in order.
func (x *head) question(b []byte, end int) (q question, ok bool) {
	if end < 0 || end > headMax || !plain(b[:end]) {
		return q, false
	}
	r, err := x.heads.parse(b[:end])
	if err != nil {
		return q, false
	}
	if r.URL.Path != x.heads.n.cfg.Path {
		return q, false
	}
	r.RemoteAddr = x.conn.RemoteAddr().String()
	accepted, err := x.heads.n.acceptable(r)
	return question{r: r, end: end, accepted: accepted}, err == nil
}

// ask lets the application judge, on a goroutine of its own: a loop must not wait, panic or exit. The connection goes on
// counting as one whose request is incomplete.
func (x *head) ask(q question) {
	n := x.heads.n
	if !n.hold() {
		x.leave()
		x.handOver(x.buf)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	x.cancel = cancel
	x.heads.asking(x)
	q.r = q.r.WithContext(ctx)
	go func() { // ends with the callbacks, whose context ends with the connection; Env.Running waits for it
		defer n.env.Running.Done()
		ok := false
		defer func() {
			// What went wrong goes wrong again where net/http reports it.
			_ = recover()
			x.conn.Do(func() { x.answered(q, ok) })
		}()
		var err error
		q.answers, err = n.consult(q.r, &q.accepted)
		ok = err == nil
	}()
}

// answered goes on with a request that the application has judged.
func (x *head) answered(q question, ok bool) {
	x.leave()
	if !ok || !x.upgrade(q, x.buf, x.heads.n.env.Clock.Now()) {
		x.handOver(x.buf)
	}
}

// upgrade makes the connection a session, if there is still room for one.
func (x *head) upgrade(q question, read []byte, now clock.Instant) bool {
	n, early := x.heads.n, read[q.end:]
	if !n.asks(q.accepted) && !n.cfg.Upgrade.CheckOrigin(q.r) {
		return false
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.phase != running || !n.reserve() {
		return false
	}
	s := n.open(x.conn, n.carriers[0], x.conn.RemoteAddr(), q.answers, q.accepted, nil)
	x.conn.SetHandler(s)
	if len(early) > 0 {
		s.Data(early, now)
	}
	return true
}

// parse reads a request's header with net/http's own parser.
func (h *heads) parse(request []byte) (*http.Request, error) {
	br, _ := h.readers.Get().(*bufio.Reader)
	if br == nil {
		br = bufio.NewReaderSize(nil, 1024)
	}
	defer h.readers.Put(br)
	br.Reset(bytes.NewReader(request))
	defer br.Reset(nil)
	return http.ReadRequest(br)
}

// handOver gives the connection to net/http, with what has been read of it.
func (x *head) handOver(read []byte) {
	nc, err := x.conn.Detach()
	if err != nil {
		x.heads.n.cfg.Log.Warn("connection can't be handed to net/http", "error", err)
		x.conn.Abort()
		return
	}
	x.heads.rest.push(&begun{Conn: nc, read: bytes.Clone(read)})
}

// Ended lets a connection go that said nothing whole.
func (x *head) Ended() bool { return false }

// Drained does not come: nothing is awaited.
func (x *head) Drained() {}

// Closed is the end of a connection that said nothing whole.
func (x *head) Closed(error) { x.leave() }

// leave is the end of x as one that waits.
func (x *head) leave() {
	x.heads.leave(x)
	if x.cancel != nil {
		x.cancel()
	}
}
