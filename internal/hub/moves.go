package hub

// A message to a group is for those who are in it when it is sent, and is carried later. Whoever has left meanwhile
// still gets it: a client that is told something and then taken out of the room, or closed, has been told. Whoever has
// come meanwhile does not. So a lane that has something to carry remembers how its groups change until it has.

// A move is one member's joining or leaving of a group.
type move struct {
	member *Member
	at     uint64 // how many items had been pushed to the lane before
	joined bool
}

// moved notes a move, if a message may be on its way to the group. Hub.mu is held for writing.
func (l *Lane) moved(g *group, m *Member, joined bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.busy && len(l.inbox) == 0 {
		return
	}
	if l.moves == nil {
		l.moves = make(map[*group][]move)
	}
	l.moves[g] = append(l.moves[g], move{m, l.pushed, joined})
}

// settleLocked forgets the moves that came before the items which are still to be carried.
func (l *Lane) settleLocked() {
	if len(l.moves) == 0 {
		return
	}
	if !l.busy && len(l.inbox) == 0 {
		l.moves = nil
		return
	}
	for g, moves := range l.moves {
		i := 0
		for i < len(moves) && moves[i].at <= l.first {
			i++
		}
		if i == len(moves) {
			delete(l.moves, g)
		} else {
			l.moves[g] = moves[i:]
		}
	}
}

// until is how many of the n items from number at on were sent before the next of the moves.
func until(moves []move, at uint64, n int) int {
	for _, v := range moves {
		if v.at > at {
			return int(min(uint64(n), v.at-at))
		}
	}
	return n
}

// asOf makes of those who are in a group now those who were in it when item number at was sent.
func asOf(members []*Member, moves []move, at uint64) []*Member {
	was := make(map[*Member]bool)
	for _, v := range moves {
		if _, known := was[v.member]; v.at > at && !known {
			was[v.member] = !v.joined // before its first move
		}
	}
	if len(was) == 0 {
		return members
	}
	kept := members[:0]
	for _, m := range members {
		if in, moved := was[m]; in || !moved {
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
