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
		if b = s.parseSome(b); len(b) > 0 && s.keepUnparsed(b) {
			return
		}
	}
}

// parseSome queues the messages in b. It returns what it has not parsed because the client was
// paused.
func (s *Session) parseSome(b []byte) (unparsed []byte) {
	if s.State() == protocol.StateAuthenticated {
		s.in.SetMessageLimit(s.env.Limits.MaxPayload)
	}
	n, err := s.in.Parse(b, (*inbound)(s))
	if err != nil {
		s.protocolViolated(err)
		return nil
	}
	return b[n:]
}

// keep leaves what is not parsed to the worker that will find the queue shorter. False: that has
// happened already.
func (s *Session) keepUnparsed(b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.paused {
		return false
	}
	s.transientLocked().unparsed = bytes.Clone(b)
	s.scheduleLocked()
	return true
}

// parseUnparsed parses what was read and not parsed, once the queue is short enough, and has the client
// read from again when nothing of it is left. It is run's.
func (s *Session) parseUnparsed() {
	for {
		s.mu.Lock()
		r := s.transient
		if int(s.queuedBytes) > s.env.Limits.ClientQueue/2 {
			s.mu.Unlock()
			return
		}
		if r == nil || r.unparsed == nil {
			s.resumeLocked()
			s.mu.Unlock()
			return
		}
		unparsed := r.unparsed
		r.unparsed, r.parsing = nil, true
		s.mu.Unlock()

		unparsed = s.parseSome(unparsed)

		s.mu.Lock()
		if r.parsing && len(unparsed) > 0 { // else the session has ended meanwhile, and drops it
			r.unparsed = unparsed
		}
		r.parsing = false
		s.freeTransientLocked()
		s.mu.Unlock()
	}
}

// resumeLocked has a client that was paused read from again, unless it is about to be closed.
func (s *Session) resumeLocked() {
	if !s.paused || s.transient != nil && s.transient.deferredClose != nil {
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
func (s *Session) protocolViolated(err error) {
	if e := s.violation(err); e != nil {
		s.closeAfterQueue(*e)
	}
}

// violation is how a client ends for err.
func (s *Session) violation(err error) *closeRequest {
	var v *ws.CloseError
	if !errors.As(err, &v) {
		return nil
	}
	return &closeRequest{code: v.Code, reason: v.Reason, counter: &s.env.Stats.ProtocolErrors}
}

// inbound is a Session as the ws.DeferredHandler of its endpoint: called within Data and parseUnparsed.
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
	if s.endedLocked() && !s.transient.parsing { // what the peer sent before it went is accepted, but nothing behind a close
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
		s.stopParsing(s.rateExceeded())
		return
	}
	if c := s.pendingClientLocked(); c != nil {
		if c.messages >= s.env.Limits.UnauthenticatedMessages {
			s.mu.Unlock()
			s.stopParsing(closeRequest{code: protocol.ClosePolicyViolation, reason: reasonPreAuthFlood, counter: &s.env.Stats.PreAuthFlood})
			return
		}
		c.messages++
	}
	if !done {
		s.enqueueLocked(message{bytes.Clone(payload), deflate})
	}
	s.mu.Unlock()
}

// stop parses nothing more, and ends the session behind the messages that came before.
func (s *Session) stopParsing(e closeRequest) {
	s.in.Stop()
	s.closeAfterQueue(e)
}

const reasonPreAuthFlood = "Too many messages before authentication"

func (s *Session) enqueueLocked(m message) {
	s.queue.push(m)
	s.queuedBytes += uint32(len(m.payload) + overhead)
	if int(s.queuedBytes) > s.env.Limits.ClientQueue {
		s.in.Pause()
		s.pauseLocked()
	}
	if s.idleLocked() {
		s.running = true
		if s.onLoop {
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
		parsing := s.transient.parsing // the messages behind this frame are still accepted
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
		s.stopParsing(s.rateExceeded())
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
	if s.disconnect(closeRequest{code: code, reason: reason}) {
		s.member.CloseAfterFlush(ws.AppendClose(nil, code, ""))
	}
}
