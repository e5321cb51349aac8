package hub

import (
	"sync/atomic"

	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/seal"
)

// Link is a member's connection, as far as a lane needs it; transport.Conn is one. Its methods but Buffered are called
// by the lane's loop only, from within Tick, and must not block.
type Link interface {
	// Write queues p until the end of the turn; WriteNow writes at once if nothing waits. False: p was dropped.
	Write(p []byte) bool
	WriteNow(p []byte) bool
	// Closing reports whether nothing is accepted any more, so that a dropped p says nothing about the peer's speed.
	Closing() bool
	// CloseAfterFlush queues p regardless and then closes the connection in order.
	CloseAfterFlush(p []byte)
	// Recall withdraws what has not begun to go out; cut says where a piece may end of which n bytes are out.
	Recall(cut func(piece []byte, n int) int) [][]byte
	// NotifyBelow reports whether Buffered is n or more; if so, Member.Drained is called once it is not.
	NotifyBelow(n int) bool
	// Buffered is how much the peer has not taken yet, in bytes. Any goroutine.
	Buffered() int
}

// Owner is told what happens to a member's messages.
type Owner interface {
	// Dropped reports that n messages for the member were dropped, because too much waits for it already. What a
	// connection that is gone does not take is lost with it, and not reported.
	// Called on the lane's loop: must not block.
	Dropped(n int)
	// Unsealed reports that a message for the member was lost because it could not be encrypted. Called on goroutines of the
	// hub: must not block for long.
	Unsealed(err error)
	// CloseDelayed reports that the last frame waits for messages to be encrypted that were sent before. Called on the lane's
	// loop: must not block.
	CloseDelayed()
}

// Member is one connection, as the hub sees it; it is part of its owner's own struct.
type Member struct {
	// What a fan-out looks at comes first, and close together: it does so for thousands, none of which is in the
	// processor's cache.

	link Link // set before the first use, then read-only
	// Deflate says that this member takes compressed messages. Set before Admit, then read-only.
	Deflate  bool
	live     bool // the welcome has been written, nothing final has: takes part in fan-outs; owned by the lane's loop
	excluded bool // excluded from the fan-out that is under way; owned by the lane's loop
	sealed   bool // no message goes out but by the outlet; owned by the lane's loop

	admitted bool // guarded by Hub.mu
	ownRoom  bool // in the room named by its own id, which costs no group; guarded by Hub.mu

	// Set once, with Hub.mu held; any goroutine. Nil: in clear.
	queue atomic.Pointer[sealQueue]

	// Set before the first use, then read-only.
	id    ID
	lane  *Lane
	owner Owner

	places []place // everyone, its user, its rooms; guarded by Hub.mu
}

// Init readies m, whose owner is o. The lane must be that of the link's loop.
func (m *Member) Init(id ID, link Link, lane *Lane, o Owner) {
	m.id, m.link, m.lane, m.owner = id, link, lane, o
}

// ID is the client's id, as text that is made for the caller.
func (m *Member) ID() string { return m.id.String() }

// hasID reports whether that is the text of m's id.
func (m *Member) hasID(name string) bool {
	id, ok := parseID(name)
	return ok && id == m.id
}

// Link is the link that Init was given.
func (m *Member) Link() Link { return m.link }

// Encrypted reports whether everything that is sent to m is encrypted. Any goroutine.
func (m *Member) Encrypted() bool { return m.queue.Load() != nil }

// Cipher opens what m sends; nil if it is not encrypted by one. Any goroutine.
func (m *Member) Cipher() *seal.Cipher {
	if q := m.queue.Load(); q != nil {
		return q.Cipher
	}
	return nil
}

// frameOf is msg in the form that m takes in clear.
func (m *Member) frameOf(msg *ws.Message) []byte {
	if m.Deflate {
		return msg.Deflated()
	}
	return msg.Frame()
}

// Owner is the owner that Init was given.
func (m *Member) Owner() Owner { return m.owner }

// place finds m's place in g, or -1. A linear search: the bound on a member's rooms keeps it short, and a map for
// each member would cost every idle client more than the search ever does.
func (m *Member) place(g *group) int {
	for i := range m.places {
		if m.places[i].group == g {
			return i
		}
	}
	return -1
}

func (m *Member) userLocked() string {
	for i := range m.places {
		if g := m.places[i].group; g.kind == user {
			return g.name
		}
	}
	return ""
}

func (m *Member) roomsLocked() []string {
	names := make([]string, 0, len(m.places))
	if m.ownRoom {
		names = append(names, m.ID())
	}
	for i := range m.places {
		if g := m.places[i].group; g.kind == room {
			names = append(names, g.name)
		}
	}
	return names
}

// countRoomsLocked does not look at each: a client that joins as many as it may would have that done for every one.
func (m *Member) countRoomsLocked() int {
	n := len(m.places) - 1 // everyone, which comes first
	if n > 0 && m.places[1].group.kind == user {
		n-- // comes second, and is not left before the end either
	}
	return n
}

// User is the id of the member's user, empty for an anonymous one and after Remove. Any goroutine.
func (h *Hub) User(m *Member) string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return m.userLocked()
}

// MemberRooms returns the names of the rooms that m is in, its own first. Any goroutine; the copy is the caller's.
func (h *Hub) MemberRooms(m *Member) []string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return m.roomsLocked()
}

// InRoom reports whether m is in the named room.
func (h *Hub) InRoom(m *Member, name string) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if m.ownRoom && m.hasID(name) {
		return true
	}
	g := h.rooms.Get(name)
	return g != nil && m.place(g) >= 0
}
