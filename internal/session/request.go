package session

import (
	"encoding/json"
	"errors"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

var (
	// ErrReplied is the error of a further answer to a request.
	ErrReplied = errors.New("the request has been answered already")

	// ErrReplyLater is the error of the message callback for a request that the application
	// answers after the callback has returned.
	ErrReplyLater = errors.New("the reply follows later")
)

// A Request is a message with an id from a client with the extension. It gets exactly one answer
// (protocol §13), unless the client disconnects before. Answer and the methods may be called from
// any goroutine, and do not block.
type Request struct {
	// Set when made, then read-only.
	session *Session
	event   string
	id      json.RawMessage

	answered atomic.Bool
}

// newRequest returns the request in e, or nil if e is not a request of a client that expects an
// answer.
func (w worker) newRequest(e protocol.Envelope, g grants) *Request {
	if e.ID == nil || !g.has(extension) {
		return nil
	}
	return &Request{session: w.Session, event: e.Event, id: e.ID}
}

// Answer sends msg, which the application answers to the request r of s. It returns ErrReplied if
// the request has been answered, and otherwise the error of Session.Send, after which the request
// is not answered. If r is nil, or the request of another client, Answer is Session.Send.
func Answer(s *Session, r *Request, msg *ws.Message) error {
	if r == nil || r.session != s {
		return s.Send(msg)
	}
	if !r.answered.CompareAndSwap(false, true) {
		return ErrReplied
	}
	err := s.Send(msg)
	if err != nil {
		r.answered.Store(false)
	}
	return err
}

// complete answers the request, unless it has been answered or is nil: it has been handled.
func (r *Request) complete() {
	if r != nil {
		r.notice(protocol.AppendReply(nil, r.event, nil, r.id))
	}
}

// fail answers the request with an error, unless it has been answered or is nil.
func (r *Request) fail(code, message string) {
	if r != nil {
		r.notice(protocol.AppendClientError(nil, protocol.ClientError{Code: code, Message: message}, r.id))
	}
}

func (r *Request) notice(answer []byte) {
	if r.answered.CompareAndSwap(false, true) {
		r.session.member.Notice(ws.NewMessage(answer))
	}
}

// callMessage calls the message callback, and answers the request r, which may be nil, unless the
// application does.
func (w worker) callMessage(e protocol.Envelope, r *Request) {
	unhandled := false
	ok := callback.Run(func() error {
		err := w.env.Calls.Message(w.env.Base, w.Session, e, r)
		switch {
		case errors.Is(err, ErrUnhandled):
			unhandled, err = true, nil
		case errors.Is(err, ErrReplyLater):
			r, err = nil, nil
		}
		return err
	}, func(err error) {
		r.fail(protocol.CodeInternal, "Internal error")
		w.callbackFailed(&w.env.Stats.CallbackErrors, "message", err, "event", e.Event[:min(len(e.Event), maxLoggedEvent)])
	})
	switch {
	case !ok:
	case unhandled:
		w.unhandled(e.Event, "the event has no handler", r)
	default:
		r.complete()
	}
}

// unhandled counts and logs a message that is dropped. r is the request in it, or nil.
func (w worker) unhandled(event, cause string, r *Request) {
	w.env.Stats.MessagesUnhandled.Add(1)
	w.Debug("message dropped", "event", event, "cause", cause)
	r.fail(protocol.CodeUnknownEvent, "Unknown event")
}

// maxLoggedEvent limits the length of an event's name in a log line, in bytes.
const maxLoggedEvent = 64
