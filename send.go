package hearth

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hearthws/hearth/protocol"
)

// Target says which clients a message is for. Make one with ToClient, ToUser, ToRoom or ToAll; ToRoom and ToAll may
// exclude clients: ToRoom("tea").Except(c.ID()). The zero Target is invalid. Servers and emitters share this type.
type Target = protocol.Target

// NoData is the data of an event that has none. (A nil in its place is JSON null.)
type NoData = protocol.NoData

// ToClient is the client with that id.
func ToClient(id string) Target { return protocol.ToClient(id) }

// ToUser is every client of that user. It has no exclusions.
func ToUser(id string) Target { return protocol.ToUser(id) }

// ToRoom is every member of that room.
func ToRoom(name string) Target { return protocol.ToRoom(name) }

// ToAll is every authenticated client.
func ToAll() Target { return protocol.ToAll() }

// A Sender sends events to clients. Server, Local and emitter.Emitter are Senders, so a function that takes one works in
// a server and in a worker alike.
//
// Send sends an event to the target's clients. The data may be anything that encoding/json can encode. A
// json.RawMessage passes through unchanged, digits and spaces included. A nil is null; NoData{} sends the event without
// data. It is an error if the event is empty or has a name of the protocol (protocol.CheckEvent), if the target is
// invalid (Target.Check), or if the data cannot be encoded. A target without clients is not an error.
//
// Messages that one goroutine sends arrive at each client in that order, whatever their targets are. Delivery is at most
// once. Safe for concurrent use.
type Sender interface {
	Send(ctx context.Context, t Target, event string, data any) error
}

// Send sends an event to the target's clients on all servers; see Sender for its arguments.
//
// It queues the event for the clients of this server and passes it to the broker for those of others. It does not block
// and does not wait for delivery, so it may be called from any callback. A failure on one of the two ways does not
// prevent the other. Errors: ErrQueueFull (clients of this server missed it), broker.ErrQueueFull or another error of
// the broker (clients of others missed it), ErrNotRunning before Start and after Shutdown.
func (s *Server[A, M]) Send(ctx context.Context, t Target, event string, data any) error {
	raw, err := encode(t, event, data)
	if err == nil {
		err = s.node.Publish(ctx, t, event, raw)
	}
	return sendError(event, t, err)
}

// Send sends an event to the target's clients on this server only; see Sender for its arguments. It does not block; it
// ignores ctx. Errors: ErrQueueFull, and ErrNotRunning before Start and after Shutdown.
func (l Local[A, M]) Send(_ context.Context, t Target, event string, data any) error {
	raw, err := encode(t, event, data)
	if err == nil {
		err = l.s.node.SendHere(t, event, raw)
	}
	return sendError(event, t, err)
}

// Destination returns the target that the Ignis helper's `send` chooses for a destination, for code that is ported from it:
// all clients for an empty one, the client with that id if it is connected to this server, and the room of that name
// otherwise. Prefer the explicit targets: an empty destination by mistake is a broadcast.
func (s *Server[A, M]) Destination(name string) Target {
	if name == "" {
		return ToAll()
	}
	if _, ok := s.Local().Client(name); ok {
		return ToClient(name)
	}
	return ToRoom(name)
}

// encode checks what is to be sent, and returns the data as JSON: nil for none.
func encode(t Target, event string, data any) (json.RawMessage, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	if err := protocol.CheckEvent(event); err != nil {
		return nil, err
	}
	return protocol.EncodeData(data)
}

func sendError(event string, t Target, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("hearth: send %q to %v: %w", event, t, err)
}
