package session

import "slices"

// A roomChange is a room that the client has joined or left.
type roomChange struct {
	room   string
	joined bool // otherwise left
}

// roomChanges are the changes that the joined and left callbacks have not been called for, oldest
// first. There is at most one leave for each room that the callbacks believe the client to be in,
// and at most one join for each room that it is in.
type roomChanges []roomChange

// add adds a change. A leave instead removes the join of the same room, so neither is reported.
func (c *roomChanges) add(room string, joined bool) {
	if !joined {
		if i := slices.Index(*c, roomChange{room, true}); i >= 0 {
			*c = slices.Delete(*c, i, i+1)
			return
		}
	}
	*c = append(*c, roomChange{room, joined})
}

// pop takes the oldest change. There must be one.
func (c *roomChanges) pop() roomChange {
	first := (*c)[0]
	(*c)[0] = roomChange{}
	if *c = (*c)[1:]; len(*c) == 0 {
		*c = nil
	}
	return first
}

// changedLocked queues a change of the client's rooms for the callbacks, and for its ticket. The
// caller makes the change in the hub without releasing mu in between, so the changes are queued in
// their order.
func (s *Session) changedLocked(room string, joined bool) {
	if s.grants.has(resume) {
		s.env.Tickets.change(s)
	}
	if s.env.Calls.Joined == nil && s.env.Calls.Left == nil || isOwnRoom(&s.member, room) {
		return
	}
	s.transientLocked().changes.add(room, joined)
	s.transient = s.transient.orNil()
	s.scheduleLocked(false)
}
