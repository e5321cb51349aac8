package session

import (
	"bytes"
	"errors"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// Data takes bytes from the socket. It is transport.Handler's.
func (s *Session) Data(b []byte, now clock.Instant) {
	s.lastRead.Store(int64(now))
	if s.State() == protocol.StateDisconnected {
		return // the session has ended, and the peer has not closed yet
	}
	s.pongs = 0
	for len(b) > 0 {
		if b = s.parseSome(b); len(b) > 0 && s.keep(b) {
			return
		}
	}
}

// parseSome queues the messages in b. It returns what it has not parsed because the client was
// paused.
func (s *Session) parseSome(b []byte) (rest []byte) {
	if s.State() == protocol.StateAuthenticated {
		s.in.SetMessageLimit(s.env.Limits.MaxPayload)
	}
	n, err := s.in.Parse(b, (*inbound)(s))
	if err != nil {
		s.violated(err)
		return nil
	}
	return b[n:]
}

// keep leaves what is not parsed to the worker that will find the queue shorter. False: that has
// happened already.
func (s *Session) keep(b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.paused {
		return false
	}
	s.rareLocked().rest = bytes.Clone(b)
	s.scheduleLocked()
	return true
}

// catchUp parses what was read and not parsed, once the queue is short enough, and has the client
// read from again when nothing of it is left. It is run's.
func (s *Session) catchUp() {
	for {
		s.mu.Lock()
		r := s.rare
		if int(s.queued) > s.env.Limits.ClientQueue/2 {
			s.mu.Unlock()
			return
		}
		if r == nil || r.rest == nil {
			s.resumeLocked()
			s.mu.Unlock()
			return
		}
		rest := r.rest
		r.rest, r.parsing = nil, true
		s.mu.Unlock()

		rest = s.parseSome(rest)

		s.mu.Lock()
		if r.parsing && len(rest) > 0 { // else the session has ended meanwhile, and drops it
			r.rest = rest
		}
		r.parsing = false
		s.tidyLocked()
		s.mu.Unlock()
	}
}

// resumeLocked has a client that was paused read from again, unless it is about to be closed.
func (s *Session) resumeLocked() {
	if !s.paused || s.rare != nil && s.rare.ending != nil {
		return
	}
	now := s.env.Clock.Now()
	s.lastRead.Store(int64(now)) // the client was not silent: the server did not read
	s.lastActive.Store(int64(now))
	s.advanceRatesLocked(now)
	s.paused = false
	s.conn().Resume()
}

// violated ends a client that broke the rules of the WebSocket protocol, behind the messages that
// came before.
func (s *Session) violated(err error) {
	if e := s.violation(err); e != nil {
		s.endBehind(*e)
	}
}

// violation is how a client ends for err.
func (s *Session) violation(err error) *ending {
	var v *ws.CloseError
	if !errors.As(err, &v) {
		return nil
	}
	return &ending{code: v.Code, reason: v.Reason, counter: &s.env.Stats.ProtocolErrors}
}

// inbound is a Session as the ws.DeferredHandler of its endpoint: called within Data and catchUp.
type inbound Session

var heartbeat = []byte(`{"event":"heartbeat"}`)

func (in *inbound) Message(_ ws.Opcode, payload []byte) {
	(*Session)(in).accept(payload, 0, bytes.Equal(payload, heartbeat)) // the most frequent message of all needs no queue
}

func (in *inbound) Compressed(op ws.Opcode, payload []byte) {
	(*Session)(in).accept(payload, op, false)
}

// accept queues a message, unless it needs no more than to be counted.
func (s *Session) accept(payload []byte, deflate ws.Opcode, done bool) {
	s.lastActive.Store(s.lastRead.Load())
	s.mu.Lock()
	if s.endedLocked() && !s.rare.parsing { // what the peer sent before it went is accepted, but nothing behind a close
		s.mu.Unlock()
		s.in.Stop()
		return
	}
	s.env.Stats.MessagesIn.Add(1)
	size := len(payload)
	if deflate != 0 {
		size = 0 // inflate counts its bytes
	}
	// After the end there is no close for messages that exceed the rates, only the rest of one read.
	if !s.endedLocked() && !s.withinRatesLocked(clock.Instant(s.lastRead.Load()), 1, size) {
		s.mu.Unlock()
		s.stop(s.tooFast())
		return
	}
	if g := s.guestLocked(); g != nil {
		if g.messages >= s.env.Limits.UnauthenticatedMessages {
			s.mu.Unlock()
			s.stop(ending{code: protocol.ClosePolicyViolation, reason: reasonTooEager, counter: &s.env.Stats.PreAuthFlood})
			return
		}
		g.messages++
	}
	if !done {
		s.enqueueLocked(message{bytes.Clone(payload), deflate})
	}
	s.mu.Unlock()
}

// stop parses nothing more, and ends the session behind the messages that came before.
func (s *Session) stop(e ending) {
	s.in.Stop()
	s.endBehind(e)
}

const reasonTooEager = "Too many messages before authentication"

func (s *Session) enqueueLocked(m message) {
	s.queue.push(m)
	s.queued += uint32(len(m.payload) + overhead)
	if int(s.queued) > s.env.Limits.ClientQueue {
		s.in.Pause()
		s.pauseLocked()
	}
	if s.idleLocked() {
		s.running = true
		if s.looped {
			s.env.Pool.SubmitDeferred(s)
		} else {
			s.env.Pool.Submit(s)
		}
	}
}

func (s *Session) pauseLocked() {
	if !s.paused && !s.endedLocked() {
		s.advanceRatesLocked(clock.Instant(s.lastRead.Load()))
		s.paused = true
		s.conn().Pause()
	}
}

// acceptControl counts a ping or a pong against the client's rates. It returns false if the server
// must not answer.
func (s *Session) acceptControl(payload []byte) bool {
	if s.State() == protocol.StateDisconnected {
		s.mu.Lock()
		parsing := s.rare.parsing // the messages behind this frame are still accepted
		s.mu.Unlock()
		if !parsing {
			s.in.Stop()
		}
		return false
	}
	if s.env.Limits.MessageRate <= 0 && s.env.Limits.ByteRate <= 0 { // needs no lock
		return true
	}
	s.mu.Lock()
	ok := s.withinRatesLocked(clock.Instant(s.lastRead.Load()), 1, len(payload))
	s.mu.Unlock()
	if !ok {
		s.stop(s.tooFast())
	}
	return ok
}

func (in *inbound) Ping(payload []byte) {
	s := (*Session)(in)
	if !s.acceptControl(payload) {
		return
	}
	// A client that does not take our pongs gets no more of them, and one that floods us with pings
	// fewer: not every ping asks for an answer (RFC 6455 §5.5.3), and a read may hold ten thousand.
	if s.pongs < maxPongs && s.member.Buffered() < maxPongBacklog {
		s.pongs++
		s.member.Control(ws.AppendFrame(nil, ws.OpPong, payload))
	}
}

const (
	maxPongBacklog = 4096 // bytes
	maxPongs       = 64   // of one read
)

func (in *inbound) Pong(payload []byte) { (*Session)(in).acceptControl(payload) }

func (in *inbound) Close(code int, reason string) {
	s := (*Session)(in)
	if s.finish(ending{code: code, reason: reason}) {
		s.member.CloseAfterFlush(ws.AppendClose(nil, code, ""))
	}
}
