package node

import (
	"context"
	"errors"
	"time"

	"github.com/hearthws/hearth/internal/cluster"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ticket"
	"github.com/hearthws/hearth/protocol"
)

// Resume configures the tickets with which clients resume their sessions.
type Resume struct {
	Enabled  bool
	Keys     [][]byte      // the first seals, all open; none: a random one
	Lifetime time.Duration // of a ticket
}

var errCutOff = errors.New("the other servers cannot be asked about the ticket")

// newTickets makes the tickets of a node, or returns nil if clients cannot resume. Half of the
// largest message before authentication is for the ticket, and the rest for the positions of the
// client.
func newTickets(cfg Config) (*session.Tickets, error) {
	if !cfg.Resume.Enabled {
		return nil, nil
	}
	sealer, err := ticket.NewSealer(cfg.Resume.Keys, cfg.Resume.Lifetime, min(cfg.Limits.UnauthenticatedPayload/2, protocol.MaxTicket))
	if err != nil {
		return nil, err
	}
	register := ticket.NewRegister(cfg.Resume.Lifetime, ticket.DefaultMaxUsed, ticket.DefaultMaxRevoked)
	return &session.Tickets{Sealer: sealer, Register: register, Lifetime: cfg.Resume.Lifetime}, nil
}

// claimTicket asks all nodes whether the ticket may be used, and makes them close their connections
// of the client. A node that does not answer in time counts as gone, as it is after a crash. Where
// this node is cut off itself, no ticket is accepted.
func (n *Node) claimTicket(ctx context.Context, t *ticket.Ticket) error {
	if n.cluster == nil {
		_, err := n.env.Tickets.Claimed(t)
		return err
	}
	_, err := n.cluster.Call(ctx, protocol.Call{
		Event: protocol.CallResume, Type: protocol.TypeClient, Target: hub.ID(t.Client).String(), Generation: t.Generation, User: t.User, Issued: t.Issued,
	})
	var partial *cluster.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &partial):
		return err
	case partial.Silent():
		n.cfg.Log.Warn("client resumes although servers do not answer", "client", hub.ID(t.Client).String(), "error", err)
		return nil
	}
	for _, f := range partial.Failed {
		for _, known := range []error{ticket.ErrUsed, ticket.ErrRevoked} {
			if f.Err.Error() == known.Error() { // an error of another node is a text
				return known
			}
		}
	}
	return errors.Join(errCutOff, err)
}

// resume handles that a node resumes the session of a client.
func (l localCalls) resume(c protocol.Call) (closed int, err error) {
	if l.tickets == nil {
		return 0, nil // no client here has a ticket, or can use one
	}
	id, _ := hub.ParseID(c.Target) // Call.Check has parsed it
	return l.tickets.Claimed(&ticket.Ticket{Client: id, Generation: c.Generation, User: c.User, Issued: c.Issued})
}

// revoke rejects the tickets that the target has got until now.
func (l localCalls) revoke(t hub.Target) {
	if l.tickets == nil {
		return
	}
	if t.Kind == hub.User {
		l.tickets.Register.RevokeUser(t.Name)
	} else if id, ok := hub.ParseID(t.Name); ok {
		l.tickets.Register.RevokeClient(id)
	}
}
