package session

import (
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
		switch {
		case g.has(extension):
			w.reauthenticate(e)
		case w.State() != protocol.StateUnauthorized || w.isResuming():
			w.reply(protocol.ErrAlreadyAuthenticated)
		default:
			w.startAuthentication(e)
		}
	case !g.has(admitted):
		w.reply(protocol.ErrNotAuthenticated)
	case e.Event == protocol.EventJoin:
		w.join(e, g)
	case e.Event == protocol.EventLeave:
		w.leave(e, g)
	case e.Event == protocol.EventAnswer && g.has(askable):
		answering(w).answer(e)
	case protocol.System(e.Event) || w.env.Calls.Message == nil:
		w.unhandled(e.Event, "the event has no handler", w.newRequest(e, g))
	default:
		w.callMessage(e, w.newRequest(e, g))
	}
}

// reply sends an error event.
func (s *Session) reply(e *protocol.Error) {
	s.member.Notice(ws.NewMessage(protocol.AppendError(nil, e)))
}
