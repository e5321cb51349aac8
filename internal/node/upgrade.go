package node

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/ws"
)

// ServeHTTP answers an opening handshake and takes its connection over; it returns as soon as that is done.
func (n *Node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n.beginWork() {
		defer n.env.Running.Done()
	}
	accepted, answers, err := n.admit(r)
	if err != nil {
		n.env.Stats.Refused.Add(1)
		if r.ContentLength != 0 { // net/http would wait for the whole body before it answers
			_ = http.NewResponseController(w).SetReadDeadline(time.Now())
		}
		h := handshakeError(err)
		n.logRejected(r, h)
		h.Respond(w)
		return
	}
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		n.releaseConn()
		n.cfg.Log.Error("connection can't be taken over from net/http: is there a middleware whose ResponseWriter lacks Unwrap?", "error", err)
		http.Error(w, "this server can't upgrade connections here", http.StatusInternalServerError)
		return
	}
	var early []byte
	if k := rw.Reader.Buffered(); k > 0 {
		early, _ = rw.Reader.Peek(k) // bytes that the client sent right behind its request
	}
	if err := n.adopt(nc, early, accepted, answers, w.Header()); err != nil {
		n.releaseConn()
		n.env.Stats.Refused.Add(1)
		n.cfg.Log.Debug("connection lost in its handshake", "error", err)
		nc.Close()
	}
}

// handshakeError makes any error the response that tells of it.
func handshakeError(err error) *ws.HandshakeError {
	var h *ws.HandshakeError
	if errors.As(err, &h) {
		return h
	}
	return &ws.HandshakeError{Status: http.StatusInternalServerError, Message: "internal error"}
}

// logRejected logs why a handshake is refused, and which setting would allow it.
func (n *Node) logRejected(r *http.Request, h *ws.HandshakeError) {
	const message = "handshake refused: "
	switch {
	case h.Status == http.StatusForbidden && !n.cfg.Upgrade.CheckOriginMayBlock:
		n.cfg.Log.Warn(message+h.Message, "setting", "Config.Upgrade.Origins", "origin", truncate(r.Header.Get("Origin")), "host", truncate(r.Host), "address", r.RemoteAddr)
	case h.Message == tooManyConnections:
		n.cfg.Log.Warn(message+h.Message, "setting", "Limits.MaxConnections", "limit", n.cfg.Limits.MaxConnections, "address", r.RemoteAddr)
	case h.Status == http.StatusNotFound:
		n.cfg.Log.Info(message+h.Message, "setting", "Config.Path", "path", truncate(r.URL.Path), "address", r.RemoteAddr)
	default: // the client is wrong, or the application has refused it
		n.cfg.Log.Info("handshake refused", "status", h.Status, "reason", h.Message, "address", r.RemoteAddr)
	}
}

// truncate keeps what a client wrote from filling a log line.
func truncate(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

const tooManyConnections = "too many connections"

// admit decides whether a request becomes a WebSocket, and reserves a place among the connections. A caller that then opens
// no session must release it.
func (n *Node) admit(r *http.Request) (accepted ws.Accepted, a callbackResults, err error) {
	if accepted, err = n.checkRequest(r); err != nil {
		return accepted, a, err
	}
	if a, err = n.runUpgradeCallbacks(r, &accepted); err != nil {
		return accepted, a, err
	}
	if !n.reserveConn() {
		return accepted, a, unavailable(tooManyConnections)
	}
	return accepted, a, nil
}

// callbackResults are what the application's callbacks returned for a request.
type callbackResults struct {
	addr        netip.Addr // of ClientAddr; the zero Addr is the socket's peer
	fromRequest any
}

// runUpgradeCallbacks asks the application's callbacks about a request that is a handshake. They may block.
func (n *Node) runUpgradeCallbacks(r *http.Request, a *ws.Accepted) (answers callbackResults, err error) {
	err = callback.Call(func() (err error) {
		if !n.cfg.Upgrade.CheckOrigin(r) {
			return &ws.HandshakeError{Status: http.StatusForbidden, Message: "origin not allowed"}
		}
		if n.cfg.Upgrade.Subprotocol != nil && len(a.Offered) > 0 {
			if a.Protocol, err = n.selectProtocol(r, a.Offered); err != nil {
				return err
			}
		}
		answers.addr = n.clientAddr(r)
		answers.fromRequest, err = n.fromRequest(r)
		return err
	})
	return answers, err
}

// fromRequest takes what the application needs from the request.
func (n *Node) fromRequest(r *http.Request) (any, error) {
	if n.cfg.Upgrade.FromRequest == nil {
		return nil, nil
	}
	value, err := n.cfg.Upgrade.FromRequest(r)
	switch {
	case err == nil:
		return value, nil
	case errors.Is(err, session.ErrRejected):
		return nil, &ws.HandshakeError{Status: http.StatusUnauthorized, Message: "not authorized"}
	}
	n.env.Stats.CallbackErrors.Add(1)
	n.cfg.Log.Error("FromRequest callback failed", "error", err, "address", r.RemoteAddr)
	return nil, err
}

// selectProtocol asks the application which of the subprotocols to use.
func (n *Node) selectProtocol(r *http.Request, offered []string) (string, error) {
	selected, ok := n.cfg.Upgrade.Subprotocol(r, slices.Clone(offered))
	if !ok {
		return "", &ws.HandshakeError{Status: http.StatusBadRequest, Message: "no acceptable subprotocol offered"}
	}
	if selected != "" && !slices.Contains(offered, selected) {
		n.cfg.Log.Error("Config.Upgrade.Subprotocol selected what the client did not offer", "selected", selected, "offered", len(offered))
		return "", errSelected
	}
	return selected, nil
}

var errSelected = errors.New("subprotocol was not offered")

// checkRequest judges a request without asking the application.
func (n *Node) checkRequest(r *http.Request) (ws.Accepted, error) {
	if !n.Running() {
		return ws.Accepted{}, unavailable("the server is not ready")
	}
	accepted, err := ws.Upgrade(r)
	if err != nil {
		return accepted, err
	}
	accepted.Deflate = accepted.Deflate && n.cfg.Compression
	return accepted, nil
}

// callbacksMayBlock reports whether a handshake depends on the application's callbacks, which may block.
func (n *Node) callbacksMayBlock(a ws.Accepted) bool {
	return n.cfg.Upgrade.CheckOriginMayBlock || n.cfg.Upgrade.ClientAddr != nil || n.cfg.Upgrade.FromRequest != nil || n.cfg.Upgrade.Subprotocol != nil && len(a.Offered) > 0
}

// reserveConn takes a place among the connections, which the session's end gives back; before there is one, release does. When
// all places are taken, a client that has not sent `authenticate` gives up its own. Until its socket is closed there is one
// connection too many.
func (n *Node) reserveConn() bool {
	limit := int64(n.cfg.Limits.MaxConnections)
	count := n.env.Stats.Connections.Add(1)
	if limit > 0 && count > limit && !n.env.Lobby.MakeRoom(int(count-limit)) {
		n.releaseConn()
		return false
	}
	return true
}

func (n *Node) releaseConn() { n.env.Stats.Connections.Add(-1) }

func unavailable(why string) error {
	return &ws.HandshakeError{
		Status: http.StatusServiceUnavailable, Message: why, Header: http.Header{"Retry-After": {"1"}},
	}
}

// adopt gives the connection to a transport, whose loop answers the handshake, with header in the answer. On error nc
// stays the caller's.
func (n *Node) adopt(nc net.Conn, early []byte, accepted ws.Accepted, a callbackResults, header http.Header) error {
	if b, ok := nc.(*prefixConn); ok { // an event loop takes it back, but not in its wrapping
		nc, early = b.Conn, slices.Concat(early, b.prefix)
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
	for i := 0; i < len(n.loopRanges) && errors.Is(err, transport.ErrUnsupported); i++ {
		c := n.loopRanges[i]
		err = c.Adopt(nc, early, func(conn transport.Conn) transport.Handler {
			return n.openSession(conn, c, peer, a, accepted, header)
		})
	}
	return err
}

// openSession makes the session of a connection of c, and answers its handshake.
func (n *Node) openSession(conn transport.Conn, c loopRange, peer netip.AddrPort, a callbackResults, accepted ws.Accepted, header http.Header) *session.Session {
	return session.Open(n.env, session.Opening{
		Conn: conn, Lane: n.hub.Lane(c.firstLane + conn.Loop()), Looped: c.firstLane < n.loops,
		ID: n.ids.next(), Remote: effectiveAddr(a.addr, peer), Deflate: accepted.Deflate,
		Protocol:    strings.Clone(accepted.Protocol), // not the whole header
		FromRequest: a.fromRequest,
		Answer:      ws.AppendResponse(nil, accepted, header),
	})
}

// clientAddr is what the application makes of the request's address; the zero Addr is nothing.
func (n *Node) clientAddr(r *http.Request) netip.Addr {
	if n.cfg.Upgrade.ClientAddr == nil {
		return netip.Addr{}
	}
	return n.cfg.Upgrade.ClientAddr(r).Unmap()
}

// effectiveAddr is the client's address: the socket's peer, unless the application has seen another.
func effectiveAddr(seen netip.Addr, peer netip.AddrPort) netip.AddrPort {
	peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	if seen.IsValid() && seen != peer.Addr() {
		return netip.AddrPortFrom(seen, 0) // the port of a proxy says nothing about the client
	}
	return peer
}
