package node

import (
	"context"
	"time"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
)

const (
	// drainStep is the time between two steps in which clients are closed.
	drainStep = 10 * time.Millisecond

	// drainRate is how many clients per second are closed at least, so that a server with few
	// clients does not take long.
	drainRate = 100
)

// A drainer ends the sessions of a node that shuts down.
type drainer struct {
	env *session.Env // read-only
}

// closeClients ends the sessions of all clients. It closes those that have not authenticated at
// once. It closes the others at an even rate within Timeouts.Drain, so that not all of them connect
// to other nodes at the same moment. It returns early when ctx is done.
func (d drainer) closeClients(ctx context.Context) {
	for _, s := range d.env.Lobby.Sessions() {
		s.Shutdown(false)
	}
	members := d.env.Hub.Members(nil, hub.Target{Kind: hub.All})
	period := min(d.env.Timeouts.Drain, time.Second*time.Duration(len(members))/drainRate)
	ticker, stop := newTicker(min(period, drainStep))
	defer stop()
	for begun, closed := time.Now(), 0; ; {
		due := len(members)
		if elapsed := time.Since(begun); elapsed < period {
			due = 1 + int(float64(len(members))*(float64(elapsed)/float64(period)))
		}
		for ; closed < min(due, len(members)); closed++ {
			session.Of(members[closed]).Shutdown(false)
		}
		if closed == len(members) || d.env.Hub.Count(hub.Target{Kind: hub.All}) == 0 {
			return
		}
		select {
		case <-ticker:
		case <-ctx.Done():
			return
		}
	}
}

// awaitReturns waits until the absent clients have resumed their sessions on other nodes, so that
// their last callbacks are told. It waits for Resume.Grace at most, which is how long a client can
// be absent, and for half of the time until the deadline of ctx, so that the callbacks of the other
// clients can run.
func (d drainer) awaitReturns(ctx context.Context, others bool) {
	t := d.env.Tickets
	if t == nil || t.Grace == 0 || !others {
		return
	}
	wait := t.Grace
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/2)
	}
	ticker, stop := newTicker(drainStep)
	defer stop()
	for begun := time.Now(); time.Since(begun) < wait; {
		// A client is not closed yet while its messages are handled.
		if t.Absent() == 0 && d.env.Hub.Count(hub.Target{Kind: hub.All}) == 0 {
			return
		}
		select {
		case <-ticker:
		case <-ctx.Done():
			return
		}
	}
}

// closeAbsences ends the absences of clients.
func (d drainer) closeAbsences() {
	if d.env.Tickets != nil {
		d.env.Tickets.CloseAbsences()
	}
}

// wait waits for the sessions to end, and for the workers.
func (d drainer) wait() {
	d.env.Running.Wait()
	d.env.Pool.Wait()
}

// closeRest closes the clients that are left at once. The loops get a short time, until drained is
// closed, to send the close frames.
func (d drainer) closeRest(drained <-chan struct{}) {
	remaining := d.env.Lobby.Sessions()
	for _, m := range d.env.Hub.Members(nil, hub.Target{Kind: hub.All}) {
		remaining = append(remaining, session.Of(m))
	}
	if len(remaining) == 0 {
		return
	}
	for _, s := range remaining {
		s.Shutdown(true)
	}
	select {
	case <-drained:
	case <-time.After(grace):
	}
}
