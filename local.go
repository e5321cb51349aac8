package hearth

import (
	"context"

	"github.com/hearthws/hearth/internal/node"
	"github.com/hearthws/hearth/internal/session"
)

// Local is one server without the others that share its broker: its sends reach the clients that
// are connected to this server, and its queries count only those. Server.Local returns it. Its
// methods are safe for concurrent use, and block only where their documentation says so.
type Local[A, M any] struct {
	s *Server[A, M]
}

// Local returns this server's own clients, without those of other servers.
func (s *Server[A, M]) Local() Local[A, M] { return Local[A, M]{s} }

// Client returns the client with that id. ok is false if it is not connected to this server.
func (l Local[A, M]) Client(id string) (c *Client[M], ok bool) {
	m := l.s.node.Hub().Client(id)
	if m == nil {
		return nil, false
	}
	return clientOf[M](session.Of(m)), true
}

// Clients returns the target's clients on this server, in no particular order. The caller may
// change the slice.
func (l Local[A, M]) Clients(t Target) []*Client[M] {
	members := l.s.node.Hub().Members(nil, node.HubTarget(t))
	clients := make([]*Client[M], len(members))
	for i, m := range members {
		clients[i] = clientOf[M](session.Of(m))
	}
	return clients
}

// Count returns the number of the target's clients on this server.
func (l Local[A, M]) Count(t Target) int { return l.s.node.Hub().Count(node.HubTarget(t)) }

// Rooms returns the names of the rooms that have members on this server, in no particular order,
// without the rooms of clients' own ids. The caller may change the slice.
func (l Local[A, M]) Rooms() []string { return l.s.node.Hub().Rooms(nil) }

// Pending returns the number of bytes that wait for the slowest of the target's clients on this
// server, including messages that no event loop has handled. Bytes that an event loop is handing to
// connections at this moment may be counted twice, so the result may be too large, but never too
// small. A client beyond Limits.BackpressureLimit loses messages.
func (l Local[A, M]) Pending(t Target) int { return l.s.node.Hub().Pending(node.HubTarget(t)) }

// WaitPending blocks until Pending(t) is at most limit bytes, so that a sender can keep the pace of
// its clients and lose no message. A limit of a quarter of Limits.BackpressureLimit keeps clients
// busy without loss. A negative limit counts as 0. It returns the error of ctx if ctx is done
// first.
func (l Local[A, M]) WaitPending(ctx context.Context, t Target, limit int) error {
	return wrap("wait for "+t.String(), l.s.node.Hub().WaitPending(ctx, node.HubTarget(t), max(0, limit)))
}
