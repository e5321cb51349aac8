// Package session is the state machine of one client on the server: it connects, authenticates,
// joins rooms, sends messages to the application, and ends. It has no sockets: bytes arrive
// through Data, and frames leave through the hub.
//
// Its types follow the goroutines. A reader cuts the bytes of the socket into messages and puts
// them in the inbox; it runs on an event loop, which must not wait. A worker handles the messages
// in their order, on at most one goroutine of the pool at a time. An authentication runs beside
// them, since the client's other messages are answered meanwhile (protocol §4). The methods of
// Session itself may be called from any goroutine, except where they say otherwise.
package session

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// Session is one client, from its connection to its end. It is the transport.Handler of the
// connection, and has the client's member of the hub. A server has a Session for each client, and
// most clients are idle: keep it within 208 bytes.
type Session struct {
	// Set by Open, then read-only.
	env       *Env
	addr      *netip.AddrPort // nil if it is the address of the connection
	connected time.Duration   // the Age of env.Clock

	member hub.Member // its fields have owners of their own

	// Owned by the goroutine that calls Data. While a worker parses what a paused client sent,
	// Data is not called, and the worker owns it.
	in ws.Endpoint

	lastRead   atomic.Int64 // a clock.Instant: when bytes arrived
	lastActive atomic.Int64 // a clock.Instant: when a message arrived

	// A protocol.State. Written with mu held. The grants and the value are written before the state
	// becomes authenticated, and do not change between authenticated and disconnected.
	state atomic.Uint32

	// mu guards the fields below, unless they name another owner. It is taken before the locks of
	// Hub and Pool, and never together with that of Lobby.
	mu        sync.Mutex
	grants    grants
	slow      bool  // messages were dropped, and the client has not caught up since
	pongs     uint8 // and heartbeats, queued by this call of Data; owned by the owner of in
	pings     uint8 // queued since the client fell silent; owned by the sweep
	inbox     inbox
	value     any        // Identity.Value
	transient *transient // nil if it would be empty
}

// Opening describes a new connection.
type Opening struct {
	Conn        transport.Conn
	Lane        *hub.Lane // of the connection's loop
	Looped      bool      // an event loop calls Data, and Pool.RunDeferred later in the same turn
	ID          hub.ID    // a new one
	Remote      netip.AddrPort
	Deflate     bool   // the client accepts compressed messages
	Protocol    string // the subprotocol that was agreed on; empty for none
	FromRequest any    // what the application took from the request
	Answer      []byte // the answer to the handshake, which is sent first; nil for none
}

// Open makes the session of a new connection. Stats.Connections includes the connection already,
// since its place was reserved.
func Open(env *Env, o Opening) *Session {
	now := int64(env.Clock.Now())
	s := &Session{env: env, connected: env.Clock.Age(), inbox: inbox{onLoop: o.Looped}}
	if o.Remote != o.Conn.RemoteAddr() {
		addr := o.Remote // a copy: &o.Remote would keep all of o
		s.addr = &addr
	}
	s.in = ws.NewEndpoint(ws.Server, env.Limits.UnauthenticatedPayload, o.Deflate)
	s.member.Init(o.ID, o.Conn, o.Lane, owner{s})
	s.member.Deflate = o.Deflate
	s.lastRead.Store(now)
	s.lastActive.Store(now)
	c := &pendingClient{session: s, protocol: o.Protocol, fromRequest: o.FromRequest}
	s.transient = &transient{pendingClient: c}
	env.Running.Add(1)
	env.Stats.Opened.Add(1)
	if o.Answer != nil {
		s.member.Control(o.Answer) // before the lobby has the client, and may close it
	}
	env.Lobby.add(c, o.Remote.Addr())
	return s
}

// conn returns the connection.
func (s *Session) conn() transport.Conn { return s.member.Link().(transport.Conn) }

// ended reports whether the session has ended. The result can change from false to true unless mu
// is held.
func (s *Session) ended() bool { return s.State() == protocol.StateDisconnected }

// Data handles bytes from the socket. It implements transport.Handler.
func (s *Session) Data(b []byte, now clock.Instant) {
	s.lastRead.Store(int64(now))
	if s.ended() {
		return // the peer has not closed yet
	}
	s.pongs = 0
	r := reader{s}
	for len(b) > 0 {
		if b = r.parse(b); len(b) > 0 && r.keep(b) {
			return
		}
	}
}

// PeerClosed ends the session when the client has closed its side. Messages that were sent to it
// before are still written. It implements transport.Handler.
func (s *Session) PeerClosed() bool {
	if s.disconnect(closeRequest{code: closeAbnormal, mayReturn: true}) {
		s.member.CloseAfterFlush(nil)
	}
	return true // otherwise another goroutine has queued the close, or is about to
}

// Drained passes on that the client has read enough to be sent more. It implements
// transport.Handler.
func (s *Session) Drained() { s.member.Drained() }

// Closed ends the session when the socket is closed. It implements transport.Handler.
func (s *Session) Closed(error) {
	s.disconnect(closeRequest{code: closeAbnormal, mayReturn: true})
	s.mu.Lock()
	info := s.transient.closeInfo
	info.socketClosed = true
	stopInputLocked(s)
	finished := info.finished
	c := info.pendingClient
	s.mu.Unlock()
	if c != nil {
		// Before its place is free, since Lobby.MakeRoom counts the connections that it has cut.
		s.env.Lobby.socketClosed(c)
	}
	s.env.Stats.Connections.Add(-1)
	if finished {
		s.env.Running.Done()
	}
}

// stopInputLocked frees an incomplete message when the socket is closed, since the session may be
// kept for Tickets.Grace. It does nothing while a worker parses.
func stopInputLocked(s *Session) {
	if t := s.transient; t.closeInfo.socketClosed && t.unparsed == nil && !t.parsing {
		s.in.Stop()
	}
}

// scheduleLocked gives the session to the pool if there is work for it and no worker has it. With
// deferred the worker starts at the end of the event loop's turn.
func (s *Session) scheduleLocked(deferred bool) {
	box, t := &s.inbox, s.transient
	if box.running || box.connecting || box.empty() && !s.ended() && !t.hasWork() {
		return
	}
	box.running = true
	if deferred {
		s.env.Pool.SubmitDeferred(worker{s})
	} else {
		s.env.Pool.Submit(worker{s})
	}
}
