package node

import (
	"bufio"
	"bytes"
	"container/list"
	"net"
	"net/http"
	"sync"
	"time"

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
	h := &heads{n: n, rest: rest, limit: n.cfg.Lobby.Max}
	defer h.close()
	engine := n.carriers[0].Transport.(*epoll.Transport)
	stop, err := engine.Listen(ln, h.open)
	if err != nil {
		return err
	}
	defer stop.Close()
	return srv.Serve(rest)
}

// heads are the connections whose request is not complete yet: they cost little, not for long, and not too many do.
type heads struct {
	// Set when made, then read-only.
	n     *Node
	rest  *handover
	limit int // 0: none

	readers sync.Pool // of *bufio.Reader

	mu      sync.Mutex // guards the fields below
	waiting list.List  // of *head, oldest first: all have equally long
	timer   *time.Timer
	closed  bool
}

// A head is the transport.Handler of a connection until its request is complete.
type head struct {
	heads *heads
	conn  epoll.RawConn

	deadline time.Time     // set by open, then read-only
	place    *list.Element // guarded by heads.mu; nil: no longer waiting

	buf []byte // owned by the loop: the part that has come
}

func (h *heads) open(c epoll.RawConn) transport.Handler {
	x := &head{heads: h, conn: c, deadline: time.Now().Add(headTimeout)}
	h.mu.Lock()
	defer h.mu.Unlock()
	x.place = h.waiting.PushBack(x)
	if h.limit > 0 && h.waiting.Len() > h.limit {
		h.cutLocked(h.waiting.Front())
	}
	if h.waiting.Len() == 1 && !h.closed {
		if h.timer == nil {
			h.timer = time.AfterFunc(headTimeout, h.expire)
		} else {
			h.timer.Reset(headTimeout)
		}
	}
	return x
}

func (h *heads) cutLocked(e *list.Element) {
	x := h.waiting.Remove(e).(*head)
	x.place = nil
	x.conn.Abort()
}

// expire cuts the connections whose time is up.
func (h *heads) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for e := h.waiting.Front(); e != nil; e = h.waiting.Front() {
		if d := e.Value.(*head).deadline; d.After(now) {
			if !h.closed {
				h.timer.Reset(d.Sub(now))
			}
			return
		}
		h.cutLocked(e)
	}
}

// leave takes x out of those that wait.
func (h *heads) leave(x *head) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if x.place != nil {
		h.waiting.Remove(x.place)
		x.place = nil
	}
}

// close cuts all connections whose request is not complete.
func (h *heads) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
	}
	for e := h.waiting.Front(); e != nil; e = h.waiting.Front() {
		h.cutLocked(e)
	}
}

var headEnd = []byte("\r\n\r\n")

// Data collects a request's header, and decides where the connection goes.
func (x *head) Data(b []byte, now time.Time) {
	if x.buf != nil {
		x.buf = append(x.buf, b...)
		b = x.buf
	}
	i := bytes.Index(b, headEnd)
	if i < 0 && len(b) < headMax {
		if x.buf == nil {
			x.buf = bytes.Clone(b)
		}
		return
	}
	x.heads.leave(x)
	x.buf = nil
	if i < 0 || !x.upgrade(b[:i+len(headEnd)], b[i+len(headEnd):], now) {
		x.handOver(b)
	}
}

// upgrade makes the connection a session, if request is a handshake that can be accepted.
func (x *head) upgrade(request, early []byte, now time.Time) bool {
	n := x.heads.n
	r, err := x.heads.parse(request)
	if err != nil || r.URL.Path != n.cfg.Path {
		return false
	}
	peer := x.conn.RemoteAddr()
	r.RemoteAddr = peer.String()
	accepted, err := n.admissible(r)
	if err != nil {
		return false
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.phase != running {
		return false
	}
	s := n.open(x.conn, n.carriers[0], n.seenAs(r, peer), accepted)
	x.conn.SetHandler(s)
	s.Control(ws.AppendResponse(nil, accepted, nil))
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

// Closed is the end of a connection that said nothing whole.
func (x *head) Closed(error) { x.heads.leave(x) }

// handoverQueue is how many connections may wait for net/http to accept them; more are cut.
const handoverQueue = 1024

// handover is the net.Listener of the connections that the engine has accepted and has no use for.
type handover struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{} // closed by Close
}

// push does not block.
func (h *handover) push(nc net.Conn) {
	select {
	case <-h.done:
		nc.Close()
	default:
		select {
		case h.conns <- nc:
		default:
			nc.Close()
		}
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case nc := <-h.conns:
		return nc, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	for { // whoever was pushed and not accepted
		select {
		case nc := <-h.conns:
			nc.Close()
		default:
			return nil
		}
	}
}

func (h *handover) Addr() net.Addr { return h.addr }

// begun is a connection of which something has been read already.
type begun struct {
	net.Conn
	read []byte // owned by the reading goroutine
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.read) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.read)
	if b.read = b.read[n:]; len(b.read) == 0 {
		b.read = nil
	}
	return n, nil
}
