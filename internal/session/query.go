package session

import (
	"net/netip"
	"slices"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// Of returns the session that m is part of.
func Of(m *hub.Member) *Session {
	s, _ := m.Owner().(*Session)
	return s
}

// The following may be called from any goroutine and do not block.

// ID is the client's id.
func (s *Session) ID() string { return s.member.ID() }

// RemoteAddr is the client's address.
func (s *Session) RemoteAddr() netip.AddrPort {
	if s.addr != nil {
		return *s.addr
	}
	return s.conn().RemoteAddr()
}

// Subprotocol is the subprotocol that was agreed on in the handshake, empty if none. It is forgotten when the client is
// authenticated.
func (s *Session) Subprotocol() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.pendingClientLocked(); c != nil {
		return c.protocol
	}
	return ""
}

// FromRequest is what the application took from the opening handshake's request. It is forgotten when the client is
// authenticated.
func (s *Session) FromRequest() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.pendingClientLocked(); c != nil {
		return c.fromRequest
	}
	return nil
}

// ConnectedAt is when the connection was opened. It can be compared with other times of this process: it has a monotonic
// reading.
func (s *Session) ConnectedAt() time.Time { return s.env.Clock.At(s.connected) }

// LastActivity is when the last message came; when the connection was opened, if none has.
func (s *Session) LastActivity() time.Time { return s.env.Clock.Time(s.active()) }

func (s *Session) active() clock.Instant { return clock.Instant(s.lastActive.Load()) }

// Inactive is how long no message has come, at the instant now of the node's clock.
func (s *Session) Inactive(now clock.Instant) time.Duration { return now.Sub(s.active()) }

// Silent is how long nothing at all has come, not even a pong.
func (s *Session) Silent(now clock.Instant) time.Duration {
	return now.Sub(clock.Instant(s.lastRead.Load()))
}

// State is how far the client has come.
func (s *Session) State() protocol.State { return protocol.State(s.state.Load()) }

// Value is what the authenticate callback returned as Identity.Value; nil before the client is authenticated.
func (s *Session) Value() any {
	if s.State() == protocol.StateAuthenticated {
		return s.value // written before the state was
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

// Paused reports whether the client is not read from, because what it sent waits for callbacks.
func (s *Session) Paused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paused
}

// Rooms are the names of the rooms that the client is in, or was in at its end, its own first. The copy is the caller's.
func (s *Session) Rooms() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endedLocked() {
		return slices.Clone(s.transient.closeInfo.rooms)
	}
	return s.env.Hub.MemberRooms(&s.member)
}

// In reports whether the client is in the named room, or was at its end.
func (s *Session) In(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endedLocked() {
		return slices.Contains(s.transient.closeInfo.rooms, name)
	}
	return s.env.Hub.InRoom(&s.member, name)
}

// Backpressured reports whether messages were dropped for the client, and it has not caught up since.
func (s *Session) Backpressured() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slow && s.member.Buffered() == 0 {
		s.slow = false
	}
	return s.slow
}

// Encrypted reports whether everything that is sent to the client is encrypted.
func (s *Session) Encrypted() bool { return s.member.Encrypted() }

// Send queues a message for the client. hub.ErrNotMember when it is not, or no longer, authenticated.
func (s *Session) Send(msg *ws.Message) error { return s.env.Hub.SendTo(&s.member, msg) }

// Pings says how many pings the client should have got since it fell silent, and queues one if it has got fewer. Only
// the sweep may call it.
func (s *Session) Pings(n uint8) {
	if n > s.pinged {
		s.member.Control(pingFrame)
	}
	s.pinged = n
}

var pingFrame = ws.AppendFrame(nil, ws.OpPing, nil)
