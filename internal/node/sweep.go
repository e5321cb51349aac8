package node

import (
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
)

// idleSweeps is how often each client is checked within Timeouts.Idle. More sweeps cost an idle
// server more processor time; with fewer, more clients get a ping earlier than necessary.
const idleSweeps = 16

// sweeper checks the authenticated clients for timeouts at intervals. One goroutine serves all of
// them, since a timer for each would cost memory for every idle client. The lobby checks the
// clients that have not authenticated.
type sweeper struct {
	// Set when made, then read-only.
	env  *session.Env
	stop <-chan struct{} // closed to end run
}

// run sweeps until stop is closed.
func (s *sweeper) run() {
	var members []*hub.Member
	each := func(check func(*session.Session, clock.Instant)) {
		now := s.env.Clock.Now()
		members = s.env.Hub.Members(members[:0], hub.Target{Kind: hub.All})
		for _, m := range members {
			check(session.Of(m), now)
		}
		clear(members)
	}
	heartbeat, stop := newTicker(s.env.Timeouts.HeartbeatInterval)
	defer stop()
	idleInterval := s.env.Timeouts.Idle / idleSweeps
	idle, stop := newTicker(idleInterval)
	defer stop()
	for {
		select {
		case <-heartbeat:
			each((*session.Session).CheckHeartbeat)
		case <-idle:
			each(func(client *session.Session, now clock.Instant) { client.CheckIdle(now, idleInterval) })
		case <-s.stop:
			return
		}
	}
}

// newTicker returns the channel of a ticker, and the function that stops it. With d of 0 the
// channel is nil and never delivers.
func newTicker(d time.Duration) (<-chan time.Time, func()) {
	if d <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(d)
	return t.C, t.Stop
}
