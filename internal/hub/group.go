package hub

// kind is the kind of a group.
type kind uint8

const (
	everyone kind = iota
	user
	room
)

// A group is a set of members that one message can go to: all members, the clients of a user, a
// room. It has a set for each lane, because each lane writes to its own members. Guarded by Hub.mu.
//
// A member's place has the position of the member in the set, so joining and leaving take the same
// short time in a room of three members and of a million. The place itself is found by a search of
// the member's places.
type group struct {
	kind kind
	name string
	size int
	sets [][]*Member // one for each lane
}

type place struct {
	group *group
	at    int32 // index in the set of the member's lane

	// In the first place of a member, which is that in the group of all members: the bytes of the
	// names of its rooms. The field fills padding.
	names uint32
}

func newGroup(k kind, name string, lanes int) *group {
	return &group{kind: k, name: name, sets: make([][]*Member, lanes)}
}

// add makes m a member. m must not be one.
func (g *group) add(m *Member) {
	set := &g.sets[m.lane.index]
	m.places = append(m.places, place{group: g, at: int32(len(*set))})
	*set = append(*set, m)
	g.size++
	if g.kind == room {
		m.places[0].names += uint32(len(g.name))
	}
}

// remove ends the membership at m.places[i]. The last element of each list moves to the free
// position.
func (g *group) remove(m *Member, i int) {
	set := &g.sets[m.lane.index]
	at := m.places[i].at
	if g.kind == room {
		m.places[0].names -= uint32(len(g.name))
	}

	last := len(*set) - 1
	if moved := (*set)[last]; moved != m {
		(*set)[at] = moved
		moved.places[moved.place(g)].at = at
	}
	(*set)[last] = nil
	*set = shrink((*set)[:last])

	last = len(m.places) - 1
	m.places[i] = m.places[last]
	m.places[last] = place{}
	m.places = shrink(m.places[:last])
	g.size--
}

// shrink returns s, or a smaller copy of it if s uses less than a quarter of its memory.
func shrink[T any](s []T) []T {
	if cap(s) < 64 || len(s) > cap(s)/4 {
		return s
	}
	return append(make([]T, 0, 2*len(s)), s...)
}
