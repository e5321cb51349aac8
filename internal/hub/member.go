package hub

import (
	"sync/atomic"

	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/seal"
)

// Link is the connection of a member, with the methods that a lane needs; transport.Conn is one.
// The methods except Buffered are called by the lane's loop only, from within Tick, and must not
// block.
type Link interface {
	// Write queues p until the end of the turn. WriteNow writes p at once if nothing waits. Both
	// report whether p was accepted.
	Write(p []byte) bool
	WriteNow(p []byte) bool
	// Closing reports whether the connection accepts nothing any more. A rejected p then does not
	// mean that the peer is slow.
	Closing() bool
	// CloseAfterFlush queues p, even if it does not fit, and then closes the connection in order.
	CloseAfterFlush(p []byte)
	// Recall removes the queued bytes that are not written yet from the queue, and returns them. If
	// n bytes of a piece were written, cut returns how many bytes of it, n or more, stay in the
	// queue.
	Recall(cut func(piece []byte, n int) int) [][]byte
	// NotifyBelow reports whether Buffered is n or more. If so, Member.Drained is called when it is
	// less.
	NotifyBelow(n int) bool
	// Buffered returns how many bytes wait for the peer. It may be called from any goroutine.
	Buffered() int
}

// Owner gets reports about the messages of a member.
type Owner interface {
	// Dropped reports that n messages for the member were dropped because too much was waiting for
	// it. Messages that are lost with a closing connection are not reported. If it returns true,
	// the member gets no further messages: the owner closes it. It is called on the lane's loop,
	// and must not block.
	Dropped(n int) (closed bool)
	// Unsealed reports that a message for the member was dropped because it could not be encrypted.
	// It is called on the loop and on goroutines of the hub, and must not block for long.
	Unsealed(err error)
	// CloseDelayed reports that the last frame waits until earlier messages are encrypted. It is
	// called on the lane's loop, and must not block.
	CloseDelayed()
}

// Member is a connection in the hub. It is a field of its owner's struct.
type Member struct {
	// The fields that a fan-out reads come first. It reads them for thousands of members, of which
	// none is in the processor's cache.

	link Link // set before the first use, then read-only
	// Deflate means that the member accepts compressed messages. Set before Admit, then read-only.
	Deflate bool
	// Positions means that the member gets messages in the form of ws.Message.Positioned. Set
	// before Admit, then read-only.
	Positions bool
	live      bool // from the welcome to the last frame: gets messages; owned by the lane's loop
	excluded  bool // from the current fan-out; owned by the lane's loop
	sealed    bool // all messages go through the seal queue; owned by the lane's loop

	admitted bool // guarded by Hub.mu
	ownRoom  bool // in the room named by its own id, which has no group; guarded by Hub.mu

	// Set once, with Hub.mu held, and read by any goroutine. Nil if the member is not encrypted.
	queue atomic.Pointer[sealQueue]

	// Set before the first use, then read-only, except for SetKey.
	id    ID
	lane  *Lane
	owner Owner

	places []place // all members, its user, its rooms; guarded by Hub.mu
}

// Init initializes m, whose owner is o. The lane must be that of the link's loop.
func (m *Member) Init(id ID, link Link, lane *Lane, o Owner) {
	m.id, m.link, m.lane, m.owner = id, link, lane, o
}

// Key returns the client's id.
func (m *Member) Key() ID { return m.id }

// SetKey changes the client's id. Only the owner may call it, before Admit, and it makes sure that
// the id is not read meanwhile.
func (m *Member) SetKey(id ID) { m.id = id }

// ID returns the client's id as text. Each call makes the text again.
func (m *Member) ID() string { return m.id.String() }

// hasID reports whether name is the text of m's id.
func (m *Member) hasID(name string) bool {
	id, ok := ParseID(name)
	return ok && id == m.id
}

// Link returns the link that was passed to Init.
func (m *Member) Link() Link { return m.link }

// Encrypted reports whether all messages to m are encrypted. It may be called from any goroutine.
func (m *Member) Encrypted() bool { return m.queue.Load() != nil }

// Cipher returns the cipher that opens messages of m, or nil if there is none. It may be called
// from any goroutine.
func (m *Member) Cipher() *seal.Cipher {
	if q := m.queue.Load(); q != nil {
		return q.Cipher
	}
	return nil
}

// frameOf returns the unencrypted frame of msg in the form for m.
func (m *Member) frameOf(msg *ws.Message) []byte {
	if m.Positions {
		msg = msg.Positioned()
	}
	if m.Deflate {
		return msg.Deflated()
	}
	return msg.Frame()
}

// Owner returns the owner that was passed to Init.
func (m *Member) Owner() Owner { return m.owner }

// place returns the index of m's place in g, or -1. The linear search is short because the rooms of
// a member are bounded. A map for each member would cost each idle client more than the search
// does.
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

// countRoomsLocked returns the number of rooms of m, except its own. It does not iterate over them,
// because each join calls it.
func (m *Member) countRoomsLocked() int {
	n := len(m.places) - 1 // without the group of all members, which comes first
	if n > 0 && m.places[1].group.kind == user {
		n-- // the user always comes second
	}
	return n
}

// User returns the id of the member's user. It is empty for an anonymous client, and after Remove.
func (h *Hub) User(m *Member) string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return m.userLocked()
}

// MemberRooms returns the names of the rooms that m is in, its own first. The caller may keep the
// result.
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
