package session

import (
	"context"
	"errors"

	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// parse parses a message. It answers one that is no JSON object.
func (w worker) parse(payload []byte) (e protocol.Envelope, ok bool) {
	e, err := protocol.ParseEnvelope(payload)
	if err != nil {
		w.env.Stats.BadMessages.Add(1)
		if errors.Is(err, protocol.ErrSyntax) {
			w.reply(protocol.ErrInvalidFormat)
		}
		w.Debug("message dropped", "cause", err)
	}
	return e, err == nil
}

// dispatch is the table of protocol §3: what an event does in each state of the client. g is what
// was granted to the client when the worker took the message.
func (w worker) dispatch(e protocol.Envelope, g grants) {
	switch {
	case e.Event == protocol.EventHeartbeat:
		if g.has(extension) {
			answerHeartbeat(&w.member, e.ID)
		}
	case e.Event == protocol.EventAuthenticate:
		if w.State() != protocol.StateUnauthorized {
			w.reply(protocol.ErrAlreadyAuthenticated)
			return
		}
		w.startAuthentication(e)
	case !g.has(admitted):
		w.reply(protocol.ErrNotAuthenticated)
	case e.Event == protocol.EventJoin:
		w.join(e, g)
	case e.Event == protocol.EventLeave:
		w.leave(e, g)
	case protocol.System(e.Event) || w.env.Calls.Message == nil:
		w.unhandled(e.Event, "the event has no handler")
	default:
		w.runCallback("message", func(ctx context.Context) error {
			err := w.env.Calls.Message(ctx, w.Session, e)
			if errors.Is(err, ErrUnhandled) {
				w.unhandled(e.Event, "the event has no handler")
				return nil
			}
			return err
		}, "event", e.Event[:min(len(e.Event), maxLoggedEvent)])
	}
}

// maxLoggedEvent limits the length of an event's name in a log line, in bytes.
const maxLoggedEvent = 64

// unhandled counts and logs a message that is dropped.
func (w worker) unhandled(event, cause string) {
	w.env.Stats.MessagesUnhandled.Add(1)
	w.Debug("message dropped", "event", event, "cause", cause)
}

// reply sends an error event.
func (s *Session) reply(e *protocol.Error) {
	s.member.Notice(ws.NewMessage(protocol.AppendError(nil, e)))
}
