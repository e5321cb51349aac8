package session

import (
	"context"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// An ending is why and how a session ends.
type closeRequest struct {
	code    int
	reason  string
	counter *atomic.Uint64 // of sessions that end so; nil: none
	drop    bool           // the messages of the client that no callback has begun with
}

// closeAbnormal stands for a close frame that never came (RFC 6455 §7.1.5).
const closeAbnormal = 1006

// Close ends the session at once, as the application wants it: with a close frame behind what has
// been sent to the client. Messages of the client that no callback has begun with are dropped and
// counted. False: the session had ended already. Any goroutine; never blocks.
func (s *Session) Close(code int, reason string) bool {
	return s.closeNow(closeRequest{code: code, reason: reason, drop: true})
}

// CloseFor ends the session at once, for what counter counts, as Close does. Messages of an
// authenticated client that have been received are still handled. Any goroutine; never blocks.
func (s *Session) CloseFor(counter *atomic.Uint64, code int, reason string) bool {
	return s.closeNow(closeRequest{code: code, reason: reason, counter: counter})
}

// Shutdown ends the session with 1001 once all messages that were received from the client have
// been handled, and answered. Nothing more is read from it. Any goroutine; never blocks.
func (s *Session) Shutdown() {
	s.closeAfterQueue(closeRequest{code: protocol.CloseGoingAway, reason: protocol.ReasonGoingAway})
}

// Abort ends the session without a close frame: for a peer that is there no more. Any goroutine;
// never blocks.
func (s *Session) Abort() { s.conn().Abort() }

// closeAfterQueue ends the session once the messages that were received before have been handled. Of
// several endings the first counts, unless one comes at once.
func (s *Session) closeAfterQueue(e closeRequest) {
	s.mu.Lock()
	if s.endedLocked() {
		s.mu.Unlock()
		return
	}
	if !s.running && !s.connecting && s.queue.empty() && !s.hasDeferredWorkLocked() {
		s.mu.Unlock()
		s.closeNow(e)
		return
	}
	if r := s.transientLocked(); r.deferredClose == nil {
		r.deferredClose = &e
	}
	s.pauseLocked()
	s.scheduleLocked()
	s.mu.Unlock()
}

// end ends the session with a close frame. One that ends is counted before the close frame can be
// seen.
func (s *Session) closeNow(e closeRequest) bool {
	if !s.disconnect(e) {
		return false
	}
	if e.counter != nil {
		e.counter.Add(1)
	}
	s.member.CloseAfterFlush(ws.AppendClose(nil, e.code, e.reason))
	return true
}

// finish makes the state disconnected and forgets the client everywhere, once.
func (s *Session) disconnect(e closeRequest) bool {
	s.mu.Lock()
	if s.endedLocked() {
		s.mu.Unlock()
		return false
	}
	r := s.transientLocked()
	r.closeInfo = &closeInfo{code: e.code, reason: e.reason, pendingClient: r.pendingClient}
	s.state.Store(uint32(protocol.StateDisconnected))
	dropped := 0
	if e.drop || !s.admitted { // the messages of others can only be answered, and there is nobody to answer
		dropped = s.dropLocked()
	}
	if r.done != nil {
		close(r.done)
	}
	if s.paused {
		s.paused = false
		s.conn().Resume() // the peer's close must be seen
	}
	c := r.pendingClient
	r.pendingClient = nil
	// Before the disconnected callback can run: who asks there whether the user has other clients
	// must not find this one.
	user, rooms, member := s.env.Hub.Remove(&s.member)
	r.closeInfo.rooms = rooms
	if s.admitted || s.running {
		s.scheduleLocked()
	} else {
		r.closeInfo.finished = true // nothing has run for it, nothing will
	}
	s.mu.Unlock()

	if c != nil {
		s.env.Lobby.close(c)
	}
	if member {
		s.release(s.channels(user, rooms))
	}
	s.countDiscarded(dropped)
	return true
}

// drop forgets what was received and not begun with, and returns how many messages that was.
func (s *Session) drop() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropLocked()
}

func (s *Session) dropLocked() int {
	n := s.queue.len()
	s.queue, s.queuedBytes = queue{}, 0
	if r := s.transient; r != nil {
		r.unparsed, r.parsing = nil, false
	}
	return n
}

// discarded counts messages of the client that were received and are not handled, and logs those of
// clients that were authenticated: others only get errors for an answer.
func (s *Session) countDiscarded(n int) {
	if n == 0 {
		return
	}
	s.env.Stats.MessagesDiscarded.Add(uint64(n))
	if s.wasAdmitted() {
		s.env.Log.Warn("messages of a client that was closed are not handled", "client", s.ID(), "messages", n)
	}
}

// callDisconnected is the end of what runs for the session: the disconnected callback. The left callbacks
// have run before.
func (s *Session) callDisconnected() {
	s.mu.Lock()
	e := s.transient.closeInfo
	called := e.disconnectedCalled
	e.disconnectedCalled = true
	s.mu.Unlock()

	if s.admitted && !called && s.env.Calls.Disconnected != nil {
		s.guard("disconnected", func(ctx context.Context) error {
			s.env.Calls.Disconnected(ctx, s, e.code, e.reason)
			return nil
		})
	}
	s.mu.Lock()
	e.finished = true // running stays set: nothing is scheduled any more
	retired := e.socketClosed
	s.mu.Unlock()
	if retired {
		s.env.Running.Done()
	}
}
