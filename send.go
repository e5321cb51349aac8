package hearth

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/protocol"
)

// Target is where a message goes. Make one with ToClient, ToUser, ToRoom or ToAll; the zero Target is ToAll.
type Target struct{ t hub.Target }

// ToClient is the client with that id.
func ToClient(id string) Target { return Target{hub.Target{Kind: hub.Client, Name: id}} }

// ToUser is every client of that user.
func ToUser(id string) Target { return Target{hub.Target{Kind: hub.User, Name: id}} }

// ToRoom is every member of that room.
func ToRoom(name string) Target { return Target{hub.Target{Kind: hub.Room, Name: name}} }

// ToAll is every authenticated client.
func ToAll() Target { return Target{} }

// encode makes raw JSON of data. An empty event and absent data make a send do nothing (protocol §6).
func encode(event string, data any) (raw json.RawMessage, skip bool, err error) {
	if event == "" || data == nil {
		return nil, true, nil
	}
	raw, err = protocol.EncodeData(data)
	if err != nil {
		return nil, false, fmt.Errorf("send %q: %w", event, err)
	}
	return raw, raw == nil, nil // an empty json.RawMessage is no data either
}

// SendToClient queues an event for the client with that id on this node.
//
// Of all sends: data is anything that encoding/json can encode, or a json.RawMessage, which is passed through
// untouched, digits and spaces and all. An empty event, and data that is nil, make the send do nothing; null is
// json.RawMessage("null"). A target that is not there is no error. The error is that of encoding, ErrQueueFull, or
// ErrNotRunning before Start and after Shutdown; Disconnected callbacks of a shutdown may send.
// Sends never block, may be called from any goroutine and any callback, and what one goroutine sends to one client
// arrives in that order, whatever the targets were.
func (s *Server[A, M]) SendToClient(clientID, event string, data any) error {
	return s.sendHere(ToClient(clientID), event, data, nil)
}

// SendToUser queues an event for all clients of that user on this node.
func (s *Server[A, M]) SendToUser(userID, event string, data any) error {
	return s.sendHere(ToUser(userID), event, data, nil)
}

// SendToRoom queues an event for the members of that room on this node, but for the clients whose ids are excluded.
func (s *Server[A, M]) SendToRoom(room, event string, data any, exclude ...string) error {
	return s.sendHere(ToRoom(room), event, data, exclude)
}

// Broadcast queues an event for every authenticated client on this node, but for those whose ids are excluded.
func (s *Server[A, M]) Broadcast(event string, data any, exclude ...string) error {
	return s.sendHere(ToAll(), event, data, exclude)
}

func (s *Server[A, M]) sendHere(t Target, event string, data any, exclude []string) error {
	raw, skip, err := encode(event, data)
	if skip || err != nil {
		return err
	}
	return s.node.SendHere(t.t, event, raw, exclude)
}

// Publish queues an event for the target's clients on this node, then hands it to the broker for those on others.
// Exclusions count for rooms and everyone. It does not wait for other nodes; the error says what was not queued here
// (see SendToClient), or not accepted by the broker (broker.ErrQueueFull, broker.ErrClosed).
func (s *Server[A, M]) Publish(ctx context.Context, t Target, event string, data any, exclude ...string) error {
	raw, skip, err := encode(event, data)
	if skip || err != nil {
		return err
	}
	return s.node.Publish(ctx, t.t, event, raw, exclude)
}

// Send is Publish by destination (protocol §6): "" is everyone, the id of a client on this node is that client,
// anything else is a room, here and on other nodes.
func (s *Server[A, M]) Send(ctx context.Context, destination, event string, data any) error {
	raw, skip, err := encode(event, data)
	if skip || err != nil {
		return err
	}
	return s.node.Send(ctx, destination, event, raw)
}

// Pending is how many bytes the slowest of the target's clients on this node has not taken yet, those included that no
// event loop has got round to. It is never less than that; what an event loop is just handing to its clients' connections
// may count twice. A client past Config.BackpressureLimit loses messages.
func (s *Server[A, M]) Pending(t Target) int { return s.node.Hub().Pending(t.t) }

// WaitPending blocks until Pending(t) is at most limit: so a publisher that wants to lose nothing paces itself. A limit of
// a quarter of Config.BackpressureLimit keeps clients busy and loses nothing. It returns ctx's error when ctx is done
// first. A negative limit counts as 0.
func (s *Server[A, M]) WaitPending(ctx context.Context, t Target, limit int) error {
	return s.node.Hub().WaitPending(ctx, t.t, max(0, limit))
}
