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

// Encode makes the message of an event. data is raw JSON; nil for none.
func Encode(event string, data json.RawMessage) *ws.Message {
	// BuildMessage returns only errors of the function, which has none.
	msg, _ := ws.BuildMessage(eventSize(event, data), func(dst []byte) ([]byte, error) {
		return protocol.AppendEvent(dst, event, data), nil
	})
	return msg
}

// EncodeReply makes the reply to the message with that event and id. data is raw JSON; nil for
// none.
func EncodeReply(event string, data, id json.RawMessage) *ws.Message {
	return ws.NewMessage(protocol.AppendReply(nil, event, data, id))
}

// EncodeClientError makes the error event for an error of the application. id is the id of the
// message that caused it; nil for none.
func EncodeClientError(e protocol.ClientError, id json.RawMessage) *ws.Message {
	return ws.NewMessage(protocol.AppendClientError(nil, e, id))
}

// eventSize returns the size of an event's message. The message is larger if the name has to be
// escaped.
func eventSize(event string, data json.RawMessage) int {
	return len(`{"event":"","data":}`) + len(event) + len(data)
}

// HubTarget converts a target for the hub. A target whose type has no clients, such as the zero
// value, becomes one without members.
func HubTarget(t protocol.Target) hub.Target {
	target, ok := parseTarget(t.Type(), t.Name())
	if !ok {
		return hub.Target{Kind: hub.None}
	}
	return target
}

// SendHere queues an event for the target's clients on this node. It never blocks. It returns
// ErrNotRunning before Start and after Shutdown.
func (n *Node) SendHere(t protocol.Target, event string, data json.RawMessage) error {
	if !n.canSend.Load() {
		return ErrNotRunning
	}
	return n.hub.SendFunc(HubTarget(t), func() *ws.Message { return Encode(event, data) }, t.Excluded())
}

// Publish queues an event for the target's clients on this node, and passes it to the broker for
// the clients of other nodes. If one of the two fails, the other still happens; the error reports
// both. A message to a room with history comes back from the broker, in the order of the room. It
// returns ErrNotRunning before Start and after Shutdown.
func (n *Node) Publish(ctx context.Context, t protocol.Target, event string, data json.RawMessage) error {
	if !n.canSend.Load() {
		return n.notRunningError()
	}
	var err error
	if !n.hasHistory(t.Type(), t.Name()) {
		err = n.SendHere(t, event, data)
	}
	if n.cfg.Broker == nil {
		return err
	}
	// The copies are needed because the broker keeps the message, and the caller may change its
	// own.
	m := protocol.Message{ServerID: n.id, Type: t.Type(), Target: t.Name(), Event: event, Data: bytes.Clone(data), Exclude: slices.Clone(t.Excluded())}
	if perr := n.cfg.Broker.Publish(ctx, m); perr != nil {
		return errors.Join(err, fmt.Errorf("publish to other servers: %w", perr))
	}
	return err
}

// notRunningError returns the error of Publish before Start and after Shutdown.
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

// messageTypes are the message types between nodes, by the kind of their target.
var messageTypes = [...]protocol.MessageType{
	hub.All: protocol.TypeBroadcast, hub.Client: protocol.TypeClient, hub.User: protocol.TypeUser, hub.Room: protocol.TypeRoom,
}

// deliver delivers a message of another node. The broker calls it.
func (n *Node) deliver(m protocol.Message) { n.deliverSeries([]protocol.Message{m}) }

// deliverAll delivers messages of other nodes that arrived together. The broker calls it.
// Consecutive messages for the same clients are sent as one series, which costs as much as one
// message, apart from the bytes.
func (n *Node) deliverAll(ms []protocol.Message) {
	for len(ms) > 0 {
		k := seriesLength(ms)
		n.deliverSeries(ms[:k])
		ms = ms[k:]
	}
}

// maxSeriesBytes is the maximum size of the payloads of a series. A queue takes all of a series, or
// none of it.
const maxSeriesBytes = 32 << 10

// seriesLength returns how many of ms, from the first on, can be sent as one series.
func seriesLength(ms []protocol.Message) int {
	first := &ms[0]
	if first.Type > protocol.TypeUser || first.Exclude != nil {
		return 1
	}
	size := payloadSize(first)
	for i := range ms[1:] {
		m := &ms[1+i]
		if size += payloadSize(m); size > maxSeriesBytes || m.Type != first.Type || m.Target != first.Target || m.Exclude != nil ||
			(m.Position == protocol.Position{}) != (first.Position == protocol.Position{}) {
			return 1 + i
		}
	}
	return len(ms)
}

// deliverSeries delivers one message of another node, or several for the same clients.
func (n *Node) deliverSeries(ms []protocol.Message) {
	var err error
	first := &ms[0]
	if n.hasHistory(first.Type, first.Target) {
		if first.Position != (protocol.Position{}) {
			n.history.Deliver(ms)
			return
		}
		n.env.Stats.Unpositioned.Add(uint64(len(ms)))
	}
	if t, ok := parseTarget(first.Type, first.Target); ok {
		if err = n.hub.SendFunc(t, func() *ws.Message { return encodeSeries(ms) }, first.Exclude); err != nil {
			n.reportOverflow(ms, err)
		}
	} else if first.Type == protocol.TypeNodes || first.Type == protocol.TypeNode {
		err = n.cluster.Deliver(*first)
	}
	if err != nil {
		n.cfg.Log.Warn("message of another node dropped", "error", err, "type", first.Type.String())
	}
}

// reportOverflow reports messages of other nodes that did not fit into the send queue, like the
// broker reports the messages that it lost.
func (n *Node) reportOverflow(ms []protocol.Message, cause error) {
	n.env.Stats.DeliveriesLost.Add(uint64(len(ms)))
	now := time.Now()
	n.losses.report(broker.Loss{Messages: uint64(len(ms)), Channels: []string{ms[0].Channel()}, Since: now, Until: now, Cause: cause})
}

// encodeSeries makes the message of one event, or the series of several.
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

// payloadSize returns the size of the event of m; see eventSize.
func payloadSize(m *protocol.Message) int { return eventSize(m.Event, m.Data) }
