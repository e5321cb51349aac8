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
	Since time.Time // when this server first received an announcement of it
	Seen  time.Time // when this server last received an announcement of it
}

// A ClusterError lists the servers that are missing from the result of a call to all servers
// (Server.Count, Disconnect, Join, Leave). The result is correct for all other servers. Find it
// with errors.As. errors.Is finds its causes, such as context.DeadlineExceeded and broker.ErrDown.
type ClusterError struct {
	// Missing has the ids of the known servers that did not answer in time. The call is not
	// repeated for them: call again when they are back. A server whose answer was lost may have
	// done its part.
	Missing []string

	// Failed has the servers on which the call failed for some of their clients, ordered by id.
	Failed []NodeFailure

	// Cause says why answers are missing: the error of the context or of the broker. It is nil if
	// none is missing.
	Cause error
}

// A NodeFailure describes a failure on one server.
type NodeFailure struct {
	NodeID string // the id of the server
	Err    error  // the error that it reported
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

// Count returns the number of the target's clients on all servers that share the broker, including
// this one.
//
// Count, Disconnect, Join and Leave ask all servers. They block until every known server has
// answered or ctx is done, and for at most two seconds if ctx has no deadline. Without a broker, or
// without other servers, they return at once. A *ClusterError comes with a result that is correct
// for the servers that answered. A server that was killed causes such an error until the others
// forget it, which takes at most 23 seconds. The first call waits for it; later calls return the
// error at once until that server is heard again. Servers of other implementations on the same
// Redis do not take part. Errors: ErrTooManyCalls, and ErrNotRunning before Start and once Shutdown
// has closed the clients. In a callback, they delay only the messages of that client.
func (s *Server[A, M]) Count(ctx context.Context, t Target) (int, error) {
	return s.call(ctx, protocol.CallCount, t, protocol.Call{})
}

// Disconnect closes the target's clients on all servers, and returns their number. The target must
// be a client or a user. See Client.Disconnect for code and reason, and Count for blocking and
// errors. It does not wait for the connections to end. It revokes the tickets of the target, see
// RevokeTickets.
//
// It finds authenticated clients only. A client whose Authenticate is still running is not found,
// and connects if Authenticate accepts it. To log a user out, first revoke the session, then call
// Disconnect, and check the session again in Config.Connected.
func (s *Server[A, M]) Disconnect(ctx context.Context, t Target, code int, reason string) (int, error) {
	return s.call(ctx, protocol.CallDisconnect, t, protocol.Call{Code: code, Reason: reason})
}

// RevokeTickets makes the tickets useless that the target's clients have got until now, on all
// servers (Config.Resume). The target must be a client or a user. Connected clients stay:
// Disconnect closes them, too, and revokes their tickets itself. Since the clocks of servers
// differ, tickets that clients get in the next 30 s may be rejected as well. Those of a client
// target are rejected for at least Resume.Lifetime from now. A server that starts later learns of a
// revocation when it asks the others about a ticket. See Count for blocking and errors.
func (s *Server[A, M]) RevokeTickets(ctx context.Context, t Target) error {
	_, err := s.call(ctx, protocol.CallRevoke, t, protocol.Call{})
	return err
}

// Join makes the target's clients members of the rooms, on all servers, and returns the number of
// clients for which it did. The target must be a client or a user. It does not call ValidateRooms.
// It takes at most 128 rooms. Clients that the user connects later do not join. See Count for
// blocking and errors.
func (s *Server[A, M]) Join(ctx context.Context, t Target, rooms ...string) (int, error) {
	return s.call(ctx, protocol.CallJoin, t, protocol.Call{Rooms: rooms})
}

// Leave removes the target's clients from the rooms, on all servers, and returns the number of the
// target's clients. The target must be a client or a user. It takes at most 128 rooms. See Count
// for blocking and errors.
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

// Nodes returns the servers that share the broker, as far as this one knows: itself first, the
// others ordered by id. The list is local: a server that just joined may be missing, and a server
// that was killed stays for at most 23 seconds. It does not block. The caller may change the slice.
func (s *Server[A, M]) Nodes() []NodeInfo {
	nodes := s.node.Nodes()
	infos := make([]NodeInfo, len(nodes))
	for i, n := range nodes {
		infos[i] = NodeInfo(n)
	}
	return infos
}
