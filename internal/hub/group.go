package hub

// kind tells the three sorts of group apart.
type kind uint8

const (
	everyone kind = iota
	user
	room
)

// A group is a set of members that one message can go to: everyone, the sessions of a user, a room. A set for each
// lane, since each lane writes to its own members. Guarded by Hub.mu.
//
// A member's place knows the member's position in the set, so that joining and leaving take the same short time in a room of
// three and in one of a million. The other way it is searched for among the places of one member, as everywhere.
type group struct {
	kind kind
	name string
	size int
	sets []set // one for each lane
}

type set struct{ members []*Member }

type place struct {
	group *group
	at    int32 // index in the set of the member's lane

	// In a member's first place, which is that among everyone: the bytes of the names of its rooms. It costs nothing here.
	names uint32
}

func newGroup(k kind, name string, lanes int) *group {
	return &group{kind: k, name: name, sets: make([]set, lanes)}
}

// add makes m a member; it must not be one.
func (g *group) add(m *Member) {
	s := &g.sets[m.lane.index]
	if m.places == nil {
		m.places = make([]place, 0, 3) // everyone and the two default rooms; append grows it for others
	}
	m.places = append(m.places, place{group: g, at: int32(len(s.members))})
	s.members = append(s.members, m)
	g.size++
	if g.kind == room {
		m.places[0].names += uint32(len(g.name))
	}
}

// remove ends the membership at m.places[i]. The last of each list takes the place that falls free.
func (g *group) remove(m *Member, i int) {
	s := &g.sets[m.lane.index]
	at := m.places[i].at
	if g.kind == room {
		m.places[0].names -= uint32(len(g.name))
	}

	last := len(s.members) - 1
	if moved := s.members[last]; moved != m {
		s.members[at] = moved
		moved.places[moved.place(g)].at = at
	}
	s.members[last] = nil
	s.members = shrink(s.members[:last])

	last = len(m.places) - 1
	m.places[i] = m.places[last]
	m.places[last] = place{}
	m.places = shrink(m.places[:last])
	g.size--
}

func (s *set) appendTo(dst []*Member) []*Member { return append(dst, s.members...) }

// shrink gives memory back when a list uses less than a quarter of what it holds.
func shrink[T any](s []T) []T {
	if cap(s) < 64 || len(s) > cap(s)/4 {
		return s
	}
	return append(make([]T, 0, 2*len(s)), s...)
}
