package client

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hearthws/hearth/protocol"
)

// request is a message that expects an answer.
type request struct {
	id   string
	done chan answer // of capacity 1

	canceled bool // the caller does not wait anymore; guarded by Client.mu
}

type answer struct {
	data json.RawMessage
	err  error
}

// end gives the request its answer. Only the first counts.
func (r *request) end(a answer) {
	select {
	case r.done <- a:
	default:
	}
}

// Send queues an event for the server. The data is encoded as JSON: a json.RawMessage is sent
// unchanged, a nil is null, and protocol.NoData{} sends the event without data. If the client is
// not connected, the message is sent when it is again, after its rooms were joined.
//
// Send returns nil when the message is queued. It does not tell whether the message arrives: if the
// connection is lost at that time, it may be lost. Use Request to know. If the queue is full, Send
// does what Config.QueueFull says; ctx limits only this wait. Errors: ErrQueueFull, ErrTooLarge,
// ErrClosed, the error of ctx, or an invalid event or data.
func (c *Client) Send(ctx context.Context, event string, data any) error {
	text, err := encode(event, data, "")
	if err == nil {
		err = c.out.add(ctx, item{text: text})
	}
	if err != nil {
		return fmt.Errorf("client: send %q: %w", event, err)
	}
	return nil
}

// Request sends an event as Send does, waits for the answer, and decodes its data into a T. The
// answer of a handler without a reply has no data, which leaves the T zero. It blocks until the
// answer arrives or ctx is done. Set a deadline: a handler of the server may take for ever, and a
// server without the extension may not answer.
//
// A request that was not sent when the connection is lost is sent on the next one. A request that
// was sent is not repeated: it ends with ErrDisconnected, because the server may have handled it.
// Errors: an *Error if the server answers with an error, ErrDisconnected, those of Send, the error
// of ctx, or that of decoding.
func Request[T any](ctx context.Context, c *Client, event string, data any) (T, error) {
	var v T
	raw, err := c.request(ctx, event, data)
	if err == nil && raw != nil {
		err = json.Unmarshal(raw, &v)
	}
	if err != nil {
		return v, fmt.Errorf("client: request %q: %w", event, err)
	}
	return v, nil
}

func (c *Client) request(ctx context.Context, event string, data any) (json.RawMessage, error) {
	c.mu.Lock()
	r := &request{id: c.nextIDLocked(), done: make(chan answer, 1)}
	c.mu.Unlock()
	text, err := encode(event, data, r.id)
	if err == nil {
		err = c.out.add(ctx, item{text: text, req: r})
	}
	if err != nil {
		return nil, err
	}
	select {
	case a := <-r.done:
		return a.data, a.err
	case <-ctx.Done():
		c.out.remove(r)
		c.mu.Lock()
		r.canceled = true
		delete(c.pending, r.id)
		c.mu.Unlock()
		return nil, ctx.Err()
	}
}

// encode returns the text of a message.
func encode(event string, data any, id string) ([]byte, error) {
	if err := protocol.CheckEvent(event); err != nil {
		return nil, err
	}
	raw, err := protocol.EncodeData(data)
	if err != nil {
		return nil, err
	}
	if id != "" {
		quoted := []byte(`"` + id + `"`)
		return protocol.AppendReply(nil, event, raw, quoted), nil
	}
	return protocol.AppendEvent(nil, event, raw), nil
}
