package hearth

import (
	"context"
	"fmt"

	"github.com/hearthws/hearth/internal/cluster"
	"github.com/hearthws/hearth/internal/node"
	"github.com/hearthws/hearth/protocol"
)

// NodeInfo is one of the servers that share a broker.
type NodeInfo = cluster.Node

// ClusterError tells what is missing from the result of a call to all nodes: which have not answered in time, and which could not
// do all that was asked. The result is right but for that. Find it with errors.As; errors.Is finds its causes, such as
// context.DeadlineExceeded and broker.ErrDown.
type ClusterError = cluster.Error

// NodeFailure is what went wrong on one node.
type NodeFailure = cluster.Failure

// ErrTooManyCalls is returned by calls to all nodes when 1024 of this node are under way.
var ErrTooManyCalls = cluster.ErrTooManyCalls

// CountEverywhere is how many clients the target has, on all nodes that share the broker, this one included.
//
// Of all calls to all nodes (CountEverywhere, DisconnectEverywhere, JoinUser, LeaveUser): they block until every Hearth
// node that is known has answered, or ctx is done; without a deadline in ctx, for two seconds at most. Without a broker, or alone,
// they answer at once. A *ClusterError comes with a result that is right for the nodes that have answered; a node that was
// killed is such an error until it is forgotten, some 20 seconds later. A count that has waited for a node in vain is the
// last one to do so: the next ones return the error at once, until the node is heard again. Servers of other implementations on the same
// Redis do not take part. ErrNotRunning before Start and from Shutdown on. Any goroutine; within a callback they hold up that client.
func (s *Server[A, M]) CountEverywhere(ctx context.Context, t Target) (int, error) {
	return s.everywhere(ctx, "count", node.Call(protocol.CallCount, t.t))
}

// DisconnectEverywhere closes the clients of a target, which must be ToClient or ToUser, on whichever node they are; see
// Client.Disconnect for code and reason. It returns how many those were. They are told to go, not waited for.
func (s *Server[A, M]) DisconnectEverywhere(ctx context.Context, t Target, code int, reason string) (int, error) {
	c := node.Call(protocol.CallDisconnect, t.t)
	c.Code, c.Reason = code, reason
	return s.everywhere(ctx, "disconnect", c)
}

// JoinUser makes all clients of a user members of rooms, on whichever node they are, and returns how many it did so for. As for
// JoinRoom, names must be good, and ValidateRooms is not asked; at most 128 rooms at a time. Clients that the user
// connects later are not in them.
func (s *Server[A, M]) JoinUser(ctx context.Context, userID string, rooms ...string) (int, error) {
	c := node.Call(protocol.CallJoin, ToUser(userID).t)
	c.Rooms = rooms
	return s.everywhere(ctx, "join user", c)
}

// LeaveUser takes all clients of a user out of rooms, on whichever node they are, and returns how many clients that user has. At
// most 128 rooms at a time.
func (s *Server[A, M]) LeaveUser(ctx context.Context, userID string, rooms ...string) (int, error) {
	c := node.Call(protocol.CallLeave, ToUser(userID).t)
	c.Rooms = rooms
	return s.everywhere(ctx, "leave user", c)
}

func (s *Server[A, M]) everywhere(ctx context.Context, what string, c protocol.Call) (int, error) {
	n, err := s.node.Everywhere(ctx, c)
	if err != nil {
		return n, fmt.Errorf("%s everywhere: %w", what, err)
	}
	return n, nil
}

// Nodes are the Hearth servers that share the broker, as far as this one knows: itself first, the others in the order of
// their ids. It does not ask: who has just come may take a moment, and who was killed is forgotten after some 20 seconds.
func (s *Server[A, M]) Nodes() []NodeInfo { return s.node.Nodes() }
