package node

import (
	"context"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/history"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// A historyNode is a Node as its rooms with history see it.
type historyNode struct{ *Node }

// newHistory returns the rooms with history, or nil if the broker keeps none.
func newHistory(n *Node) *history.Rooms {
	h, ok := n.cfg.Broker.(broker.History)
	if !ok || !h.KeepsHistory() {
		return nil
	}
	hn := historyNode{n}
	return history.New(history.Config{
		History: h, Send: hn.send, Interrupt: hn.interrupt, Lost: n.losses.report, Log: n.cfg.Log,
	})
}

// hasHistory reports whether messages to the target get a position, so that they reach the clients
// of this node, too, through the broker.
func (n *Node) hasHistory(t protocol.MessageType, name string) bool {
	return n.history != nil && t == protocol.TypeRoom && n.history.Has(name)
}

// send sends messages of a room with history to its members on this node, up to the first that does
// not fit into the send queue of some of them: the error reports that. It returns how many messages
// it has sent, including that one and those in the same series.
func (n historyNode) send(room string, ms []protocol.Message) (sent int, err error) {
	t := hub.Target{Kind: hub.Room, Name: room}
	for sent < len(ms) && err == nil {
		series := ms[sent:]
		series = series[:seriesLength(series)]
		encode := func() *ws.Message { return encodeSeries(series).WithPositions(encodePositioned(series)) }
		if err = n.hub.SendFunc(t, encode, series[0].Exclude); err != nil {
			n.env.Stats.DeliveriesLost.Add(uint64(len(series)))
		}
		sent += len(series)
	}
	return sent, err
}

// encodePositioned makes the messages of a room with their positions.
func encodePositioned(ms []protocol.Message) *ws.Message {
	build := func(dst []byte, i int) []byte {
		dst = protocol.AppendEvent(dst, ms[i].Event, ms[i].Data)
		return protocol.AppendPosition(dst, ms[i].Target, ms[i].Position)
	}
	if len(ms) == 1 {
		return ws.NewMessage(build(nil, 0))
	}
	return ws.BuildSeries(len(ms), 0, build)
}

// interrupt takes the clients that get positions out of a room, because they have missed messages.
// It returns how many it has taken out.
func (n historyNode) interrupt(room string) (clients int) {
	for _, m := range n.hub.Members(nil, hub.Target{Kind: hub.Room, Name: room}) {
		if m.Positions && session.Interrupt(m, room) {
			clients++
		}
	}
	n.env.Stats.Interrupted.Add(uint64(clients))
	for range clients {
		n.cfg.Broker.Release(protocol.RoomChannel(room))
	}
	return clients
}

// withoutHistory returns the part of a loss that is not recovered from the history. ok is false if
// there is none.
func withoutHistory(rooms *history.Rooms, l broker.Loss) (rest broker.Loss, ok bool) {
	if rooms == nil {
		return l, true
	}
	others, ok := rooms.Lost(l.Channels)
	if len(others) != len(l.Channels) {
		l.Channels, l.Messages = others, 0
	}
	return l, ok
}

// ReadHistory returns a part of the history of a room. The error is ErrNotRunning, that of the
// broker, or that of HistoryPart.Err.
func (n *Node) ReadHistory(ctx context.Context, r broker.HistoryRequest) (broker.HistoryPart, error) {
	h, err := n.historyBroker(r.Room)
	if err != nil {
		return broker.HistoryPart{}, err
	}
	parts, err := h.ReadHistory(ctx, r)
	if err != nil {
		return broker.HistoryPart{}, err
	}
	return parts[0], parts[0].Err()
}

// RemoveHistory removes the history of a room.
func (n *Node) RemoveHistory(ctx context.Context, room string) error {
	h, err := n.historyBroker(room)
	if err != nil {
		return err
	}
	return h.RemoveHistory(ctx, room)
}

// historyBroker returns the broker if it keeps the history of the room.
func (n *Node) historyBroker(room string) (broker.History, error) {
	if !n.hasHistory(protocol.TypeRoom, room) {
		return nil, broker.ErrNoHistory
	}
	if !n.canSend.Load() {
		return nil, n.notRunningError()
	}
	h, _ := n.cfg.Broker.(broker.History)
	return h, nil
}

// HistoryStats returns the counters of the rooms with history. They are zero if no room has any.
func (n *Node) HistoryStats() *history.Stats {
	if n.history == nil {
		return &history.Stats{}
	}
	return n.history.Stats()
}
