package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/cluster"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
)

// ErrTooManyCalls is returned by CallAll if too many calls of this node are in progress.
var ErrTooManyCalls = cluster.ErrTooManyCalls

// CallAll runs the call c on all nodes, including this one, and returns the number of clients for
// which it succeeded; see cluster.Call. Without a broker it runs on this node only.
func (n *Node) CallAll(ctx context.Context, c protocol.Call) (clients int, err error) {
	if n.cluster != nil {
		clients, err = n.cluster.Call(ctx, c)
		if errors.Is(err, cluster.ErrClosed) {
			err = fmt.Errorf("%w: %w", ErrNotRunning, err)
		}
		return clients, err
	}
	if !n.hasClients() {
		return 0, ErrNotRunning
	}
	if err := c.Check(); err != nil {
		return 0, err
	}
	clients, err = localCalls{n.hub, n.env.Tickets}.handle(ctx, c)
	if err != nil {
		err = &cluster.Error{Failed: []cluster.Failure{{Node: n.id, Err: err}}}
	}
	return clients, err
}

// Nodes returns the nodes that share the broker, as far as this node knows them. This node comes
// first.
func (n *Node) Nodes() []cluster.Node {
	if n.cluster != nil {
		return n.cluster.Nodes()
	}
	return []cluster.Node{{ID: n.id, Name: n.cfg.Name, Since: n.created, Seen: time.Now()}}
}

// CountNodes returns the number of nodes that Nodes lists.
func (n *Node) CountNodes() int {
	if n.cluster == nil {
		return 1
	}
	return n.cluster.Count()
}

// brokerLost handles a loss that the broker reports. The lost messages may include messages between
// nodes.
func (n *Node) brokerLost(l broker.Loss) {
	if l.Channels == nil || slices.Contains(l.Channels, protocol.NodesChannel) || slices.Contains(l.Channels, protocol.NodeChannel(n.id)) {
		n.cluster.Lost()
	}
	if rest, ok := withoutHistory(n.history, l); ok {
		n.losses.report(rest)
	}
}

// localCalls handles calls for the clients of this node.
type localCalls struct {
	hub     *hub.Hub
	tickets *session.Tickets // nil if clients cannot resume
}

// handle runs the call, and returns the number of clients for which it succeeded.
func (l localCalls) handle(ctx context.Context, c protocol.Call) (clients int, err error) {
	t, ok := parseTarget(c.Type, c.Target)
	if !ok {
		return 0, fmt.Errorf("%w: %s: unknown target type", protocol.ErrMessage, c.Event)
	}
	switch c.Event {
	case protocol.CallCount:
		return l.hub.Count(t), nil
	case protocol.CallRevoke:
		l.revoke(t)
		return 0, nil
	case protocol.CallDisconnect:
		l.revoke(t)
		return l.forEach(t, func(s *session.Session) error {
			if !s.Close(c.Code, c.Reason) {
				return hub.ErrNotMember
			}
			return nil
		})
	case protocol.CallJoin:
		return l.forEach(t, func(s *session.Session) error { return s.Join(ctx, c.Rooms...) })
	case protocol.CallLeave:
		return l.forEach(t, func(s *session.Session) error {
			s.Leave(c.Rooms...)
			return nil
		})
	}
	return 0, fmt.Errorf("%w: unknown call %q", protocol.ErrMessage, c.Event)
}

// forEach calls do for all clients of the target, and returns the number of successes. A client
// that has disconnected meanwhile is not a failure. The error reports the number of failures and
// wraps the first.
func (l localCalls) forEach(t hub.Target, do func(*session.Session) error) (done int, err error) {
	failed := 0
	var first error
	for _, m := range l.hub.Members(nil, t) {
		switch err := do(session.Of(m)); {
		case err == nil:
			done++
		case !errors.Is(err, hub.ErrNotMember):
			if failed++; first == nil {
				first = err
			}
		}
	}
	if failed > 0 {
		return done, fmt.Errorf("%d clients failed, the first: %w", failed, first)
	}
	return done, nil
}

// parseTarget returns the target with a message's type and target name.
func parseTarget(typ protocol.MessageType, name string) (t hub.Target, ok bool) {
	for kind, known := range messageTypes {
		if typ == known {
			return hub.Target{Kind: hub.Kind(kind), Name: name}, true
		}
	}
	return t, false
}
