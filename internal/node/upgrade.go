package node

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/ws"
)

// ServeHTTP answers an opening handshake and takes over its connection. It returns when that is
// done; the session goes on without it.
func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) { n.answer(w, r, nil) }

// answer answers an opening handshake. given is the verdict about it if the application's callbacks
// were called already, else nil.
func (n *Node) answer(w http.ResponseWriter, r *http.Request, given *verdict) {
	if n.beginWork() {
		defer n.env.Running.Done()
	}
	v := n.admit(r, given)
	if v.err != nil {
		n.reject(w, r, v.err)
		return
	}
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		n.conns.release()
		n.env.Stats.HandshakeRefused.Add(1)
		n.cfg.Log.Error("connection can't be taken over from net/http: is there a middleware whose ResponseWriter lacks Unwrap?", "error", err)
		http.Error(w, "this server can't upgrade connections here", http.StatusInternalServerError)
		return
	}
	var early []byte
	if k := rw.Reader.Buffered(); k > 0 {
		early, _ = rw.Reader.Peek(k) // bytes that the client sent right after its request
	}
	if err := n.adopt(nc, early, v.accepted, v.results, w.Header()); err != nil {
		n.conns.release()
		n.env.Stats.HandshakeRefused.Add(1)
		n.cfg.Log.Debug("connection lost during its handshake", "error", err)
		nc.Close()
	}
}

// reject counts a rejected handshake and answers it. If err is http.ErrAbortHandler, reject closes
// the connection without an answer.
func (n *Node) reject(w http.ResponseWriter, r *http.Request, err error) {
	n.env.Stats.HandshakeRefused.Add(1)
	if err == http.ErrAbortHandler {
		if nc, _, err := http.NewResponseController(w).Hijack(); err == nil {
			nc.Close()
			return
		}
	}
	if r.ContentLength != 0 { // net/http would wait for the whole body before it answers
		_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	}
	h := handshakeError(err)
	n.upgrader.logRejected(r, h)
	h.Respond(w)
}

// admit decides whether a request becomes a WebSocket connection, and reserves a place for it. If
// the caller then opens no session, it must release the place. given is as for answer: a callback
// may have effects, such as consuming a ticket, so it is called only once for a request.
func (n *Node) admit(r *http.Request, given *verdict) verdict {
	accepted, err := n.checkRequest(r)
	if err != nil {
		return verdict{err: err}
	}
	var v verdict
	if given != nil {
		v = *given
	} else {
		v = n.judge(r, accepted)
	}
	if v.err == nil && !n.conns.reserve() {
		v.err = unavailable(tooManyConnections)
	}
	return v
}

// judge calls the application's callbacks for a valid handshake, if there are not too many whose
// callbacks are running.
func (n *Node) judge(r *http.Request, accepted ws.Accepted) verdict {
	if n.upgrader.callbacksMayBlock(accepted) {
		release, ok := n.upgrader.running.begin(r.RemoteAddr)
		if !ok {
			return verdict{err: unavailable(tooManyHandshakes)}
		}
		defer release()
	}
	return n.upgrader.runCallbacks(r, accepted)
}

// checkRequest checks a request without calling the application.
func (n *Node) checkRequest(r *http.Request) (ws.Accepted, error) {
	if !n.Running() {
		return ws.Accepted{}, unavailable("the server is not ready")
	}
	return n.upgrader.check(r)
}

// adopt passes the connection to a transport, whose loop answers the handshake and includes header
// in the answer. After an error the caller still owns nc.
func (n *Node) adopt(nc net.Conn, early []byte, accepted ws.Accepted, results callbackResults, header http.Header) error {
	if p, ok := nc.(*prefixConn); ok { // an event loop adopts the wrapped connection
		nc, early = p.Conn, slices.Concat(early, p.prefix)
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.state != running {
		return ErrNotRunning
	}
	var peer netip.AddrPort
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		peer = a.AddrPort()
	}
	err := transport.ErrUnsupported
	for i := 0; i < len(n.transports.ranges) && errors.Is(err, transport.ErrUnsupported); i++ {
		loops := n.transports.ranges[i]
		err = loops.Adopt(nc, early, func(conn transport.Conn) transport.Handler {
			return n.openSession(conn, loops, peer, results, accepted, header)
		})
	}
	return err
}

// openSession opens the session of a connection of these loops, and answers its handshake.
func (n *Node) openSession(conn transport.Conn, loops loopRange, peer netip.AddrPort, results callbackResults, accepted ws.Accepted, header http.Header) *session.Session {
	return session.Open(n.env, session.Opening{
		Conn: conn, Lane: n.hub.Lane(loops.firstLane + conn.Loop()), Looped: loops.firstLane < n.transports.loops,
		ID: n.ids.next(), Remote: effectiveAddr(results.addr, peer), Deflate: accepted.Deflate,
		Protocol:    strings.Clone(accepted.Protocol), // so that the header is not kept in memory
		FromRequest: results.fromRequest,
		Answer:      ws.AppendResponse(nil, accepted, header),
	})
}

// effectiveAddr returns the client's address: the one that the application determined, if it is
// valid, and else the socket's peer.
func effectiveAddr(determined netip.Addr, peer netip.AddrPort) netip.AddrPort {
	peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	if determined.IsValid() && determined != peer.Addr() {
		return netip.AddrPortFrom(determined, 0) // a proxy's port says nothing about the client
	}
	return peer
}

// connLimit counts the connections and limits their number. Any goroutine.
type connLimit struct {
	// Set when made, then read-only.
	max int64 // 0: no limit
	env *session.Env
}

// reserve takes a place for a connection, and reports whether there was one. The end of the session
// gives it back; if no session is opened, release does. When all places are taken, a client that
// has not sent `authenticate` is closed to free its place. Until its socket is closed, there is one
// connection more than the limit.
func (c *connLimit) reserve() bool {
	count := c.env.Stats.Connections.Add(1)
	if c.max > 0 && count > c.max && !c.env.Lobby.MakeRoom(int(count-c.max)) {
		c.release()
		return false
	}
	return true
}

// release gives back a place for which no session was opened.
func (c *connLimit) release() { c.env.Stats.Connections.Add(-1) }
