// Package session is the state machine of one client: it authenticates, joins and leaves rooms, sends messages to the
// application, and ends. No sockets: bytes come through Data, frames go out through the hub.
//
// What the socket brings is cut into messages on the goroutine that reads (an event loop: it must not wait), and
// queued. Everything else happens in the order of arrival on a goroutine of the Pool, at most one a session at a time.
// The authenticate callback runs beside that, since a client is answered while it is being decided upon (protocol §4).
package session

import (
	"bytes"
	"context"
	"errors"
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

// Session is one client, from its connection to its end. It is the connection's transport.Handler and the hub's member.
// A server holds as many as it has clients, most of them idle: keep it within 208 bytes.
type Session struct {
	// Set by Open, then read-only.
	env       *Env
	addr      *netip.AddrPort // nil: the connection's own
	connected time.Duration   // the Age of env.Clock

	member hub.Member // its fields have owners of their own

	in ws.Endpoint // owned by the goroutine that calls Data

	lastRead   atomic.Int64 // a clock.Instant: any byte
	lastActive atomic.Int64 // a clock.Instant: a message

	// A protocol.State. Written with mu held; value and admitted do not change between authenticated and the end.
	state  atomic.Uint32
	queued uint32 // what queue costs, in bytes; guarded by mu, and here because there is room

	mu       sync.Mutex // guards the fields below; before the locks of Hub and Pool, never with that of Lobby
	admitted bool       // was authenticated: the callbacks hear of its end
	looped   bool       // Data is called by an event loop, which lends itself to the Pool; set by Open
	running  bool       // a worker of the pool has it, or will
	holding  bool       // messages wait until the connected callback has returned
	paused   bool       // not read from, until the queue is shorter
	slow     bool       // has had messages dropped, and has not caught up since
	pongs    uint8      // queued by this call of Data; owned by its goroutine, and here because there is room
	pinged   uint8      // pings since it fell silent; owned by the sweep, and here because there is room
	queue    queue
	value    any   // what the authenticate callback made of it
	rare     *rare // nil while there is none of it
}

// Opening is what Open makes a session of.
type Opening struct {
	Conn     transport.Conn
	Lane     *hub.Lane // of the connection's loop
	Looped   bool      // an event loop calls Data, and Pool.Lend later in the same turn
	ID       hub.ID    // fresh
	Remote   netip.AddrPort
	Deflate  bool
	Protocol string // the subprotocol that was agreed on; empty: none
	Answer   []byte // to the handshake: what the client gets first; nil: nothing
}

// Open makes the session of a new connection, which Stats.Connections has counted already: its place was reserved.
func Open(env *Env, o Opening) *Session {
	now := int64(env.Clock.Now())
	s := &Session{env: env, connected: env.Clock.Age(), looped: o.Looped}
	if o.Remote != o.Conn.RemoteAddr() {
		addr := o.Remote // a copy of its own: o would be one of all of it, and for every client
		s.addr = &addr
	}
	s.in = ws.NewEndpoint(ws.Server, env.Limits.UnauthenticatedPayload, o.Deflate)
	s.member.Init(o.ID, o.Conn, o.Lane, s)
	s.member.Deflate = o.Deflate
	s.lastRead.Store(now)
	s.lastActive.Store(now)
	g := &guest{session: s, protocol: o.Protocol}
	s.rare = &rare{guest: g}
	env.Running.Add(1)
	env.Stats.Opened.Add(1)
	if o.Answer != nil {
		s.member.Control(o.Answer) // in the lobby, anyone may close it
	}
	if evicted := env.Lobby.enter(g, o.Remote.Addr()); evicted != nil {
		env.Stats.Evicted.Add(1)
		evicted.Close(protocol.CloseAuthTimeout, protocol.ReasonAuthTimeout)
	}
	return s
}

// conn is the session's connection.
func (s *Session) conn() transport.Conn { return s.member.Link().(transport.Conn) }

// Data takes bytes from the socket. It is transport.Handler's.
func (s *Session) Data(b []byte, now clock.Instant) {
	s.lastRead.Store(int64(now))
	s.pongs = 0
	switch s.State() {
	case protocol.StateDisconnected:
		return // closing: what still comes is nobody's
	case protocol.StateAuthenticated:
		s.in.SetMessageLimit(s.env.Limits.Payload)
	}
	if err := s.in.Feed(b, (*inbound)(s)); err != nil {
		s.violated(err)
	}
}

// violated closes a client that broke the rules of the WebSocket protocol.
func (s *Session) violated(err error) {
	var violation *ws.CloseError
	if errors.As(err, &violation) {
		s.env.Stats.ProtocolErrors.Add(1)
		s.Close(violation.Code, violation.Reason)
	}
}

// Ended is told that the client has closed its side: what it was sent before still goes out. It is transport.Handler's.
func (s *Session) Ended() bool {
	if s.finish(closeAbnormal, "", fromPeer) {
		s.member.Finish(nil)
	}
	return true // whoever was first to finish it has queued the end, or is about to
}

// Drained is told that the client has taken enough to be given more. It is transport.Handler's.
func (s *Session) Drained() { s.member.Drained() }

// Closed is told that the socket is gone. It is transport.Handler's.
func (s *Session) Closed(error) {
	s.finish(closeAbnormal, "", fromPeer)
	s.env.Stats.Connections.Add(-1)
	s.mu.Lock()
	s.rare.end.gone = true
	retired := s.rare.end.final
	s.mu.Unlock()
	if retired {
		s.env.Running.Done()
	}
}

// closeAbnormal stands for a close frame that never came (RFC 6455 §7.1.5).
const closeAbnormal = 1006

// inbound is a Session as the ws.Handler of its endpoint: called within Data.
type inbound Session

var heartbeat = []byte(`{"event":"heartbeat"}`)

func (in *inbound) Message(_ ws.Opcode, payload []byte) {
	s := (*Session)(in)
	s.lastActive.Store(s.lastRead.Load())
	s.env.Stats.MessagesIn.Add(1)
	beat := bytes.Equal(payload, heartbeat) // the most frequent message of all has no effect but that it came

	s.mu.Lock()
	g := s.guestLocked()
	eager := g != nil && g.messages >= s.env.Limits.UnauthenticatedCount
	if !eager && !s.endedLocked() {
		if g != nil {
			g.messages++
		}
		if !beat {
			s.enqueueLocked(payload)
		}
	}
	s.mu.Unlock()
	if eager {
		s.CloseFor(&s.env.Stats.TooEager, protocol.ClosePolicyViolation, reasonTooEager)
	}
}

func (s *Session) enqueueLocked(payload []byte) {
	s.queue.push(bytes.Clone(payload))
	s.queued += uint32(len(payload) + overhead)
	if int(s.queued) > s.env.Limits.Queue && !s.paused {
		s.paused = true
		s.conn().Pause()
	}
	if s.idleLocked() {
		s.running = true
		if s.looped {
			s.env.Pool.Defer(s)
		} else {
			s.env.Pool.Submit(s)
		}
	}
}

const reasonTooEager = "Too many messages before authentication"

func (in *inbound) Ping(payload []byte) {
	s := (*Session)(in)
	// A client that does not take our pongs gets no more of them, and one that floods us with pings fewer: not every ping
	// asks for an answer (RFC 6455 §5.5.3), and a read may hold ten thousand.
	if s.pongs < maxPongs && s.member.Buffered() < maxPongBacklog {
		s.pongs++
		s.member.Control(ws.AppendFrame(nil, ws.OpPong, payload))
	}
}

const (
	maxPongBacklog = 4096 // bytes
	maxPongs       = 64   // of one read
)

func (in *inbound) Pong([]byte) {}

func (in *inbound) Close(code int, reason string) {
	s := (*Session)(in)
	if s.finish(code, reason, fromPeer) {
		s.member.Finish(ws.AppendClose(nil, code, ""))
	}
}

// Refused is told that messages were dropped for this client. It is hub.Owner's.
func (s *Session) Refused(n int) {
	if s.State() == protocol.StateDisconnected {
		return // not slow, but gone
	}
	s.mu.Lock()
	first := !s.slow
	s.slow = true
	s.mu.Unlock()
	if s.env.CloseSlow {
		s.CloseFor(&s.env.Stats.SlowClosed, protocol.CloseSlowConsumer, protocol.ReasonSlowConsumer)
		return
	}
	if first {
		s.env.Log.Warn("client is too slow, messages for it are dropped", "client", s.ID(), "waiting", s.member.Buffered())
	}
}

// Close ends the session from this side, with a close frame behind what has been sent to it. It reports false when the session
// had ended already. Messages of the client that no callback has begun with are dropped. Any goroutine; never blocks.
func (s *Session) Close(code int, reason string) bool { return s.CloseFor(nil, code, reason) }

// CloseFor is Close for what counter counts: one that ends the session is counted before the close frame can be seen.
func (s *Session) CloseFor(counter *atomic.Uint64, code int, reason string) bool {
	if !s.finish(code, reason, fromHere) {
		return false
	}
	if counter != nil {
		counter.Add(1)
	}
	s.member.Finish(ws.AppendClose(nil, code, reason))
	return true
}

// Abort ends the session without a close frame: for a peer that is there no more. Any goroutine; never blocks.
func (s *Session) Abort() { s.conn().Abort() }

type side bool

const (
	fromHere side = false
	fromPeer side = true
)

// finish makes the state disconnected and forgets the client everywhere, once. What an authenticated client sent before it
// left is still handled.
func (s *Session) finish(code int, reason string, by side) bool {
	s.mu.Lock()
	if s.endedLocked() {
		s.mu.Unlock()
		return false
	}
	r := s.rareLocked()
	r.end = &end{code: code, reason: reason}
	s.state.Store(uint32(protocol.StateDisconnected))
	if by == fromHere || !s.admitted {
		s.queue, s.queued = queue{}, 0
	}
	if r.done != nil {
		close(r.done)
	}
	if s.paused {
		s.paused = false
		s.conn().Resume()
	}
	g := r.guest
	r.guest = nil
	// Before the disconnected callback can run: who asks there whether the user has other clients must not find this one.
	user, rooms, member := s.env.Hub.Remove(&s.member)
	r.end.rooms = rooms
	if s.admitted || s.running {
		s.scheduleLocked()
	} else {
		r.end.final = true // nothing has run for it, nothing will
	}
	s.mu.Unlock()

	if g != nil {
		s.env.Lobby.leave(g)
	}
	if member {
		s.release(s.channels(user, rooms))
	}
	return true
}

func (s *Session) endedLocked() bool { return s.State() == protocol.StateDisconnected }

// scheduleLocked gives the session to the pool, if there is something to do and nobody is at it.
func (s *Session) scheduleLocked() {
	if s.idleLocked() {
		s.running = true
		s.env.Pool.Submit(s)
	}
}

// idleLocked reports whether there is something to do that nobody is at.
func (s *Session) idleLocked() bool {
	return !s.running && !s.holding && (!s.queue.empty() || s.endedLocked())
}

// share is how many messages a session may have handled before others get their turn.
const share = 64

// run handles what is queued. It is the Pool's, never runs twice at the same time, and may block in callbacks.
func (s *Session) run() {
	for range share {
		payload, ok := s.next()
		if !ok {
			return
		}
		s.handle(payload)
	}
	s.env.Pool.Submit(s)
}

// next takes the oldest message, or signs off: for good, with the disconnected callback, when the session has ended.
func (s *Session) next() (payload []byte, ok bool) {
	s.mu.Lock()
	if !s.queue.empty() && !s.holding {
		payload = s.queue.pop()
		s.queued -= uint32(len(payload) + overhead)
		if s.paused && int(s.queued) <= s.env.Limits.Queue/2 {
			now := int64(s.env.Clock.Now()) // the server has not listened meanwhile
			s.lastRead.Store(now)
			s.lastActive.Store(now)
			s.paused = false
			s.conn().Resume()
		}
		s.mu.Unlock()
		return payload, true
	}
	if !s.endedLocked() || s.holding {
		s.running = false
		s.mu.Unlock()
		return nil, false
	}
	e := s.rare.end
	told := e.told
	e.told = true
	s.mu.Unlock()

	if s.admitted && !told && s.env.Calls.Disconnected != nil {
		s.guard("disconnected", func(ctx context.Context) error {
			s.env.Calls.Disconnected(ctx, s, e.code, e.reason)
			return nil
		})
	}
	s.mu.Lock()
	e.final = true // running stays set: nothing is scheduled any more
	retired := e.gone
	s.mu.Unlock()
	if retired {
		s.env.Running.Done()
	}
	return nil, false
}
