package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// Encode makes the message of an event; data is raw JSON, nil for none.
func Encode(event string, data json.RawMessage) *ws.Message {
	// The function can't fail: AppendEvent doesn't.
	msg, _ := ws.BuildMessage(len(event)+len(data)+24, func(dst []byte) ([]byte, error) {
		return protocol.AppendEvent(dst, event, data), nil
	})
	return msg
}

// SendHere queues an event for the target's clients on this node. It never blocks.
func (n *Node) SendHere(t hub.Target, event string, data json.RawMessage, exclude []string) error {
	return n.hub.SendMade(t, func() *ws.Message { return Encode(event, data) }, exclude)
}

// Publish queues an event for the target's clients here and hands it to the broker for those elsewhere. What fails on
// one way does not keep it from the other; the error tells of both.
func (n *Node) Publish(ctx context.Context, t hub.Target, event string, data json.RawMessage, exclude []string) error {
	err := n.SendHere(t, event, data, exclude)
	if n.cfg.Broker == nil {
		return err
	}
	// Copies: a broker keeps what it was given, and what a caller has sent is the caller's to change.
	m := protocol.Message{ServerID: n.id, Type: types[t.Kind], Target: t.Name, Event: event, Data: bytes.Clone(data)}
	if t.Kind == hub.All || t.Kind == hub.Room {
		m.Exclude = slices.Clone(exclude)
	}
	if perr := n.cfg.Broker.Publish(ctx, m); perr != nil {
		return errors.Join(err, fmt.Errorf("publish to other nodes: %w", perr))
	}
	return err
}

// Send is Publish by destination (protocol §6): nothing is everyone, a client that is here is that client, and anything
// else is a room, whether it has members here or not.
func (n *Node) Send(ctx context.Context, destination, event string, data json.RawMessage) error {
	t := hub.Target{Kind: hub.Room, Name: destination}
	switch {
	case destination == "":
		t = hub.Target{Kind: hub.All}
	case n.hub.Client(destination) != nil:
		t.Kind = hub.Client
	}
	return n.Publish(ctx, t, event, data, nil)
}

// types are the targets' kinds as messages between nodes name them.
var types = [...]protocol.MessageType{
	hub.All: protocol.TypeBroadcast, hub.Client: protocol.TypeClient, hub.User: protocol.TypeUser, hub.Room: protocol.TypeRoom,
}

// deliver takes a message of another node. It is the broker's.
func (n *Node) deliver(m protocol.Message) {
	var err error
	if t, ok := targetOf(m.Type, m.Target); ok {
		if err = n.SendHere(t, m.Event, m.Data, m.Exclude); err != nil {
			n.env.Stats.DeliveriesLost.Add(1)
		}
	} else if m.Type == protocol.TypeNodes || m.Type == protocol.TypeNode {
		err = n.cluster.Deliver(m)
	}
	if err == nil {
		return
	}
	if skipped, due := n.drops.Due(); due {
		n.cfg.Log.Warn("message of another node dropped", "error", err, "type", m.Type.String(), "others", skipped)
	}
}
