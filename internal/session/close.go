package session

import (
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// A closeRequest says how to end a session.
type closeRequest struct {
	code    int
	reason  string
	counter *atomic.Uint64 // of sessions that end for this reason; nil for none
	drop    bool           // drop the messages that are not being handled yet

	lastTicket bool // the client gets a new ticket first if its own is out of date
	mayReturn  bool // the client may resume its session: see Tickets.Grace
	moved      bool // the session is resumed on another connection
}

// closeNormal is the code of a client that has done what it connected for (RFC 6455 §7.4.1).
const closeNormal = 1000

// closeAbnormal stands for a connection that ended without a close frame (RFC 6455 §7.1.5).
const closeAbnormal = 1006

// Close ends the session at once for the application: it sends a close frame after what was sent to
// the client before. Messages of the client that are not being handled yet are dropped and counted.
// Its tickets become useless. Close returns false if the session had ended already. It never
// blocks.
func (s *Session) Close(code int, reason string) bool {
	s.mu.Lock()
	g := s.grants
	s.mu.Unlock()
	if g.has(resume) {
		s.env.Tickets.RevokeClient(s.member.Key())
	}
	return s.closeNow(closeRequest{code: code, reason: reason, drop: true})
}

// CloseFor ends the session at once like Close, and adds it to counter. Messages that were received
// from an authenticated client are still handled. CloseFor never blocks.
func (s *Session) CloseFor(counter *atomic.Uint64, code int, reason string) bool {
	mayReturn := code == protocol.CloseHeartbeatTimeout || code == protocol.CloseSlowConsumer
	return s.closeNow(closeRequest{code: code, reason: reason, counter: counter, mayReturn: mayReturn})
}

// Shutdown ends the session, because the server shuts down, when all messages that were received
// from the client have been handled and answered. Nothing more is read from the client. With now,
// it ends the session at once, and drops the messages that are not being handled yet. Shutdown
// never blocks.
func (s *Session) Shutdown(now bool) {
	s.mu.Lock()
	g := s.grants
	s.mu.Unlock()
	code := g.shutdownCode()
	req := closeRequest{code: code, reason: protocol.CloseReason(code), drop: now, lastTicket: g.has(resume), mayReturn: true}
	if now {
		s.closeNow(req)
	} else {
		s.closeAfterInbox(req)
	}
}

// Abort cuts the connection without a close frame, for a peer that does not respond. It never
// blocks.
func (s *Session) Abort() { s.conn().Abort() }

// closeAfterInbox ends the session when the messages that were received before have been handled.
// The first request takes effect, unless the session is closed at once before that.
func (s *Session) closeAfterInbox(req closeRequest) {
	s.mu.Lock()
	if s.ended() {
		s.mu.Unlock()
		return
	}
	box := &s.inbox
	if !box.running && !box.connecting && box.empty() && !s.transient.hasDeferred() {
		s.mu.Unlock()
		s.closeNow(req)
		return
	}
	if t := s.transientLocked(); t.deferredClose == nil {
		t.deferredClose = &req
	}
	s.pauseLocked()
	s.scheduleLocked(false)
	s.mu.Unlock()
}

// closeNow ends the session with a close frame. It returns false if the session had ended
// already. It counts the session before the client can see the close frame.
func (s *Session) closeNow(req closeRequest) bool {
	if req.lastTicket {
		s.env.Tickets.flush(s)
	}
	if !s.disconnect(req) {
		return false
	}
	if req.counter != nil {
		req.counter.Add(1)
	}
	s.member.CloseAfterFlush(ws.AppendClose(nil, req.code, req.reason))
	return true
}

// disconnect sets the state to disconnected, and removes the client from the hub and the lobby. It
// returns false if the session had ended already.
func (s *Session) disconnect(req closeRequest) bool {
	s.mu.Lock()
	if s.ended() {
		s.mu.Unlock()
		return false
	}
	t := s.transientLocked()
	c := t.pendingClient
	t.closeInfo = &closeInfo{code: req.code, reason: req.reason, pendingClient: c, moved: req.moved}
	t.pendingClient = nil
	s.state.Store(uint32(protocol.StateDisconnected))
	dropped := 0
	// The messages of a client that is not authenticated only cause replies.
	if req.drop || !s.grants.has(admitted) {
		dropped = s.inbox.clear()
		t.dropUnparsed()
	}
	if t.done != nil {
		close(t.done)
	}
	if t.credentials != nil {
		s.env.Expirations.set(t.credentials, time.Time{}, 0)
	}
	if s.inbox.paused {
		s.inbox.paused = false
		s.conn().Resume() // to read the peer's close
	}
	// Before the disconnected callback can run: if it asks whether the user has other clients, it
	// must not find this one.
	user, rooms, member := s.env.Hub.Remove(&s.member)
	t.closeInfo.rooms = rooms
	answering{s}.lookForAnswersLocked()
	var displaced *Session
	if req.mayReturn && s.grants.has(resume) {
		t.closeInfo.absent, displaced = s.env.Tickets.beginAbsence(s)
	}
	if s.grants.has(admitted) || s.inbox.running {
		s.scheduleLocked(false)
	} else {
		t.closeInfo.finished = true
	}
	s.mu.Unlock()

	if displaced != nil {
		s.env.Stats.Tickets.Displaced.Add(1)
		endAbsence(displaced, false)
	}
	if c != nil {
		s.env.Lobby.close(c)
	}
	if member {
		s.env.release(s.env.clientChannels(&s.member, user, rooms))
	}
	s.countDiscarded(dropped)
	return true
}

// countDiscarded counts n messages that were received and are not handled. It logs them only if the
// client was authenticated, since the messages of other clients only cause replies.
func (s *Session) countDiscarded(n int) {
	if n == 0 {
		return
	}
	s.env.Stats.MessagesDiscarded.Add(uint64(n))
	s.mu.Lock()
	logged := s.grants.has(admitted)
	s.mu.Unlock()
	if logged {
		s.env.Log.Warn("messages of a closed client are not handled", "client", s.ID(), "messages", n)
	}
}
