package hearth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hearthws/hearth/internal/cluster"
	"github.com/hearthws/hearth/protocol"
)

// NodeInfo describes one of the servers that share a broker.
type NodeInfo struct {
	ID    string    // the id of the server, a random UUID; see Server.ID
	Name  string    // the server's Config.Name
	Since time.Time // when this server first heard of it
	Seen  time.Time // when this server last heard of it
}

// A ClusterError says which servers are missing from the result of a call to all servers (Server.Count, Disconnect, Join,
// Leave). The result is right for all others. Find it with errors.As; errors.Is finds its causes, such as
// context.DeadlineExceeded and broker.ErrDown.
type ClusterError struct {
	// Missing are the ids of the servers that were known and did not answer in time. Nothing is done for them later: call
	// again when they are back.
	Missing []string

	// Failed are the servers that could not do it for all of their clients, in the order of their ids.
	Failed []NodeFailure

	// Cause is why answers are missing: the error of the context or of the broker. Nil if none is missing.
	Cause error
}

// A NodeFailure says what went wrong on one server.
type NodeFailure struct {
	NodeID string // the id of the server
	Err    error  // what it reported
}

// Error describes the first few of the failures.
func (e *ClusterError) Error() string {
	const most = 4
	var parts []string
	if n := len(e.Missing); n > 0 {
		parts = append(parts, fmt.Sprintf("no answer from %d servers (%s)", n, strings.Join(e.Missing[:min(n, most)], ", ")))
	}
	if e.Cause != nil {
		parts = append(parts, e.Cause.Error())
	}
	for _, f := range e.Failed[:min(len(e.Failed), most)] {
		parts = append(parts, fmt.Sprintf("server %s: %v", f.NodeID, f.Err))
	}
	return strings.Join(parts, "; ")
}

// Unwrap returns Cause and the errors of Failed.
func (e *ClusterError) Unwrap() []error {
	var errs []error
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	for _, f := range e.Failed {
		errs = append(errs, f.Err)
	}
	return errs
}

// Count returns how many clients the target has on all servers that share the broker, this one included.
//
// Count, Disconnect, Join and Leave ask all servers. They block until every server that is known has answered or ctx is
// done, and for at most two seconds if ctx has no deadline. Without a broker, or alone, they answer at once. A
// *ClusterError comes with a result that is right for the servers that answered. A server that was killed is such an
// error until it is forgotten, about 20 seconds later; only the first Count waits for it, later ones return the error at
// once until the server is heard again. Servers of other implementations on the same Redis do not take
// part. ErrNotRunning before Start and after Shutdown has begun. A callback that calls them holds up its own client only.
func (s *Server[A, M]) Count(ctx context.Context, t Target) (int, error) {
	return s.call(ctx, protocol.CallCount, t, protocol.Call{})
}

// Disconnect closes the target's clients on all servers, and returns how many those were. The target must be a client or
// a user. See Client.Disconnect for code and reason, and Count for errors. It does not wait for the connections to end.
//
// It finds authenticated clients. One whose Authenticate is still running is not found, and connects if that accepts it: to
// log a user out, first revoke the session, then call Disconnect, and look at the session again in Config.Connected.
func (s *Server[A, M]) Disconnect(ctx context.Context, t Target, code int, reason string) (int, error) {
	return s.call(ctx, protocol.CallDisconnect, t, protocol.Call{Code: code, Reason: reason})
}

// Join makes the target's clients members of the rooms, on all servers, and returns how many clients it did so for. The
// target must be a client or a user. ValidateRooms is not asked. At most 128 rooms at a time. Clients that the user
// connects later do not join. See Count for errors.
func (s *Server[A, M]) Join(ctx context.Context, t Target, rooms ...string) (int, error) {
	return s.call(ctx, protocol.CallJoin, t, protocol.Call{Rooms: rooms})
}

// Leave removes the target's clients from the rooms, on all servers, and returns how many clients the target has. The
// target must be a client or a user. At most 128 rooms at a time. See Count for errors.
func (s *Server[A, M]) Leave(ctx context.Context, t Target, rooms ...string) (int, error) {
	return s.call(ctx, protocol.CallLeave, t, protocol.Call{Rooms: rooms})
}

func (s *Server[A, M]) call(ctx context.Context, event string, t Target, c protocol.Call) (int, error) {
	err := t.Check()
	if typ := t.Type(); err == nil && event != protocol.CallCount && typ != protocol.TypeClient && typ != protocol.TypeUser {
		err = fmt.Errorf("%w: it can be a client or a user", protocol.ErrTarget)
	}
	if err == nil && event == protocol.CallDisconnect {
		err = protocol.CheckCloseCode(c.Code)
	}
	n := 0
	if err == nil {
		c.Event, c.Type, c.Target = event, t.Type(), t.Name()
		n, err = s.node.CallAll(ctx, c)
	}
	var partial *cluster.Error
	if errors.As(err, &partial) {
		err = clusterError(partial)
	}
	if err != nil {
		return n, fmt.Errorf("hearth: %s %v: %w", event, t, err)
	}
	return n, nil
}

func clusterError(e *cluster.Error) *ClusterError {
	c := &ClusterError{Missing: e.Missing, Cause: e.Cause}
	for _, f := range e.Failed {
		c.Failed = append(c.Failed, NodeFailure{NodeID: f.Node, Err: f.Err})
	}
	return c
}

// Nodes returns the servers that share the broker, as far as this one knows: itself first, the others in the order of
// their ids. It does not ask them: a server that has just joined may be missing, and a server that was killed stays for
// about 20 seconds. The slice is the caller's.
func (s *Server[A, M]) Nodes() []NodeInfo {
	nodes := s.node.Nodes()
	infos := make([]NodeInfo, len(nodes))
	for i, n := range nodes {
		infos[i] = NodeInfo(n)
	}
	return infos
}
