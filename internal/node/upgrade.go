package node

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/ws"
)

// answerTimeout bounds the writing of the handshake's answer, a few hundred bytes into an empty socket buffer.
const answerTimeout = 5 * time.Second

// ServeHTTP answers an opening handshake and takes its connection over; it returns as soon as that is done.
func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	accepted, err := n.admissible(r)
	if err != nil {
		n.env.Stats.Refused.Add(1)
		refusal(err).Respond(w)
		return
	}
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		n.cfg.Log.Error("connection can't be taken over from net/http: is there a middleware whose ResponseWriter lacks Unwrap?", "error", err)
		http.Error(w, "this server can't upgrade connections here", http.StatusInternalServerError)
		return
	}
	var early []byte
	if k := rw.Reader.Buffered(); k > 0 {
		early, _ = rw.Reader.Peek(k) // bytes that the client sent right behind its request
	}
	if err := n.takeOver(nc, early, accepted, n.remote(r, nc)); err != nil {
		n.env.Stats.Refused.Add(1)
		n.cfg.Log.Debug("connection lost in its handshake", "error", err)
		nc.Close()
	}
}

// refusal makes any error the response that tells of it.
func refusal(err error) *ws.HandshakeError {
	var h *ws.HandshakeError
	if errors.As(err, &h) {
		return h
	}
	return &ws.HandshakeError{Status: http.StatusInternalServerError, Message: "internal error"}
}

// admissible judges a request for a WebSocket before anything is kept of it.
func (n *Node) admissible(r *http.Request) (ws.Accepted, error) {
	if r.URL.Path != n.cfg.Path {
		return ws.Accepted{}, &ws.HandshakeError{Status: http.StatusNotFound, Message: "no WebSocket here"}
	}
	if !n.Running() {
		return ws.Accepted{}, unavailable("the server is not ready")
	}
	accepted, err := ws.Upgrade(r)
	if err != nil {
		return accepted, err
	}
	if !n.cfg.CheckOrigin(r) {
		return accepted, &ws.HandshakeError{Status: http.StatusForbidden, Message: "origin not allowed"}
	}
	if limit := n.cfg.MaxConnections; limit > 0 && n.env.Stats.Connections.Load() >= int64(limit) {
		return accepted, unavailable("too many connections")
	}
	accepted.Deflate = accepted.Deflate && n.cfg.Compression
	return accepted, nil
}

func unavailable(why string) error {
	return &ws.HandshakeError{
		Status: http.StatusServiceUnavailable, Message: why, Header: http.Header{"Retry-After": {"1"}},
	}
}

// takeOver answers the handshake and gives the connection to a transport. On error nc stays the caller's.
func (n *Node) takeOver(nc net.Conn, early []byte, accepted ws.Accepted, remote netip.AddrPort) error {
	if err := nc.SetDeadline(time.Now().Add(answerTimeout)); err != nil { // in place of those of the http.Server
		return err
	}
	if _, err := nc.Write(ws.AppendResponse(nil, accepted, nil)); err != nil {
		return err
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.phase != running {
		return ErrNotRunning
	}
	err := transport.ErrUnsupported
	for i := 0; i < len(n.carriers) && errors.Is(err, transport.ErrUnsupported); i++ {
		c := n.carriers[i]
		err = c.Adopt(nc, early, func(conn transport.Conn) transport.Handler {
			return n.open(conn, c, remote, accepted)
		})
	}
	return err
}

// open makes the session of a connection of c.
func (n *Node) open(conn transport.Conn, c carrier, remote netip.AddrPort, accepted ws.Accepted) *session.Session {
	return session.Open(n.env, session.Opening{
		Conn: conn, Lane: n.hub.Lane(c.base + conn.Loop()), Looped: c.base < n.loops,
		ID: uuid.NewString(), Remote: remote, Deflate: accepted.Deflate,
	})
}

// remote is the address of nc's client.
func (n *Node) remote(r *http.Request, nc net.Conn) netip.AddrPort {
	var peer netip.AddrPort
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		peer = a.AddrPort()
	}
	return n.seenAs(r, peer)
}

// seenAs is the client's address: the socket's peer, or what the application makes of the request.
func (n *Node) seenAs(r *http.Request, peer netip.AddrPort) netip.AddrPort {
	peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	if n.cfg.ClientAddr != nil {
		if a := n.cfg.ClientAddr(r); a.IsValid() && a.Unmap() != peer.Addr() {
			return netip.AddrPortFrom(a.Unmap(), 0) // the port of a proxy says nothing about the client
		}
	}
	return peer
}
