package session

import (
	"context"
	"errors"
	"log/slog"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// handle does what a message asks for, inflated and decrypted. It returns how many bytes the message has.
func (s *Session) handle(t task) (size int) {
	payload := t.payload
	if t.deflate != 0 {
		var ok bool
		if payload, ok = s.inflate(t); !ok {
			return len(t.payload)
		}
	}
	s.handlePayload(payload, t.admitted)
	return len(payload)
}

// handlePayload handles a message by whether the client was authenticated when the message's turn
// came: the authenticate and connected callbacks run beside the worker, and may change that
// meanwhile.
func (s *Session) handlePayload(payload []byte, admitted bool) {
	cipher := s.member.Cipher() // not nil only for an authenticated client
	e, ok := s.parse(payload)
	switch {
	case cipher == nil || !admitted || ok && e.Event == protocol.EventHeartbeat:
	case ok && e.Event == protocol.EventEncrypted:
		e, ok = s.open(cipher, e.Data)
	case s.env.Encryption.Only:
		s.plaintextRejected()
		return
	}
	if ok {
		s.dispatch(e, admitted)
	}
}

// parse reads a message, and answers one that can't be read.
func (s *Session) parse(payload []byte) (e protocol.Envelope, ok bool) {
	e, err := protocol.ParseEnvelope(payload)
	if err != nil {
		s.env.Stats.BadMessages.Add(1)
		if errors.Is(err, protocol.ErrSyntax) {
			s.reply(protocol.ErrInvalidFormat)
		}
		s.Debug("message dropped", "cause", err)
	}
	return e, err == nil
}

// dispatch is the table of protocol §3: what an event does, by the state of the client.
func (s *Session) dispatch(e protocol.Envelope, admitted bool) {
	switch {
	case e.Event == protocol.EventHeartbeat:
	case e.Event == protocol.EventAuthenticate:
		if s.State() != protocol.StateUnauthorized {
			s.reply(protocol.ErrAlreadyAuthenticated)
			return
		}
		s.startAuthentication(e.Data)
	case !admitted:
		s.reply(protocol.ErrNotAuthenticated)
	case e.Event == protocol.EventJoin:
		s.join(e.Data, e.ID)
	case e.Event == protocol.EventLeave:
		s.leave(e.Data)
	case protocol.System(e.Event) || s.env.Calls.Message == nil:
		s.unhandled(e.Event, "the event has no handler")
	default:
		s.guard("message", func(ctx context.Context) error {
			err := s.env.Calls.Message(ctx, s, e)
			if errors.Is(err, ErrUnhandled) {
				s.unhandled(e.Event, "the event has no handler")
				return nil
			}
			return err
		}, "event", e.Event[:min(len(e.Event), maxLoggedEvent)])
	}
}

// maxLoggedEvent is how many bytes of an event's name a log line may have.
const maxLoggedEvent = 64

func (s *Session) unhandled(event, cause string) {
	s.env.Stats.MessagesUnhandled.Add(1)
	s.Debug("message dropped", "event", event, "cause", cause)
}

func (s *Session) wasAdmitted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.admitted
}

// reply sends an error event.
func (s *Session) reply(e *protocol.Error) {
	s.member.Notice(ws.NewMessage(protocol.AppendError(nil, e)))
}

// guard runs a callback with the server's context. An error or a panic is counted and logged with the attributes about, and
// ends nothing else.
func (s *Session) guard(name string, call func(ctx context.Context) error, about ...any) {
	callback.Run(func() error { return call(s.env.Base) }, func(err error) { s.callbackFailed(name, err, about...) })
}

// callbackFailed counts and logs an error of a callback.
func (s *Session) callbackFailed(name string, err error, about ...any) {
	if !s.left(err) {
		s.env.Stats.CallbackErrors.Add(1)
	}
	s.failed(name, err, about...)
}

// left reports whether err only says that the client has disconnected: a callback that was running
// by then could not reach it. That is no fault of the application.
func (s *Session) left(err error) bool {
	return s.State() == protocol.StateDisconnected && (errors.Is(err, hub.ErrNotMember) || errors.Is(err, context.Canceled))
}

// Guard runs a callback of the application that is about no client, as guard does.
func (e *Env) Guard(name string, call func(ctx context.Context) error) {
	callback.Run(func() error { return call(e.Base) }, func(err error) { e.CallbackFailed(name, err) })
}

// CallbackFailed counts and logs an error that callback.Run reported for a callback. about are further
// attributes of the log line.
func (e *Env) CallbackFailed(name string, err error, about ...any) {
	e.Stats.CallbackErrors.Add(1)
	e.failed(name, err, about...)
}

func (s *Session) failed(name string, err error, about ...any) {
	if s.left(err) {
		s.Debug(name+" callback: the client has disconnected", "cause", err)
		return
	}
	s.env.failed(name, err, append(about, "client", s.ID())...)
}

func (e *Env) failed(name string, err error, about ...any) {
	args := append([]any{"error", err}, about...)
	var p *callback.PanicError
	if errors.As(err, &p) {
		args = append(args, "stack", string(p.Stack))
	}
	e.Log.Error(name+" callback failed", args...)
}

// Debug logs a line about this client, if the level is enabled.
func (s *Session) Debug(msg string, args ...any) {
	if s.env.Log.Enabled(s.env.Base, slog.LevelDebug) {
		s.env.Log.Debug(msg, append(args, "client", s.ID())...)
	}
}
