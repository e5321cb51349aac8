package hub

// A membershipChange records that a member joined or left a group.
type membershipChange struct {
	member *Member
	at     uint64 // number of items that had been pushed to the lane before
	joined bool
}

// A membershipLog holds the changes of each group since the oldest item that the lane has not
// handled.
//
// A message to a group is for the members at the time when it is sent, and the lane handles it
// later. A member that has left meanwhile still gets the message: an application that sends to a
// room, and then removes or closes a client, expects that. A member that has joined meanwhile does
// not get it. So a lane that has items logs how its groups change.
type membershipLog map[*group][]membershipChange

// logChange logs a change if a message to the group may be waiting. Hub.mu is held for writing.
func (l *Lane) logChange(g *group, m *Member, joined bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.carrying && len(l.inbox) == 0 {
		return
	}
	if l.changes == nil {
		l.changes = make(membershipLog)
	}
	l.changes[g] = append(l.changes[g], membershipChange{m, l.pushed, joined})
}

// pruneLocked removes the changes before the oldest item that is not handled yet.
func (l *Lane) pruneLocked() {
	if len(l.changes) == 0 {
		return
	}
	if !l.carrying && len(l.inbox) == 0 {
		l.changes = nil
		return
	}
	for g, changes := range l.changes {
		i := 0
		for i < len(changes) && changes[i].at <= l.first {
			i++
		}
		if i == len(changes) {
			delete(l.changes, g)
		} else {
			l.changes[g] = changes[i:]
		}
	}
}

// runUntil returns how many of the n items from number at on were sent before the next change.
func runUntil(changes []membershipChange, at uint64, n int) int {
	for _, v := range changes {
		if v.at > at {
			return int(min(uint64(n), v.at-at))
		}
	}
	return n
}

// membersAt turns the current members of a group into those at the time when item number at was
// sent.
func membersAt(members []*Member, changes []membershipChange, at uint64) []*Member {
	was := make(map[*Member]bool)
	for _, v := range changes {
		if _, known := was[v.member]; v.at > at && !known {
			was[v.member] = !v.joined // before its first change
		}
	}
	if len(was) == 0 {
		return members
	}
	kept := members[:0]
	for _, m := range members {
		if in, changed := was[m]; in || !changed {
			kept = append(kept, m)
			delete(was, m)
		}
	}
	for m, in := range was {
		if in {
			kept = append(kept, m)
		}
	}
	return kept
}
