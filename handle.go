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

// Handle makes f the handler of an event: it is called for each message of an authenticated client with that event, in
// place of Config.Message, with the data decoded by encoding/json into a T. Data that does not decode is answered with the
// ClientError `invalid_data`, and f is not called. Absent data, and null, give a zero T; unknown members are ignored, as
// by json.Unmarshal. With T Message, f gets the message itself.
//
// What Config says of its callbacks holds for f: it may block, messages of one client are handled one after the other,
// and an error is logged unless it is a ClientError, which is sent to the client.
//
// Handlers are usually set between New and Start, but may be set at any time, from any goroutine. An event that is empty,
// reserved by the protocol or has a handler already is a mistake in the program: Start returns it as an error, and it is
// logged.
func Handle[A, M, T any](s *Server[A, M], event string, f func(ctx context.Context, c *Client[M], data T) error) {
	s.handlers.set(event, func(ctx context.Context, c *Client[M], m Message) error {
		data, err := decoded[T](m)
		if err != nil {
			return err
		}
		return f(ctx, c, data)
	})
}

// HandleRequest is Handle for an event that is a request: the value that f returns is the reply to the message, see
// Client.Reply. If f returns a ClientError, or the data does not decode, the client gets that error with the id of the
// message. If f fails in another way, panics, or returns a value that cannot be encoded, the client gets the ClientError
// `internal`, and the failure is logged. A message without an id gets no reply; f is called all the same.
func HandleRequest[A, M, T, R any](s *Server[A, M], event string, f func(ctx context.Context, c *Client[M], data T) (R, error)) {
	s.handlers.set(event, func(ctx context.Context, c *Client[M], m Message) error {
		data, err := decoded[T](m)
		if err != nil {
			return err
		}
		return answer(c, m, func() (any, error) { return f(ctx, c, data) })
	})
}

// answer sends what f returns as the reply to m. A request that fails is answered as well, whatever the reason: a client
// that waits for a reply must not wait for ever.
func answer[M any](c *Client[M], m Message, f func() (any, error)) (err error) {
	var told *ClientError
	failed := true // also if f panics
	defer func() {
		if failed && m.ID != nil && !errors.As(err, &told) {
			// The failure itself is what the caller hears of. That the client has gone is no other one.
			_ = c.tell(&ClientError{Code: "internal", Message: "Internal error"}, m.ID)
		}
	}()
	reply, err := f()
	if err == nil && m.ID != nil {
		err = c.Reply(m, reply)
	}
	failed = err != nil && !errors.Is(err, ErrNotConnected)
	return err
}

func decoded[T any](m Message) (data T, err error) {
	if whole, ok := any(&data).(*Message); ok {
		*whole = m
		return data, nil
	}
	return data, m.Decode(&data)
}

// A handler takes the messages of one event.
type handler[M any] func(ctx context.Context, c *Client[M], m Message) error

// handlers are those that Handle and HandleRequest have set.
type handlers[M any] struct {
	log     *slog.Logger                          // set by New
	byEvent atomic.Pointer[map[string]handler[M]] // each map is never changed; nil: no handlers

	mu  sync.Mutex // guards err, and serialises writers of byEvent
	err error      // what was wrong with handlers
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

// check returns what was wrong with handlers.
func (h *handlers[M]) check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// handle calls the handler of the message's event, or otherwise if it has none. It returns session.ErrUnhandled if
// otherwise is nil, too.
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
