package session

import (
	"bytes"
	"errors"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// A reader is a Session on the goroutine that owns its endpoint: the one that calls Data, or the
// worker in parseUnparsed. It is the ws.DeferredHandler of the endpoint.
type reader struct{ *Session }

// parse puts the messages in b into the inbox. It returns the part of b that it did not parse
// because the client was paused.
func (r reader) parse(b []byte) (unparsed []byte) {
	if r.State() == protocol.StateAuthenticated {
		r.in.SetMessageLimit(r.env.Limits.MaxPayload)
	}
	n, err := r.in.Parse(b, r)
	if err != nil {
		if req := r.env.violation(err); req != nil {
			r.closeAfterInbox(*req)
		}
		return nil
	}
	return b[n:]
}

// keep leaves unparsed bytes to the worker, which parses them when the inbox is short. It returns
// false if the inbox is short already.
func (r reader) keep(b []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.inbox.paused {
		return false
	}
	r.transientLocked().unparsed = bytes.Clone(b)
	r.scheduleLocked(false)
	return true
}

// violation returns how to close a client whose input caused err, or nil if err is not the client's
// fault.
func (e *Env) violation(err error) *closeRequest {
	var v *ws.CloseError
	if !errors.As(err, &v) {
		return nil
	}
	return &closeRequest{code: v.Code, reason: v.Reason, counter: &e.Stats.ProtocolErrors}
}

// Message implements ws.DeferredHandler.
func (r reader) Message(_ ws.Opcode, payload []byte) { r.accept(payload, 0) }

// Compressed implements ws.DeferredHandler.
func (r reader) Compressed(op ws.Opcode, payload []byte) { r.accept(payload, op) }

const reasonPreAuthFlood = "Too many messages before authentication"

// accept counts a message. It puts the message into the inbox, unless the message is a heartbeat,
// which it handles. deflate is the opcode of a compressed message, otherwise 0.
func (r reader) accept(payload []byte, deflate ws.Opcode) {
	r.lastActive.Store(r.lastRead.Load())
	r.mu.Lock()
	// What the peer sent before it disconnected is accepted, and nothing after a close.
	if r.ended() && !r.transient.parsing {
		r.mu.Unlock()
		r.in.Stop()
		return
	}
	r.env.Stats.MessagesIn.Add(1)
	size := len(payload)
	if deflate != 0 {
		size = 0 // the worker counts the bytes when it inflates them
	}
	// A client that has ended cannot be closed for its rates, and only the rest of one read
	// remains.
	if !r.ended() && !r.withinRatesLocked(clock.Instant(r.lastRead.Load()), 1, size) {
		r.mu.Unlock()
		r.stop(r.env.rateExceeded())
		return
	}
	if c := r.transient.client(); c != nil {
		if c.messages >= r.env.Limits.UnauthenticatedMessages {
			r.mu.Unlock()
			r.stop(closeRequest{code: protocol.ClosePolicyViolation, reason: reasonPreAuthFlood, counter: &r.env.Stats.PreAuthFlood})
			return
		}
		c.messages++
	}
	answered := r.grants.has(extension)
	id, beat := parseHeartbeat(payload, deflate, answered)
	if !beat {
		r.enqueueLocked(message{payload: bytes.Clone(payload), deflate: deflate})
	}
	r.mu.Unlock()
	if beat && answered && r.pongs < maxPongs {
		r.pongs++
		answerHeartbeat(&r.member, id)
	}
}

// stop parses nothing more, and ends the session when the messages before have been handled.
func (r reader) stop(req closeRequest) {
	r.in.Stop()
	r.closeAfterInbox(req)
}

// enqueueLocked puts a message into the inbox, and pauses the client if the inbox is full then.
func (r reader) enqueueLocked(m message) {
	r.inbox.push(m)
	if r.inbox.full(r.env.Limits.ClientQueue) {
		r.in.Pause()
		r.pauseLocked()
	}
	r.scheduleLocked(r.inbox.onLoop)
	answering(r).lookForAnswersLocked()
}

// acceptControl counts a ping or a pong against the client's rates. It returns false if the server
// must not answer.
func (r reader) acceptControl(payload []byte) bool {
	if r.ended() {
		r.mu.Lock()
		parsing := r.transient.parsing // then the messages behind this frame are still accepted
		r.mu.Unlock()
		if !parsing {
			r.in.Stop()
		}
		return false
	}
	if r.env.Limits.MessageRate <= 0 && r.env.Limits.ByteRate <= 0 { // needs no lock
		return true
	}
	r.mu.Lock()
	ok := r.withinRatesLocked(clock.Instant(r.lastRead.Load()), 1, len(payload))
	r.mu.Unlock()
	if !ok {
		r.stop(r.env.rateExceeded())
	}
	return ok
}

const (
	maxPongBacklog = 4096 // bytes
	maxPongs       = 64   // for one read
)

// Ping implements ws.DeferredHandler. It answers with a pong, but not always: not every ping
// needs an answer (RFC 6455 §5.5.3), and one read may contain ten thousand. A client that does
// not read its pongs gets no more of them, and one that floods the server with pings gets fewer.
func (r reader) Ping(payload []byte) {
	if !r.acceptControl(payload) {
		return
	}
	if r.pongs < maxPongs && r.member.Buffered() < maxPongBacklog {
		r.pongs++
		r.member.Control(ws.AppendFrame(nil, ws.OpPong, payload))
	}
}

// Pong implements ws.DeferredHandler.
func (r reader) Pong(payload []byte) { r.acceptControl(payload) }

// Close implements ws.DeferredHandler. It ends the session that the client has closed. A client
// that closes with 1000 does not return.
func (r reader) Close(code int, reason string) {
	if r.disconnect(closeRequest{code: code, reason: reason, mayReturn: code != closeNormal}) {
		r.member.CloseAfterFlush(ws.AppendClose(nil, code, ""))
	}
}

// pauseLocked stops reading from the client.
func (s *Session) pauseLocked() {
	if !s.inbox.paused && !s.ended() {
		s.transient.advanceRates(clock.Instant(s.lastRead.Load()), s.inbox.paused)
		s.inbox.paused = true
		s.conn().Pause()
	}
}
