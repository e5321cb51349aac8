package node

import (
	"time"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
)

// sweep looks after the authenticated clients, at intervals, until the node ends: one goroutine for all of them, since
// a timer for each would cost every idle client memory. Those that have not authenticated have the lobby.
func (n *Node) sweep() {
	var members []*hub.Member
	each := func(look func(*session.Session, time.Time)) {
		now := time.Now()
		members = n.hub.Members(members[:0], hub.Target{Kind: hub.All})
		for _, m := range members {
			if s := session.Of(m); !s.Paused() { // what a paused client has sent is not seen: that is ours, not its fault
				look(s, now)
			}
		}
		clear(members)
	}
	heartbeat, stop := every(n.cfg.HeartbeatInterval)
	defer stop()
	idle, stop := every(n.cfg.IdleTimeout / 4)
	defer stop()
	for {
		select {
		case <-heartbeat:
			each(n.checkHeartbeat)
		case <-idle:
			each(n.checkIdle)
		case <-n.ended:
			return
		}
	}
}

func every(d time.Duration) (<-chan time.Time, func()) {
	if d <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(d)
	return t.C, t.Stop
}

// checkHeartbeat closes a client that has sent no message for too long (protocol §8).
func (n *Node) checkHeartbeat(s *session.Session, now time.Time) {
	s.Backpressured() // notices that it has caught up
	if now.Sub(s.LastActivity()) > n.cfg.HeartbeatTimeout {
		s.CloseFor(&n.env.Stats.HeartbeatLost, protocol.CloseHeartbeatTimeout, protocol.ReasonHeartbeatTimeout)
	}
}

// checkIdle pings a client that has been silent for half the idle timeout, and cuts one whose peer has not even
// answered pings: it is not there any more, and would not read a close frame.
func (n *Node) checkIdle(s *session.Session, now time.Time) {
	switch silent := now.Sub(s.LastRead()); {
	case silent >= n.cfg.IdleTimeout:
		n.env.Stats.IdleTimeouts.Add(1)
		s.Abort()
	case silent >= n.cfg.IdleTimeout/2:
		s.Ping()
	}
}
