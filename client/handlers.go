package client

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/hearthws/hearth/protocol"
)

// Message is an event that the server has sent.
type Message struct {
	Event string          // never empty
	Data  json.RawMessage // as it was sent; nil if there was none
	Room  string          // the room, if it has history and the client recovers it; empty otherwise
	// Position is the place of the message in the history of Room.
	Position protocol.Position
}

// Decode decodes the data into v, as json.Unmarshal does. Absent data counts as null.
func (m Message) Decode(v any) error {
	if err := json.Unmarshal(orNull(m.Data), v); err != nil {
		return fmt.Errorf("client: decode the data of %q: %w", m.Event, err)
	}
	return nil
}

func orNull(data json.RawMessage) json.RawMessage {
	if data == nil {
		return json.RawMessage("null")
	}
	return data
}

type handler struct{ f func(Message) }

// On calls f for each message of an event, with its data decoded into a T. If T is Message, f gets
// the whole message. An empty event stands for all events of the application, and for `resync` and
// errors that do not answer a request. A message whose data does not decode is logged, and f is not
// called. There may be several handlers for an event: they are called in the order of On. The
// returned function removes the handler. See the package comment for callbacks.
func On[T any](c *Client, event string, f func(T)) (off func()) {
	h := &handler{func(m Message) {
		var v T
		if p, ok := any(&v).(*Message); ok {
			*p = m
		} else if err := m.Decode(&v); err != nil {
			c.log.Warn("a message was not handled", "err", err)
			return
		}
		f(v)
	}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handlers[event] = append(c.handlers[event], h)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.handlers[event] = slices.DeleteFunc(slices.Clone(c.handlers[event]), func(other *handler) bool { return other == h })
	}
}

// handle calls the handlers of a message. The dispatcher calls it.
func (c *Client) handle(m Message) {
	c.mu.Lock()
	own, all := c.handlers[m.Event], c.handlers[""]
	c.mu.Unlock()
	for _, h := range own {
		h.f(m)
	}
	for _, h := range all {
		h.f(m)
	}
}
