package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// Encode makes the message of an event; data is raw JSON, nil for none.
func Encode(event string, data json.RawMessage) *ws.Message {
	// The function can't fail: AppendEvent doesn't.
	msg, _ := ws.BuildMessage(eventSize(event, data), func(dst []byte) ([]byte, error) {
		return protocol.AppendEvent(dst, event, data), nil
	})
	return msg
}

// EncodeReply makes the message that replies to one of that event and id; data is raw JSON, nil for none.
func EncodeReply(event string, data, id json.RawMessage) *ws.Message {
	return ws.NewMessage(protocol.AppendReply(nil, event, data, id))
}

// EncodeClientError makes the error event of an application; id is that of the message that caused it, nil for none.
func EncodeClientError(e protocol.ClientError, id json.RawMessage) *ws.Message {
	return ws.NewMessage(protocol.AppendClientError(nil, e, id))
}

// eventSize is how long an event is as a message; less if its name has to be escaped.
func eventSize(event string, data json.RawMessage) int {
	return len(`{"event":"","data":}`) + len(event) + len(data)
}

// HubTarget converts a target for the hub. One that is of no type that has clients, such as the zero value, has no members.
func HubTarget(t protocol.Target) hub.Target {
	target, ok := parseTarget(t.Type(), t.Name())
	if !ok {
		return hub.Target{Kind: hub.None}
	}
	return target
}

// SendHere queues an event for the target's clients on this node. It never blocks. ErrNotRunning before Start and after
// Shutdown.
func (n *Node) SendHere(t protocol.Target, event string, data json.RawMessage) error {
	if !n.canSend.Load() {
		return ErrNotRunning
	}
	return n.hub.SendMade(HubTarget(t), func() *ws.Message { return Encode(event, data) }, t.Excluded())
}

// Publish queues an event for the target's clients here and passes it to the broker for the clients of other nodes. A failure
// of one of the two does not prevent the other; the error reports both. ErrNotRunning before Start and after Shutdown.
func (n *Node) Publish(ctx context.Context, t protocol.Target, event string, data json.RawMessage) error {
	if !n.canSend.Load() {
		return n.notRunningError()
	}
	err := n.SendHere(t, event, data)
	if n.cfg.Broker == nil {
		return err
	}
	// Copies: a broker keeps what it was given, and what a caller has sent is the caller's to change.
	m := protocol.Message{ServerID: n.id, Type: t.Type(), Target: t.Name(), Event: event, Data: bytes.Clone(data), Exclude: slices.Clone(t.Excluded())}
	if perr := n.cfg.Broker.Publish(ctx, m); perr != nil {
		return errors.Join(err, fmt.Errorf("publish to other servers: %w", perr))
	}
	return err
}

// notRunningError is why nothing is published before Start and after Shutdown.
func (n *Node) notRunningError() error {
	select {
	case <-n.stopping:
		if n.cfg.Broker != nil {
			return fmt.Errorf("%w: %w", ErrNotRunning, broker.ErrClosed)
		}
	default:
	}
	return ErrNotRunning
}

// messageTypes are the targets' kinds as messages between nodes name them.
var messageTypes = [...]protocol.MessageType{
	hub.All: protocol.TypeBroadcast, hub.Client: protocol.TypeClient, hub.User: protocol.TypeUser, hub.Room: protocol.TypeRoom,
}

// deliver takes a message of another node. It is the broker's.
func (n *Node) deliver(m protocol.Message) { n.deliverSeries([]protocol.Message{m}) }

// deliverAll takes messages of other nodes that have come together. It is the broker's. Those in a row for the same clients
// go out as one series: but for the bytes, that costs as much for all of them as for one.
func (n *Node) deliverAll(ms []protocol.Message) {
	for len(ms) > 0 {
		k := seriesLength(ms)
		n.deliverSeries(ms[:k])
		ms = ms[k:]
	}
}

// maxSeriesBytes bounds the payloads of a series, in bytes: a queue takes it as a whole, or not.
const maxSeriesBytes = 32 << 10

// seriesLength is how many of ms, from the first on, can go out as one.
func seriesLength(ms []protocol.Message) int {
	first := &ms[0]
	if first.Type > protocol.TypeUser || first.Exclude != nil {
		return 1
	}
	size := payloadSize(first)
	for i := range ms[1:] {
		m := &ms[1+i]
		if size += payloadSize(m); size > maxSeriesBytes || m.Type != first.Type || m.Target != first.Target || m.Exclude != nil {
			return 1 + i
		}
	}
	return len(ms)
}

// deliverSeries takes one message of another node, or several for the same clients.
func (n *Node) deliverSeries(ms []protocol.Message) {
	var err error
	first := &ms[0]
	if t, ok := parseTarget(first.Type, first.Target); ok {
		if err = n.hub.SendMade(t, func() *ws.Message { return encodeSeries(ms) }, first.Exclude); err != nil {
			n.reportOverflow(ms, err)
		}
	} else if first.Type == protocol.TypeNodes || first.Type == protocol.TypeNode {
		err = n.cluster.Deliver(*first)
	}
	if err != nil {
		n.cfg.Log.Warn("message of another node dropped", "error", err, "type", first.Type.String())
	}
}

// reportOverflow reports messages of other nodes for which the send queue had no room, as the broker reports those that it lost.
func (n *Node) reportOverflow(ms []protocol.Message, cause error) {
	n.env.Stats.DeliveriesLost.Add(uint64(len(ms)))
	now := time.Now()
	n.reportLoss(broker.Loss{Messages: uint64(len(ms)), Channels: []string{ms[0].Channel()}, Since: now, Until: now, Cause: cause})
}

// encodeSeries makes one message, or a series.
func encodeSeries(ms []protocol.Message) *ws.Message {
	if len(ms) == 1 {
		return Encode(ms[0].Event, ms[0].Data)
	}
	size := 0
	for i := range ms {
		size += payloadSize(&ms[i])
	}
	return ws.BuildSeries(len(ms), size, func(dst []byte, i int) []byte {
		return protocol.AppendEvent(dst, ms[i].Event, ms[i].Data)
	})
}

// payloadSize is how long the event of m will be.
func payloadSize(m *protocol.Message) int { return eventSize(m.Event, m.Data) }
