// Package session is the state machine of one client: it authenticates, joins and leaves rooms,
// sends messages to the application, and ends. No sockets: bytes come through Data, frames go out
// through the hub.
//
// What the socket brings is cut into messages on the goroutine that reads (an event loop: it must
// not wait), and queued. Everything else happens in the order of arrival on a goroutine of the
// Pool, at most one a session at a time. The authenticate callback runs beside that, since a client
// is answered while it is being decided upon (protocol §4).
package session

import (
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// Session is one client, from its connection to its end. It is the connection's transport.Handler
// and the hub's member. A server holds as many as it has clients, most of them idle: keep it within
// 208 bytes.
type Session struct {
	// Set by Open, then read-only.
	env       *Env
	addr      *netip.AddrPort // nil: the connection's own
	connected time.Duration   // the Age of env.Clock

	member hub.Member // its fields have owners of their own

	// Owned by the goroutine that calls Data; of the worker that parses the rest of a read while
	// Data is not called.
	in ws.Endpoint

	lastRead   atomic.Int64 // a clock.Instant: any byte
	lastActive atomic.Int64 // a clock.Instant: a message

	// A protocol.State. Written with mu held; value and admitted do not change between
	// authenticated and the end.
	state       atomic.Uint32
	queuedBytes uint32 // what queue costs, in bytes; guarded by mu, and here because there is room

	mu         sync.Mutex // guards the fields below; before the locks of Hub and Pool, never with that of Lobby
	admitted   bool       // was authenticated: the callbacks hear of its end
	onLoop     bool       // Data is called by an event loop, which lends itself to the Pool; set by Open
	running    bool       // a worker of the pool has it, or will
	connecting bool       // messages and changes wait until the connected callback has returned
	paused     bool       // not read from, until the queue is shorter
	slow       bool       // has had messages dropped, and has not caught up since
	pongs      uint8      // queued by this call of Data; owned by the owner of in, and here because there is room
	pinged     uint8      // pings since it fell silent; owned by the sweep, and here because there is room
	queue      queue
	value      any        // what the authenticate callback made of it
	transient  *transient // nil while there is none of it
}

// Opening is what Open makes a session of.
type Opening struct {
	Conn        transport.Conn
	Lane        *hub.Lane // of the connection's loop
	Looped      bool      // an event loop calls Data, and Pool.RunDeferred later in the same turn
	ID          hub.ID    // fresh
	Remote      netip.AddrPort
	Deflate     bool
	Protocol    string // the subprotocol that was agreed on; empty: none
	FromRequest any    // what the application took from the request
	Answer      []byte // to the handshake: what the client gets first; nil: nothing
}

// Open makes the session of a new connection, which Stats.Connections has counted already: its
// place was reserved.
func Open(env *Env, o Opening) *Session {
	now := int64(env.Clock.Now())
	s := &Session{env: env, connected: env.Clock.Age(), onLoop: o.Looped}
	if o.Remote != o.Conn.RemoteAddr() {
		addr := o.Remote // a copy of its own: o would be one of all of it, and for every client
		s.addr = &addr
	}
	s.in = ws.NewEndpoint(ws.Server, env.Limits.UnauthenticatedPayload, o.Deflate)
	s.member.Init(o.ID, o.Conn, o.Lane, s)
	s.member.Deflate = o.Deflate
	s.lastRead.Store(now)
	s.lastActive.Store(now)
	c := &pendingClient{session: s, protocol: o.Protocol, fromRequest: o.FromRequest}
	s.transient = &transient{pendingClient: c}
	env.Running.Add(1)
	env.Stats.Opened.Add(1)
	if o.Answer != nil {
		s.member.Control(o.Answer) // in the lobby, anyone may close it
	}
	env.Lobby.add(c, o.Remote.Addr())
	return s
}

// conn is the session's connection.
func (s *Session) conn() transport.Conn { return s.member.Link().(transport.Conn) }

// PeerClosed is told that the client has closed its side: what it was sent before still goes out. It is
// transport.Handler's.
func (s *Session) PeerClosed() bool {
	if s.disconnect(closeRequest{code: closeAbnormal}) {
		s.member.CloseAfterFlush(nil)
	}
	return true // whoever was first to finish it has queued the end, or is about to
}

// Drained is told that the client has taken enough to be given more. It is transport.Handler's.
func (s *Session) Drained() { s.member.Drained() }

// Closed is told that the socket is gone. It is transport.Handler's.
func (s *Session) Closed(error) {
	s.disconnect(closeRequest{code: closeAbnormal})
	s.mu.Lock()
	s.transient.closeInfo.socketClosed = true
	retired := s.transient.closeInfo.finished
	c := s.transient.closeInfo.pendingClient
	s.mu.Unlock()
	if c != nil {
		s.env.Lobby.socketClosed(c) // before its place is free: MakeRoom counts on those that it has cut off
	}
	s.env.Stats.Connections.Add(-1)
	if retired {
		s.env.Running.Done()
	}
}

// Dropped is told that messages were dropped for this client. It is hub.Owner's.
func (s *Session) Dropped(n int) {
	if s.State() == protocol.StateDisconnected {
		return // not slow, but gone
	}
	s.mu.Lock()
	first := !s.slow
	s.slow = true
	s.mu.Unlock()
	if s.env.Limits.CloseOnBackpressure {
		s.CloseFor(&s.env.Stats.SlowClosed, protocol.CloseSlowConsumer, protocol.ReasonSlowConsumer)
		return
	}
	if first {
		s.env.Log.Warn("client is too slow, messages for it are dropped", "client", s.ID(), "waiting", s.member.Buffered())
	}
}

func (s *Session) endedLocked() bool { return s.State() == protocol.StateDisconnected }

// scheduleLocked gives the session to the pool, if there is something to do and nobody is at it.
func (s *Session) scheduleLocked() {
	if s.idleLocked() {
		s.running = true
		s.env.Pool.Submit(s)
	}
}

// idleLocked reports whether there is something to do that no worker does.
func (s *Session) idleLocked() bool {
	return !s.running && !s.connecting && (!s.queue.empty() || s.endedLocked() || s.changesLocked() || s.hasDeferredWorkLocked())
}

// hasDeferredWorkLocked reports whether something is to be done once the queue is empty.
func (s *Session) hasDeferredWorkLocked() bool {
	return s.transient != nil && (s.transient.unparsed != nil || s.transient.deferredClose != nil)
}

const (
	// share is how many messages a session may have handled before others get their turn,
	// runBytes how many bytes, inflated; a single message may be larger.
	runMessages = 64
	runBytes    = 256 << 10
)

// Run handles what is queued. It is workpool.Task's, never runs twice at the same time, and may
// block in callbacks.
func (s *Session) Run() {
	for n, bytes := 0, 0; n < runMessages && bytes < runBytes; n++ {
		t, ok := s.next()
		switch {
		case !ok:
			return
		case t.roomChange.room != "":
			s.report(t.roomChange)
		default:
			bytes += s.handle(t)
		}
	}
	if !s.member.WaitTurn(s) {
		s.Resume()
	}
	runtime.Gosched() // Go would let a worker run for 10 ms, and event loops wait for as long
}

// Resume goes on with what Run has left. It is hub.Resumer's.
func (s *Session) Resume() { s.env.Pool.Submit(s) }

// A task is what a worker does next: it reports a change, or handles a message.
type task struct {
	roomChange // room "": there is none
	message
	admitted bool // the client was authenticated when the task was taken
}

// next takes the oldest change of rooms, or else the oldest message: the callbacks hear of a change
// before the next message is handled. False: there is nothing to do, and nothing runs for the
// session.
func (s *Session) next() (t task, ok bool) {
	s.mu.Lock()
	for !s.connecting {
		if s.env.Abandoned.Load() {
			s.mu.Unlock()
			s.countDiscarded(s.drop())
			s.mu.Lock()
		}
		switch {
		case s.changesLocked():
			t.roomChange = s.popChangeLocked()
			s.mu.Unlock()
			return t, true
		case !s.queue.empty():
			t.message, t.admitted = s.queue.pop(), s.admitted
			s.queuedBytes -= uint32(len(t.payload) + overhead)
			behind := (s.paused || s.hasDeferredWorkLocked()) && int(s.queuedBytes) <= s.env.Limits.ClientQueue/2
			s.mu.Unlock()
			if behind {
				s.parseUnparsed()
			}
			return t, true
		case s.transient != nil && s.transient.unparsed != nil:
			s.mu.Unlock()
			s.parseUnparsed()
			s.mu.Lock()
		case s.endedLocked() && !s.transient.closeInfo.leavesQueued:
			s.leaveAllLocked()
		case s.endedLocked():
			s.mu.Unlock()
			s.callDisconnected()
			return t, false
		case s.hasDeferredWorkLocked():
			e := *s.transient.deferredClose
			s.mu.Unlock()
			s.closeNow(e)
			s.mu.Lock()
		default:
			s.running = false
			s.mu.Unlock()
			return t, false
		}
	}
	s.running = false
	s.mu.Unlock()
	return t, false
}
