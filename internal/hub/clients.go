package hub

import (
	"encoding/binary"

	"github.com/hearthws/hearth/internal/shrinkmap"
)

// clients finds members by id. It is a map from the first half of an id, because a map from whole
// ids takes 40 % more memory, and most memory of a server belongs to idle clients. Guarded by
// Hub.mu.
type clients struct {
	byHalf shrinkmap.Map[uint64, *Member]
	// The members whose first half is that of a member in byHalf. Ids are random, so one among
	// 2^60 pairs of clients comes here.
	others map[ID]*Member
}

// half returns the first half of id, which is random except for the 4 bits of the UUID version.
func half(id ID) uint64 { return binary.NativeEndian.Uint64(id[:]) }

func (c *clients) put(m *Member) {
	switch have := c.byHalf.Get(half(m.id)); {
	case have == nil || have.id == m.id:
		c.byHalf.Put(half(m.id), m)
	case c.others == nil:
		c.others = map[ID]*Member{m.id: m}
	default:
		c.others[m.id] = m
	}
}

// get returns the member with this id, or nil.
func (c *clients) get(id ID) *Member {
	if m := c.byHalf.Get(half(id)); m != nil && m.id == id {
		return m
	}
	return c.others[id]
}

func (c *clients) remove(m *Member) {
	if c.byHalf.Get(half(m.id)) == m {
		c.byHalf.Delete(half(m.id))
	} else {
		delete(c.others, m.id)
	}
}
