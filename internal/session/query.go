package session

import (
	"net/netip"
	"slices"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// The methods in this file may be called from any goroutine and do not block. The caller must not
// hold mu.

// ID returns the client's id. A client that resumes its session gets its former id before it is
// authenticated.
func (s *Session) ID() string {
	if s.State() < protocol.StateAuthenticated {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	return s.member.ID()
}

// RemoteAddr returns the client's address.
func (s *Session) RemoteAddr() netip.AddrPort {
	if s.addr != nil {
		return *s.addr
	}
	return s.conn().RemoteAddr()
}

// ConnectedAt returns the time at which the connection was opened. It has a monotonic reading, so
// it can be compared with other times of this process.
func (s *Session) ConnectedAt() time.Time { return s.env.Clock.At(s.connected) }

// LastActivity returns the time at which the last message arrived, or at which the connection was
// opened if none has.
func (s *Session) LastActivity() time.Time {
	return s.env.Clock.Time(clock.Instant(s.lastActive.Load()))
}

// State returns the state of the client.
func (s *Session) State() protocol.State { return protocol.State(s.state.Load()) }

// Value returns the Identity.Value of an authenticated client; nil before.
func (s *Session) Value() any {
	if s.State() == protocol.StateAuthenticated {
		return s.value // written before the state was
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value
}

// Rooms returns the names of the rooms that the client is in, or was in at its end, its own
// first. The caller may change the slice.
func (s *Session) Rooms() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended() {
		return slices.Clone(s.transient.closeInfo.rooms)
	}
	return s.env.Hub.MemberRooms(&s.member)
}

// In reports whether the client is in the room, or was at its end.
func (s *Session) In(room string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended() {
		return slices.Contains(s.transient.closeInfo.rooms, room)
	}
	return s.env.Hub.InRoom(&s.member, room)
}

// Backpressured reports whether messages were dropped for the client, and it has not caught up
// since.
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

// Send queues a message for the client. It returns hub.ErrNotMember if the client is not
// authenticated, or has disconnected.
func (s *Session) Send(msg *ws.Message) error { return s.env.Hub.SendTo(&s.member, msg) }
