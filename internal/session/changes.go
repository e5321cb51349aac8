package session

import (
	"context"
	"slices"

	"github.com/hearthws/hearth/protocol"
)

// A change is a room that the client has joined or left, for the joined and left callbacks.
type roomChange struct {
	room   string
	joined bool // otherwise left
}

// changedLocked queues a change of the client's rooms for the callbacks. The caller holds mu since
// before the change in the hub, so the order of the queue is that of the changes.
//
// A room that was left before its join was reported is not reported at all. So the queue holds at
// most one leave of each room that the callbacks take the client to be in, and at most one join of
// each room that it is in.
func (s *Session) changedLocked(room string, joined bool) {
	if s.env.Calls.Joined == nil && s.env.Calls.Left == nil || s.isOwnRoom(room) {
		return
	}
	r := s.transientLocked()
	if !joined {
		if i := slices.Index(r.changes, roomChange{room, true}); i >= 0 {
			r.changes = slices.Delete(r.changes, i, i+1)
			s.freeTransientLocked()
			return
		}
	}
	r.changes = append(r.changes, roomChange{room, joined})
	s.scheduleLocked()
}

// changesLocked reports whether a change waits for the callbacks.
func (s *Session) changesLocked() bool { return s.transient != nil && len(s.transient.changes) > 0 }

// popChangeLocked takes the oldest change.
func (s *Session) popChangeLocked() roomChange {
	r := s.transient
	c := r.changes[0]
	r.changes[0] = roomChange{}
	if r.changes = r.changes[1:]; len(r.changes) == 0 {
		r.changes = nil
		s.freeTransientLocked()
	}
	return c
}

// leaveAllLocked queues the rooms that the client was in at its end.
func (s *Session) leaveAllLocked() {
	e := s.transient.closeInfo
	e.leavesQueued = true
	for _, room := range e.rooms {
		s.changedLocked(room, false)
	}
}

// report calls the callback for a change.
func (s *Session) report(c roomChange) {
	name, call := "left", s.env.Calls.Left
	if c.joined {
		name, call = "joined", s.env.Calls.Joined
	}
	if call == nil {
		return
	}
	s.guard(name, func(ctx context.Context) error {
		call(ctx, s, c.room)
		return nil
	})
}

// own reports whether the room is the one named by the client's id.
func (s *Session) isOwnRoom(room string) bool { return protocol.IsClientID(room) && room == s.ID() }
