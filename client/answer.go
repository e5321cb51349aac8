package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/hearthws/hearth/protocol"
)

// questions are the questions of the server.
type questions struct {
	// byEvent are the functions of Answer. Guarded by Client.mu.
	byEvent map[string]func(context.Context, Message) (any, error)
	running int // functions that run; guarded by Client.mu
}

// maxQuestions is how many questions a client answers at a time.
const maxQuestions = 64

// Answer makes the client answer the questions of an event, which the server asks with hearth.Ask.
// f gets the data of the question, decoded into a Q, and its result is the answer. If it returns an
// *Error, wrapped or not, the server gets its code and message. Any other error is logged, and the
// server gets the code `internal`. If the data does not decode, it gets `invalid_data`, and for an
// event without an f `unknown_event`.
//
// Unlike the callbacks, each f runs on a goroutine of its own, and may take its time: a client
// answers at most 64 questions at a time, and further ones with `busy`. ctx ends with the
// connection, since an answer is useless then. Close does not wait for f. A later f for the same
// event replaces the earlier one, and nil removes it.
func Answer[Q, R any](c *Client, event string, f func(ctx context.Context, question Q) (R, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f == nil {
		delete(c.questions.byEvent, event)
		return
	}
	c.questions.byEvent[event] = func(ctx context.Context, m Message) (any, error) {
		var q Q
		if err := m.Decode(&q); err != nil {
			return nil, fmt.Errorf("%w: %w", &Error{Code: "invalid_data", Message: "Invalid data"}, err)
		}
		return f(ctx, q)
	}
}

// clientAnswer is the data of an answer.
type clientAnswer struct {
	Ask   json.RawMessage `json:"ask"`
	Data  json.RawMessage `json:"data,omitempty"`
	Error *answerError    `json:"error,omitempty"`
}

type answerError struct {
	Message string `json:"message,omitempty"`
	Code    string `json:"code,omitempty"`
}

// askedLocked answers a question, on a goroutine that ends with f. Nothing waits for it.
func (qs *questions) askedLocked(n *conn, data json.RawMessage) {
	c := n.c
	var q struct {
		Ask   json.RawMessage
		Event string
		Data  json.RawMessage
	}
	if err := json.Unmarshal(orNull(data), &q); err != nil || q.Ask == nil {
		c.log.Warn("a question without a number was ignored", "err", err)
		return
	}
	f := qs.byEvent[q.Event]
	switch {
	case f == nil:
		n.answerLocked(clientAnswer{Ask: q.Ask, Error: &answerError{Code: protocol.CodeUnknownEvent}})
	case qs.running >= maxQuestions:
		n.answerLocked(clientAnswer{Ask: q.Ask, Error: &answerError{Code: protocol.CodeBusy}})
	default:
		qs.running++
		go func() {
			a := answerTo(n.ctx, c.log, f, Message{Event: q.Event, Data: q.Data})
			a.Ask = q.Ask
			c.mu.Lock()
			defer c.mu.Unlock()
			qs.running--
			n.answerLocked(a)
		}()
	}
}

// answerTo calls f, and returns the answer without its number.
func answerTo(ctx context.Context, log *slog.Logger, f func(context.Context, Message) (any, error), m Message) (a clientAnswer) {
	v, err := f(ctx, m)
	if err == nil {
		a.Data, err = protocol.EncodeData(v)
	}
	if err == nil {
		return a
	}
	if e, ok := errors.AsType[*Error](err); ok {
		a.Error = &answerError{e.Message, e.Code}
		return a
	}
	log.Warn("a question was not answered", "event", m.Event, "err", err)
	a.Error = &answerError{Code: protocol.CodeInternal}
	return a
}

// answerLocked sends an answer, if the connection is still there.
func (n *conn) answerLocked(a clientAnswer) {
	c := n.c
	if c.conn != n {
		return
	}
	raw, err := json.Marshal(a)
	if err != nil { // EncodeData has checked the data
		c.log.Error("a question was not answered", "err", err)
		return
	}
	c.controlLocked(protocol.AppendEvent(nil, protocol.EventAnswer, raw))
}
