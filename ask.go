package hearth

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hearthws/hearth/internal/node"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
)

// askTimeout is how long Ask and AskEach wait if their context has no deadline.
const askTimeout = 30 * time.Second

// An AnswerError is the error that a client has answered to a question of Ask or AskEach. Its texts
// are those of the client: at most 64 bytes of code and 1 KiB of message.
type AnswerError struct {
	Code    string // for programs; may be empty
	Message string // for people; may be empty
}

// Error returns the code and the message.
func (e *AnswerError) Error() string {
	return fmt.Sprintf("the client answered with an error: %q: %q", e.Code, e.Message)
}

// Ask asks a client a question, and returns its answer, decoded by encoding/json into an R. The
// client receives the event as the question (docs/protocol.md §13). Absent data in the answer
// counts as null.
//
// Ask blocks until the client has answered or disconnected, or until ctx is done, and for at most
// 30 seconds if ctx has no deadline. A callback of the same client may call it: answers are handled
// while callbacks of the client run, unless Limits.ClientQueue is exceeded. Meanwhile the client's
// other messages wait.
//
// Errors, wrapped: an *AnswerError if the client answers with an error; ErrCannotAsk if it has not
// requested the feature `ask`; ErrNotConnected; ErrTooManyQuestions; ErrQueueFull; the error of
// ctx, or context.DeadlineExceeded; an error of encoding/json, after which the client is not asked
// again.
func Ask[R, M any](ctx context.Context, c *Client[M], event string, data any) (R, error) {
	var answer R
	err := ErrNotConnected
	if c.s != nil {
		askErr := ask(ctx, []*session.Session{c.s}, event, data, func(a session.ClientAnswer) { answer, err = answerOf[R](a) })
		if askErr != nil {
			err = askErr
		}
	}
	if err != nil {
		return answer, fmt.Errorf("hearth: ask %q: %w", event, err)
	}
	return answer, nil
}

// AskEach asks the clients of a target that are connected to this server, and calls f for each of
// them, one at a time, on this goroutine, in the order of their answers. err is nil for an answer,
// and otherwise an error that Ask would return: ErrCannotAsk for clients without the feature `ask`.
//
// AskEach returns nil when f has been called for each client. It returns the error of ctx, or
// context.DeadlineExceeded, if clients have not answered in time: f was not called for these. See
// Ask for the time. It returns any other error before it has asked a client.
//
// The clients of other servers are not asked. A server waits for at most 65,536 answers at a time,
// and 64 of one client; ErrTooManyQuestions is the error of the clients beyond that.
func AskEach[R, A, M any](ctx context.Context, l Local[A, M], t Target, event string, data any, f func(c *Client[M], answer R, err error)) error {
	if err := t.Check(); err != nil {
		return fmt.Errorf("hearth: ask %q to %v: %w", event, t, err)
	}
	excluded := make(map[string]bool, len(t.Excluded()))
	for _, id := range t.Excluded() {
		excluded[id] = true
	}
	var sessions []*session.Session
	for _, m := range l.s.node.Hub().Members(nil, node.HubTarget(t)) {
		if s := session.Of(m); !excluded[s.ID()] {
			sessions = append(sessions, s)
		}
	}
	err := ask(ctx, sessions, event, data, func(a session.ClientAnswer) {
		answer, err := answerOf[R](a)
		f(clientOf[M](a.Session), answer, err)
	})
	if err != nil {
		return fmt.Errorf("hearth: ask %q to %v: %w", event, t, err)
	}
	return nil
}

// ask sends a question to sessions, and calls answered for each of them.
func ask(ctx context.Context, sessions []*session.Session, event string, data any, answered func(session.ClientAnswer)) error {
	if err := protocol.CheckEvent(event); err != nil {
		return err
	}
	raw, err := protocol.EncodeData(data)
	if err != nil {
		return err
	}
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, askTimeout)
		defer cancel()
	}
	return session.Ask(ctx, sessions, event, raw, answered)
}

// answerOf decodes an answer.
func answerOf[R any](a session.ClientAnswer) (answer R, err error) {
	switch {
	case a.Err != nil:
		return answer, a.Err
	case a.Refused != nil:
		return answer, &AnswerError{Code: a.Refused.Code, Message: a.Refused.Message}
	}
	data := a.Data
	if data == nil {
		data = json.RawMessage("null")
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return answer, fmt.Errorf("decode the answer: %w", err)
	}
	return answer, nil
}
