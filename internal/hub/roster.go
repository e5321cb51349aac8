package hub

import "encoding/binary"

const (
	rosterParts = 256
	partMin     = 4 // slots of a part that has any
)

// A roster finds members by id. It is a hash table of pointers and nothing else, since a member knows its id and ids are random:
// a third of what a map takes. It is in parts, so that growing, which looks at each member of a part, keeps nobody waiting
// for long; and it gives memory back after a storm. Its zero value is empty and ready. Guarded by Hub.mu.
type roster struct {
	parts [rosterParts]part
}

// A part has the members whose ids begin with the same byte. Each is in the slot that its id asks for, or, if that was taken, in
// the next free one: between the two no slot is empty. That is what makes find stop, and what drop has to restore.
type part struct {
	slots []*Member
	n     int
}

func (r *roster) part(id ID) *part { return &r.parts[id[0]] }

// get returns the member with that id, or nil.
func (r *roster) get(id ID) *Member {
	p := r.part(id)
	if p.n == 0 {
		return nil
	}
	return p.slots[p.find(id)]
}

// named returns the member whose id has that text, or nil.
func (r *roster) named(name string) *Member {
	id, ok := parseID(name)
	if !ok {
		return nil
	}
	return r.get(id)
}

// put adds m, whose id nobody has.
func (r *roster) put(m *Member) {
	p := r.part(m.id)
	if 4*(p.n+1) > 3*len(p.slots) { // fuller than three quarters the ways get long
		p.resize(max(len(p.slots)*3/2, partMin))
	}
	p.slots[p.find(m.id)] = m
	p.n++
}

// drop takes m out, which must be in it.
func (r *roster) drop(m *Member) {
	p := r.part(m.id)
	p.n--
	if len(p.slots) > partMin && 4*p.n < len(p.slots) {
		p.slots[p.find(m.id)] = nil
		p.resize(max(2*p.n, partMin))
		return
	}
	free := p.find(m.id)
	for i := p.next(free); p.slots[i] != nil; i = p.next(i) {
		if p.reaches(p.slots[i].id, free, i) {
			p.slots[free], free = p.slots[i], i
		}
	}
	p.slots[free] = nil
}

// find is the slot of the member with that id, or the empty one where it would be. There must be an empty one.
func (p *part) find(id ID) int {
	i := p.home(id)
	for p.slots[i] != nil && p.slots[i].id != id {
		i = p.next(i)
	}
	return i
}

// home is the slot that an id asks for. Its bytes 1 to 4 are as good as a hash.
func (p *part) home(id ID) int {
	return int(uint64(binary.BigEndian.Uint32(id[1:])) * uint64(len(p.slots)) >> 32)
}

func (p *part) next(i int) int {
	if i++; i == len(p.slots) {
		return 0
	}
	return i
}

// reaches reports whether the way from the id's home to slot i leads past the slot earlier.
func (p *part) reaches(id ID, earlier, i int) bool {
	home := p.home(id)
	if home <= i {
		return home <= earlier && earlier <= i
	}
	return home <= earlier || earlier <= i
}

// resize puts the members into n slots.
func (p *part) resize(n int) {
	old := p.slots
	p.slots = make([]*Member, n)
	for _, m := range old {
		if m != nil {
			p.slots[p.find(m.id)] = m
		}
	}
}
