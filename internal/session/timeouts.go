package session

import (
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

var pingFrame = ws.AppendFrame(nil, ws.OpPing, nil)

// CheckHeartbeat closes a client that has sent no message for longer than Timeouts.Heartbeat
// (protocol §8). Only the sweep may call it.
func (s *Session) CheckHeartbeat(now clock.Instant) {
	if s.paused() {
		return
	}
	s.Backpressured() // notices that the client has caught up
	if now.Sub(clock.Instant(s.lastActive.Load())) > s.env.Timeouts.Heartbeat {
		s.CloseFor(&s.env.Stats.HeartbeatTimeouts, protocol.CloseHeartbeatTimeout, protocol.ReasonHeartbeatTimeout)
	}
}

// CheckIdle checks a client for silence; next is the time until the next check. It pings a client
// that will have been silent for half of Timeouts.Idle by the next check, and again at three
// quarters. It cuts the connection of a client that has not even answered pings: such a client is
// gone, and would not read a close frame. Only the sweep may call it.
func (s *Session) CheckIdle(now clock.Instant, next time.Duration) {
	if s.paused() {
		return
	}
	timeout := s.env.Timeouts.Idle
	silent := now.Sub(clock.Instant(s.lastRead.Load()))
	if silent >= timeout {
		s.env.Stats.IdleTimeouts.Add(1)
		s.Abort()
		return
	}
	pings := uint8(0) // that the client should have been sent since it fell silent
	switch silent += next; {
	case silent > timeout*3/4:
		pings = 2
	case silent > timeout/2:
		pings = 1
	}
	if pings > s.pings {
		s.member.Control(pingFrame)
	}
	s.pings = pings
}

// paused reports whether the server does not read from the client, because its inbox is too long.
func (s *Session) paused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inbox.paused
}
