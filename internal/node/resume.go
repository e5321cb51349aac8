package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/cluster"
	"github.com/hearthws/hearth/internal/fifo"
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
	Grace    time.Duration // 0: none
}

var errCutOff = errors.New("the other servers cannot be asked about the ticket")

// newTickets makes the tickets of a node, or returns nil if clients cannot resume. Half of the
// largest message before authentication is for the ticket, and the rest for the positions of the
// client.
func newTickets(cfg Config, clk *clock.Clock) (*session.Tickets, error) {
	if !cfg.Resume.Enabled {
		return nil, nil
	}
	sealer, err := ticket.NewSealer(cfg.Resume.Keys, cfg.Resume.Lifetime, min(cfg.Limits.UnauthenticatedPayload/2, protocol.MaxTicket))
	if err != nil {
		return nil, err
	}
	register := ticket.NewRegister(cfg.Resume.Lifetime, ticket.DefaultMaxUsed, ticket.DefaultMaxRevoked)
	return &session.Tickets{
		Sealer: sealer, Register: register, Lifetime: cfg.Resume.Lifetime, Grace: cfg.Resume.Grace, MaxAbsent: cfg.Limits.MaxConnections, Clock: clk,
	}, nil
}

// maxClaimBytes bounds the users in the claims of one call.
const maxClaimBytes = 64 << 10

// claimCallTimeout is how long a node waits for the others to decide about tickets.
const claimCallTimeout = time.Second

// claims decides about tickets, together with the other nodes. Tickets that are used while a call
// is in progress are claimed together by the next call. So the number of calls does not grow with
// the number of clients that resume.
type claims struct {
	// Set when made, then read-only.
	base    context.Context // of the calls
	cluster *cluster.Cluster
	log     *slog.Logger

	goroutine sync.WaitGroup // runs run; added to under mu

	mu      sync.Mutex // guards the fields below; no other lock is taken under it
	waiting fifo.Queue[*claim]
	running bool // the goroutine exists
}

// A claim is a ticket that waits for the decision.
type claim struct {
	ctx    context.Context // of the client that waits for the decision
	ticket *ticket.Ticket
	result chan error // holds one
	taken  bool       // for a call; guarded by claims.mu
}

// newClaims makes the claims of a node, and connects them to its tickets. It returns nil if there
// are no tickets, or no other nodes.
func newClaims(n *Node) *claims {
	t := n.env.Tickets
	switch {
	case t == nil:
		return nil
	case n.cluster == nil:
		t.Claim = func(_ context.Context, tk *ticket.Ticket) error {
			_, err := t.Claimed(tk)
			return err
		}
		return nil
	}
	c := &claims{base: n.env.Base, cluster: n.cluster, log: n.cfg.Log}
	t.Claim = c.claim
	return c
}

// claim asks all nodes whether the ticket may be used, and makes them close their connections of
// the client. It blocks until they have answered, or ctx is done. If ctx ends while they are asked,
// it waits for their answers nevertheless, since the session may belong to the caller.
func (c *claims) claim(ctx context.Context, t *ticket.Ticket) error {
	own := &claim{ctx: ctx, ticket: t, result: make(chan error, 1)}
	c.mu.Lock()
	c.waiting.Push(own)
	if !c.running {
		c.running = true
		c.goroutine.Go(c.run) // ends when no claim waits; Shutdown waits for it
	}
	c.mu.Unlock()
	select {
	case err := <-own.result:
		return err
	case <-ctx.Done():
	}
	c.mu.Lock()
	taken := own.taken
	c.mu.Unlock()
	if !taken { // next drops it
		return errors.Join(errCutOff, ctx.Err())
	}
	return <-own.result // within claimCallTimeout
}

// run makes calls until no claim waits.
func (c *claims) run() {
	for batch := c.next(); batch != nil; batch = c.next() {
		for i, err := range c.decide(batch) {
			batch[i].result <- err
		}
	}
}

// next takes the claims for the next call. It drops those whose clients do not wait any more: their
// tickets stay unused. If there are none left it returns nil, and the goroutine counts as ended.
func (c *claims) next() (batch []*claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for size := 0; c.waiting.Len() > 0 && len(batch) < protocol.MaxClaims && size < maxClaimBytes; {
		next := c.waiting.Pop()
		if next.ctx.Err() != nil {
			continue
		}
		next.taken = true
		size += len(next.ticket.User)
		batch = append(batch, next)
	}
	c.running = len(batch) > 0
	return batch
}

// decide returns for each claim why it is rejected, or nil. A node that does not answer in time
// counts as gone, as it is after a crash. If this node is cut off itself, it rejects all claims.
func (c *claims) decide(batch []*claim) []error {
	ctx, cancel := context.WithTimeout(c.base, claimCallTimeout)
	defer cancel()
	list := make([]protocol.Claim, len(batch))
	for i, b := range batch {
		list[i] = protocol.Claim{
			Client: hub.ID(b.ticket.Client).String(), Generation: b.ticket.Generation, User: b.ticket.User, Issued: b.ticket.Issued.UTC(),
		}
	}
	results := make([]error, len(batch))
	rejected, err := c.cluster.Claim(ctx, list)
	var partial *cluster.Error
	switch {
	case err == nil:
	case errors.As(err, &partial) && partial.Silent() && c.base.Err() == nil:
		c.log.Warn("clients resume although servers do not answer", "clients", len(batch), "error", err)
	default:
		for i := range results {
			results[i] = errors.Join(errCutOff, err)
		}
	}
	for _, r := range rejected {
		if r.Claim >= 0 && r.Claim < len(results) {
			results[r.Claim] = claimError(r.Reason)
		}
	}
	return results
}

// claimError returns the error for the reason of a rejected claim.
func claimError(reason string) error {
	switch reason {
	case protocol.ClaimUsed:
		return ticket.ErrUsed
	case protocol.ClaimRevoked:
		return ticket.ErrRevoked
	}
	return ticket.ErrFull
}

// claim decides about the claims of a node, perhaps this one. It returns the number of clients that
// it has closed here.
func (l localCalls) claim(claims []protocol.Claim) (closed int, rejected []protocol.RejectedClaim) {
	if l.tickets == nil {
		return 0, nil // no client here has a ticket, or can use one
	}
	for i, c := range claims {
		id, _ := hub.ParseID(c.Client) // Call.Check has parsed it
		n, err := l.tickets.Claimed(&ticket.Ticket{Client: id, Generation: c.Generation, User: c.User, Issued: c.Issued})
		closed += n
		switch {
		case err == nil:
		case errors.Is(err, ticket.ErrUsed):
			rejected = append(rejected, protocol.RejectedClaim{Claim: i, Reason: protocol.ClaimUsed})
		case errors.Is(err, ticket.ErrRevoked):
			rejected = append(rejected, protocol.RejectedClaim{Claim: i, Reason: protocol.ClaimRevoked})
		default:
			rejected = append(rejected, protocol.RejectedClaim{Claim: i, Reason: protocol.ClaimUnknown})
		}
	}
	return closed, rejected
}

// revoke rejects the tickets that the target has got until now.
func (l localCalls) revoke(t hub.Target) {
	if l.tickets == nil {
		return
	}
	if t.Kind == hub.User {
		l.tickets.RevokeUser(t.Name)
	} else if id, ok := hub.ParseID(t.Name); ok {
		l.tickets.RevokeClient(id)
	}
}
