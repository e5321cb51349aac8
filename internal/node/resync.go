package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

const (
	// resyncTimeout is how long telling all clients may wait for the event loops. Without a flood it takes milliseconds.
	resyncTimeout = 30 * time.Second

	// maxSharedBytes is how many bytes of messages are kept, for the next client with the same rooms.
	maxSharedBytes = 8 << 20
)

// newLossNotifiers are those who want to know what the broker has missed: the log, the application and the clients, each at its
// own pace.
func (n *Node) newLossNotifiers() []*lossNotifier {
	readers := []*lossNotifier{{notify: n.logLoss, pause: lossLogPause, stopping: n.stopping}}
	if call := n.cfg.BrokerLost; call != nil {
		readers = append(readers, &lossNotifier{stopping: n.stopping, notify: func(l broker.Loss) {
			n.env.Guard("broker lost", func(ctx context.Context) error {
				call(ctx, l)
				return nil
			})
		}})
	}
	if n.cfg.Resync {
		r := &lossNotifier{pause: resyncPause, stopping: n.stopping}
		r.notify = func(l broker.Loss) {
			if untold := n.resync(l); untold > 0 && n.Running() {
				r.add(l) // clients that have been told already are told again, after the pause
			}
		}
		readers = append(readers, r)
	}
	return readers
}

// brokerLost takes a report of the broker. Messages between nodes may be among what is missing.
func (n *Node) brokerLost(l broker.Loss) {
	if l.Channels == nil || slices.Contains(l.Channels, protocol.NodesChannel) || slices.Contains(l.Channels, protocol.NodeChannel(n.id)) {
		n.cluster.Lost()
	}
	n.reportLoss(l)
}

// reportLoss takes a report of messages of other nodes that may be missing: from the broker, and from delivery on this node. It never
// blocks: the readers get the report on goroutines of their own.
func (n *Node) reportLoss(l broker.Loss) {
	n.env.Stats.BrokerLosses.Add(1)
	n.env.Stats.BrokerLost.Add(l.Messages)
	for _, r := range n.losses {
		r.add(l)
	}
}

func (n *Node) logLoss(l broker.Loss) {
	args := []any{"since", l.Since, "until", l.Until, "cause", l.Cause}
	if l.Messages > 0 {
		args = append(args, "messages", l.Messages)
	}
	if l.Channels != nil {
		args = append(args, "channels", len(l.Channels))
	}
	n.cfg.Log.Warn("messages of other nodes may be missing", args...)
}

// waitLosses waits until everyone has been told, when the broker is closed. The error is ctx's, when a callback takes
// longer than that and does not notice the end of its own context.
func (n *Node) waitLosses(ctx context.Context) error {
	told := make(chan struct{})
	go func() { // ends with the last call; whoever leaves before that has been told by an error
		for _, r := range n.losses {
			r.wait()
		}
		close(told)
	}()
	select {
	case <-told:
		return nil
	case <-ctx.Done():
		n.cancel()
	}
	select {
	case <-told:
		return nil
	case <-time.After(grace):
		return fmt.Errorf("the callback about losses is still running: %w", ctx.Err())
	}
}

// resync tells each client which of its rooms may have missed something (protocol §9), and returns how many clients it could not
// tell. Clients for which the report is the same share one message: a hundred thousand clients in the same few rooms need one.
func (n *Node) resync(l broker.Loss) (untold int) {
	ctx, cancel := context.WithTimeout(n.env.Base, resyncTimeout)
	defer cancel()
	concerned := affectedBy(l.Channels)
	shared := make(map[string]*ws.Message) // by payload
	kept := 0
	var payload []byte
	for _, m := range n.hub.Members(nil, hub.Target{Kind: hub.All}) {
		s := session.Of(m)
		if s.ConnectedAt().After(l.Until) {
			continue // it has not been there
		}
		r, ok := concerned.report(n.hub, m)
		if !ok {
			continue
		}
		r.Since, r.Until = l.Since, l.Until
		payload = protocol.AppendResync(payload[:0], r)
		msg := shared[string(payload)]
		if msg == nil {
			msg = ws.NewMessage(payload)
			if kept += 2 * len(payload); kept > maxSharedBytes {
				clear(shared)
				kept = 2 * len(payload)
			}
			shared[string(payload)] = msg
		}
		if err := n.sendBlocking(ctx, s, msg); err == nil {
			n.env.Stats.Resyncs.Add(1)
		} else if !errors.Is(err, hub.ErrNotMember) {
			untold++
		}
	}
	if untold > 0 {
		n.cfg.Log.Warn("clients could not be told to resync: the send queue is full", "clients", untold)
	}
	return untold
}

// sendBlocking waits for room in the queue of the client's loop.
func (n *Node) sendBlocking(ctx context.Context, s *session.Session, msg *ws.Message) error {
	for {
		err := s.Send(msg)
		if !errors.Is(err, hub.ErrQueueFull) {
			return err
		}
		limit := max(n.cfg.Limits.SendQueue/2, n.cfg.Limits.BackpressureLimit)
		if err := n.hub.WaitPending(ctx, hub.Target{Kind: hub.Client, Name: s.ID()}, limit); err != nil {
			return err
		}
	}
}

// A affected is whom a loss may concern, by channel.
type affected struct {
	all       bool
	broadcast bool
	names     [len(messageTypes)]map[string]bool // by the kind of target
}

func affectedBy(channels []string) affected {
	if channels == nil {
		return affected{all: true, broadcast: true}
	}
	var c affected
	for _, channel := range channels {
		t, name, ok := protocol.ParseChannel(channel)
		kind := slices.Index(messageTypes[:], t)
		switch {
		case !ok || kind < 0:
		case t == protocol.TypeBroadcast:
			c.broadcast = true
		case c.names[kind] == nil:
			c.names[kind] = map[string]bool{name: true}
		default:
			c.names[kind][name] = true
		}
	}
	return c
}

func (c *affected) includes(kind hub.Kind, name string) bool { return c.all || c.names[kind][name] }

// report is what the loss is for one client; ok is false when it is none.
func (c *affected) report(h *hub.Hub, m *hub.Member) (r protocol.Resync, ok bool) {
	r.Broadcast = c.broadcast
	own := m.ID()
	r.Client = c.includes(hub.Client, own)
	if user := h.User(m); user != "" {
		r.User = c.includes(hub.User, user)
	}
	for _, name := range h.RoomsOf(m) {
		switch {
		case !c.includes(hub.Room, name):
		case name == own:
			r.Client = true // the room that is named by its id: another name for the client
		default:
			r.Rooms = append(r.Rooms, name)
		}
	}
	slices.Sort(r.Rooms) // so that equal sets are equal
	return r, len(r.Rooms) > 0 || r.Broadcast || r.User || r.Client
}
