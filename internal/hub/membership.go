package hub

// A message to a group is for those who are in it when it is sent, and is carried later. Whoever has left meanwhile
// still gets it: a client that is told something and then taken out of the room, or closed, has been told. Whoever has
// come meanwhile does not. So a lane that has something to carry remembers how its groups change until it has.

// A membershipChange is one member's joining or leaving of a group.
type membershipChange struct {
	member *Member
	at     uint64 // how many items had been pushed to the lane before
	joined bool
}

// A membershipLog holds the changes of each group since the oldest message that is still to be carried.
type membershipLog map[*group][]membershipChange

// logChange notes a move, if a message may be on its way to the group. Hub.mu is held for writing.
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

// pruneLocked forgets the changes that came before the items which are still to be carried.
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

// runUntil is how many of the n items from number at on were sent before the next of the changes.
func runUntil(changes []membershipChange, at uint64, n int) int {
	for _, v := range changes {
		if v.at > at {
			return int(min(uint64(n), v.at-at))
		}
	}
	return n
}

// membersAt makes of those who are in a group now those who were in it when item number at was sent.
func membersAt(members []*Member, changes []membershipChange, at uint64) []*Member {
	was := make(map[*Member]bool)
	for _, v := range changes {
		if _, known := was[v.member]; v.at > at && !known {
			was[v.member] = !v.joined // before its first move
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
