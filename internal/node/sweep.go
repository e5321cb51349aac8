package node

import (
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
)

// idleSweeps is how often a client is looked at within IdleTimeout. More sweeps cost an idle server processor time,
// fewer have more clients pinged too early.
const idleSweeps = 16

// sweep looks after the authenticated clients, at intervals, until the node ends: one goroutine for all of them, since
// a timer for each would cost every idle client memory. The lobby has those that have not authenticated.
func (n *Node) sweep() {
	var members []*hub.Member
	each := func(look func(*session.Session, clock.Instant)) {
		now := n.env.Clock.Now()
		members = n.hub.Members(members[:0], hub.Target{Kind: hub.All})
		for _, m := range members {
			if s := session.Of(m); !s.Paused() { // the server does not read what a paused client sends
				look(s, now)
			}
		}
		clear(members)
	}
	heartbeat, stop := newTicker(n.cfg.Timeouts.HeartbeatInterval)
	defer stop()
	idle, stop := newTicker(n.cfg.Timeouts.Idle / idleSweeps)
	defer stop()
	for {
		select {
		case <-heartbeat:
			each(n.checkHeartbeat)
		case <-idle:
			each(n.checkIdle)
		case <-n.stopping:
			return
		}
	}
}

func newTicker(d time.Duration) (<-chan time.Time, func()) {
	if d <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(d)
	return t.C, t.Stop
}

// checkHeartbeat closes a client that has sent no message for too long (protocol §8).
func (n *Node) checkHeartbeat(s *session.Session, now clock.Instant) {
	s.Backpressured() // notices that it has caught up
	if s.Inactive(now) > n.cfg.Timeouts.Heartbeat {
		s.CloseFor(&n.env.Stats.HeartbeatTimeouts, protocol.CloseHeartbeatTimeout, protocol.ReasonHeartbeatTimeout)
	}
}

// checkIdle pings a client that will have been silent for half the idle timeout before the next look, and again at three
// quarters. It cuts a client that has not even answered pings: it is not there any more, and would not read a close frame.
func (n *Node) checkIdle(s *session.Session, now clock.Instant) {
	silent := s.Silent(now)
	if silent >= n.cfg.Timeouts.Idle {
		n.env.Stats.IdleTimeouts.Add(1)
		s.Abort()
		return
	}
	next := silent + n.cfg.Timeouts.Idle/idleSweeps
	switch {
	case next > n.cfg.Timeouts.Idle*3/4:
		s.Pings(2)
	case next > n.cfg.Timeouts.Idle/2:
		s.Pings(1)
	default:
		s.Pings(0)
	}
}
