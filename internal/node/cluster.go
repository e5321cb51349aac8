package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hearthws/hearth/internal/cluster"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
)

// CallAll has all nodes do what c says, this one included, and returns for how many clients they did; see cluster.Call.
// Without a broker there is only this one.
func (n *Node) CallAll(ctx context.Context, c protocol.Call) (clients int, err error) {
	if n.cluster != nil {
		clients, err = n.cluster.Call(ctx, c)
		if errors.Is(err, cluster.ErrClosed) {
			err = fmt.Errorf("%w: %w", ErrNotRunning, err)
		}
		return clients, err
	}
	if !n.Running() {
		return 0, ErrNotRunning
	}
	if err := c.Check(); err != nil {
		return 0, err
	}
	clients, err = n.handleCall(ctx, c)
	if err != nil {
		err = &cluster.Error{Failed: []cluster.Failure{{Node: n.id, Err: err}}}
	}
	return clients, err
}

// ErrTooManyCalls is returned by Everywhere if too many calls of this node are in progress.
var ErrTooManyCalls = cluster.ErrTooManyCalls

// Nodes are all that share the broker, as far as this one knows, itself first.
func (n *Node) Nodes() []cluster.Node {
	if n.cluster != nil {
		return n.cluster.Nodes()
	}
	return []cluster.Node{{ID: n.id, Name: n.cfg.Name, Since: n.created, Seen: time.Now()}}
}

// CountNodes is how many Nodes there are.
func (n *Node) CountNodes() int {
	if n.cluster == nil {
		return 1
	}
	return n.cluster.Count()
}

// handleCall does what a call asks, for the clients of this node.
func (n *Node) handleCall(ctx context.Context, c protocol.Call) (clients int, err error) {
	t, ok := parseTarget(c.Type, c.Target)
	if !ok {
		return 0, fmt.Errorf("%w: %s: unknown target type", protocol.ErrMessage, c.Event)
	}
	switch c.Event {
	case protocol.CallCount:
		return n.hub.Count(t), nil
	case protocol.CallDisconnect:
		return n.forEach(t, func(s *session.Session) error {
			if !s.Close(c.Code, c.Reason) {
				return hub.ErrNotMember
			}
			return nil
		})
	case protocol.CallJoin:
		return n.forEach(t, func(s *session.Session) error { return s.Join(ctx, c.Rooms...) })
	case protocol.CallLeave:
		return n.forEach(t, func(s *session.Session) error {
			s.Leave(c.Rooms...)
			return nil
		})
	}
	return 0, fmt.Errorf("%w: unknown call %q", protocol.ErrMessage, c.Event)
}

// forEach does something to all clients of the target, and counts those with which it succeeded. Who has gone meanwhile is no
// failure; of others the error tells how many there were, and what was wrong with the first.
func (n *Node) forEach(t hub.Target, do func(*session.Session) error) (done int, err error) {
	failed := 0
	var first error
	for _, m := range n.hub.Members(nil, t) {
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

// parseTarget is the target that a message's type and target name.
func parseTarget(typ protocol.MessageType, name string) (t hub.Target, ok bool) {
	for kind, known := range messageTypes {
		if typ == known {
			return hub.Target{Kind: hub.Kind(kind), Name: name}, true
		}
	}
	return t, false
}
