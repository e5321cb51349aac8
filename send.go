package hearth

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hearthws/hearth/protocol"
)

// Target selects the clients for a message. Create one with ToClient, ToUser, ToRoom or ToAll;
// ToRoom and ToAll may exclude clients: ToRoom("tea").Except(c.ID()). The zero Target is invalid.
// Servers and emitters share this type.
type Target = protocol.Target

// NoData is the data of an event without data. (A nil is JSON null.)
type NoData = protocol.NoData

// ToClient returns the target for the client with that id.
func ToClient(id string) Target { return protocol.ToClient(id) }

// ToUser returns the target for every client of that user. It cannot exclude clients.
func ToUser(id string) Target { return protocol.ToUser(id) }

// ToRoom returns the target for every member of that room.
func ToRoom(name string) Target { return protocol.ToRoom(name) }

// ToAll returns the target for every authenticated client.
func ToAll() Target { return protocol.ToAll() }

// A Sender sends events to clients. Server, Local and emitter.Emitter are Senders, so a function
// that takes one works in a server and in a worker.
//
// Send sends an event to the target's clients. The data may be any value that encoding/json can
// encode. A json.RawMessage is sent unchanged, including digits and spaces. A nil is null; NoData{}
// sends the event without data. It is an error if the event is empty or has a name of the protocol
// (protocol.CheckEvent), if the target is invalid (Target.Check), or if the data cannot be encoded.
// A target without clients is not an error.
//
// Messages that one goroutine sends arrive at each client in order, whatever their targets are,
// with one exception: a message to a room with history (HistoryRule) may arrive after later
// messages to other targets. Delivery is at most once. Safe for concurrent use.
type Sender interface {
	Send(ctx context.Context, t Target, event string, data any) error
}

// Send sends an event to the target's clients on all servers; see Sender for its arguments.
//
// It queues the event for the clients of this server, and gives it to the broker for those of other
// servers. It does not block and does not wait for delivery, so any callback may call it. A failure
// of one of the two does not prevent the other, so a retry can deliver the event twice to the rest.
// An event for a room with history takes the way through the broker only: after an error it is not
// sent.
// Errors: ErrQueueFull (some clients of this server missed it), broker.ErrQueueFull or another
// error of the broker (clients of other servers missed it), and ErrNotRunning before Start and
// after Shutdown (not sent).
func (s *Server[A, M]) Send(ctx context.Context, t Target, event string, data any) error {
	raw, err := encode(t, event, data)
	if err == nil {
		err = s.node.Publish(ctx, t, event, raw)
	}
	return sendError(event, t, err)
}

// Send sends an event to the target's clients on this server only; see Sender for its arguments. It
// does not block, and ignores ctx. Errors: ErrQueueFull, and ErrNotRunning before Start and after
// Shutdown.
func (l Local[A, M]) Send(_ context.Context, t Target, event string, data any) error {
	raw, err := encode(t, event, data)
	if err == nil {
		err = l.s.node.SendHere(t, event, raw)
	}
	return sendError(event, t, err)
}

// Destination returns the target that the Ignis helper's `send` chooses for a destination, for code
// that is ported from it: all clients for an empty destination, the client with that id if it is
// connected to this server, and otherwise the room of that name. Prefer the explicit targets: an
// empty destination by mistake is a broadcast.
func (s *Server[A, M]) Destination(name string) Target {
	if name == "" {
		return ToAll()
	}
	if _, ok := s.Local().Client(name); ok {
		return ToClient(name)
	}
	return ToRoom(name)
}

// encode checks the event and the target, and returns the data as JSON, or nil for no data.
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
