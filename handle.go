package hearth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
)

// Handle registers f as the handler of an event. f is called for each message of an authenticated
// client with that event, in place of Config.Message. The data is decoded by encoding/json into a
// T. If that fails, the client receives the ClientError `invalid_data`, and f is not called. Absent
// data and null give a zero T. Unknown members are ignored, as by json.Unmarshal. With T Message, f
// receives the message itself.
//
// The rules for the callbacks of Config apply to f: it may block, and the messages of one client
// are handled one at a time. A ClientError is sent to the client. Any other error is logged; if the
// message has an id, the client receives the ClientError `internal` with that id. The same holds if
// f panics.
//
// A client with the extension (docs/protocol.md §13) gets exactly one answer to each message with
// an id. If f returns nil and has not called Client.Reply, the server answers that the message was
// handled. See Client.Reply and ErrReplyLater.
//
// Handlers are usually set between New and Start, but may be set at any time, on any goroutine. An
// event that is empty, reserved by the protocol or has a handler already is a mistake in the
// program: it is logged, and Start returns it as an error.
func Handle[A, M, T any](s *Server[A, M], event string, f func(ctx context.Context, c *Client[M], data T) error) {
	setHandler(s, event, func(ctx context.Context, c *Client[M], _ Message, data T) error { return f(ctx, c, data) })
}

// HandleRequest is Handle for an event that is a request: the value that f returns is sent as the
// reply to the message, see Client.Reply. NoData{} is an empty reply, and a nil slice is null. A
// value that cannot be encoded counts as an error of f. A message without an id gets no reply, but
// f is called.
func HandleRequest[A, M, T, R any](s *Server[A, M], event string, f func(ctx context.Context, c *Client[M], data T) (R, error)) {
	setHandler(s, event, func(ctx context.Context, c *Client[M], m Message, data T) error {
		reply, err := f(ctx, c, data)
		if err != nil || m.ID == nil {
			return err
		}
		return c.Reply(m, reply)
	})
}

// setHandler makes f the handler of an event. f gets the message and its decoded data.
func setHandler[A, M, T any](s *Server[A, M], event string, f func(ctx context.Context, c *Client[M], m Message, data T) error) {
	s.handlers.set(event, func(ctx context.Context, c *Client[M], m Message) error {
		data, err := decoded[T](m)
		if err != nil {
			return err
		}
		return answerFailure(c, m, func() error { return f(ctx, c, m, data) })
	})
}

// answerFailure calls f, which handles m. If m has an id and f fails or panics, the client receives
// an error with that id, so that it does not wait for a reply. The session does so for clients with
// the extension.
func answerFailure[M any](c *Client[M], m Message, f func() error) (err error) {
	if m.request != nil {
		return f()
	}
	failed := true // also if f panics
	defer func() {
		var told *ClientError
		if failed && m.ID != nil && !errors.As(err, &told) {
			// The caller reports the failure. If the client has disconnected, that is not a second
			// failure.
			_ = c.tell(&ClientError{Code: protocol.CodeInternal, Message: "Internal error"}, m.ID)
		}
	}()
	err = f()
	failed = err != nil && !errors.Is(err, ErrNotConnected) && !errors.Is(err, ErrReplyLater)
	return err
}

func decoded[T any](m Message) (data T, err error) {
	if whole, ok := any(&data).(*Message); ok {
		*whole = m
		return data, nil
	}
	return data, m.Decode(&data)
}

// A handler handles the messages of one event.
type handler[M any] func(ctx context.Context, c *Client[M], m Message) error

// handlers holds the handlers set by Handle and HandleRequest.
type handlers[M any] struct {
	log     *slog.Logger                          // set by New
	byEvent atomic.Pointer[map[string]handler[M]] // the maps are immutable; nil: no handlers

	mu  sync.Mutex // guards err, and serialises writers of byEvent
	err error      // the mistakes in handlers
}

func (h *handlers[M]) set(event string, f handler[M]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := protocol.CheckEvent(event)
	byEvent := make(map[string]handler[M])
	if old := h.byEvent.Load(); old != nil {
		byEvent = maps.Clone(*old)
	}
	if byEvent[event] != nil {
		err = errors.New("the event has a handler already")
	}
	if err != nil {
		err = fmt.Errorf("handle %q: %w", event, err)
		h.err = errors.Join(h.err, err)
		h.log.Error("handler was not set", "event", event, "error", err)
		return
	}
	byEvent[event] = f
	h.byEvent.Store(&byEvent)
}

// check returns the mistakes in handlers.
func (h *handlers[M]) check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// handle calls the handler of the message's event, or otherwise if there is none. If otherwise is
// nil too, it returns session.ErrUnhandled.
func (h *handlers[M]) handle(ctx context.Context, c *Client[M], m Message, otherwise handler[M]) error {
	if byEvent := h.byEvent.Load(); byEvent != nil {
		if f := (*byEvent)[m.Event]; f != nil {
			return f(ctx, c, m)
		}
	}
	if otherwise == nil {
		return session.ErrUnhandled
	}
	return otherwise(ctx, c, m)
}
