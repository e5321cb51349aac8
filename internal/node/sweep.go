package node

import (
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
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
			if client := session.Of(m); !client.Paused() { // it is not read from
				check(client, now)
			}
		}
		clear(members)
	}
	heartbeat, stop := newTicker(s.env.Timeouts.HeartbeatInterval)
	defer stop()
	idle, stop := newTicker(s.env.Timeouts.Idle / idleSweeps)
	defer stop()
	for {
		select {
		case <-heartbeat:
			each(s.checkHeartbeat)
		case <-idle:
			each(s.checkIdle)
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

// checkHeartbeat closes a client that has sent no message for too long (protocol §8).
func (s *sweeper) checkHeartbeat(client *session.Session, now clock.Instant) {
	client.Backpressured() // notices when the client has caught up
	if client.Inactive(now) > s.env.Timeouts.Heartbeat {
		client.CloseFor(&s.env.Stats.HeartbeatTimeouts, protocol.CloseHeartbeatTimeout, protocol.ReasonHeartbeatTimeout)
	}
}

// checkIdle pings a client that will have been silent for half the idle timeout before the next
// sweep, and pings it again at three quarters. It cuts the connection of a client that has not
// even answered pings: such a client is gone, and would not read a close frame.
func (s *sweeper) checkIdle(client *session.Session, now clock.Instant) {
	timeout := s.env.Timeouts.Idle
	silent := client.Silent(now)
	if silent >= timeout {
		s.env.Stats.IdleTimeouts.Add(1)
		client.Abort()
		return
	}
	next := silent + timeout/idleSweeps
	switch {
	case next > timeout*3/4:
		client.Pings(2)
	case next > timeout/2:
		client.Pings(1)
	default:
		client.Pings(0)
	}
}
