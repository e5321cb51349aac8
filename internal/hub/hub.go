// Package hub indexes the connected clients, by id, user and room, and carries messages to them.
//
// It has two halves. The index (Hub, Member, group) finds the members of a target, under one lock
// that is never held during a write. The lanes (Lane) carry messages. Each event loop has one lane,
// a queue that any goroutine fills and only the loop empties. So the messages of one goroutine to
// one client arrive in their order on every path: to the client, its user, a room or all clients. A
// lane has a sealer, which carries messages to encrypted members.
//
// Lock order: Hub.mu before Lane.mu, sealPool.mu before sealer.mu. No lock is held during a write
// to a Link.
package hub

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/shrinkmap"
	"github.com/hearthws/hearth/internal/ws"
)

// ErrQueueFull is returned by sends when a lane has Config.SendQueue bytes waiting, because the
// senders are faster than the loop. The message was not queued for lanes that were full, and was
// queued for the others.
var ErrQueueFull = errors.New("send queue is full")

// ErrTooManyRooms is returned by Join, perhaps wrapped, if the member is in Config.MaxRooms rooms,
// or if the names of its rooms would have more than Config.RoomNames bytes.
var ErrTooManyRooms = errors.New("client is in too many rooms")

// ErrNotMember is returned for a member that has left the hub, or was never admitted.
var ErrNotMember = errors.New("client is not connected")

// Config configures a Hub.
type Config struct {
	// Lanes is the number of event loops. At least 1.
	Lanes int
	// Wake makes the loop of a lane call Tick soon. It is called from any goroutine, and must not
	// block. Required.
	Wake func(lane int)
	// Backlogged reports whether any of a lane's links may have Buffered bytes. It is called from
	// any goroutine, and must not block. Default: the hub calls Buffered of each link.
	Backlogged func(lane int) bool
	// MaxRooms bounds the rooms of one member, except its own room. 0: no bound.
	MaxRooms int
	// RoomNames bounds the names of one member's rooms, except its own room, in bytes. 0: no bound.
	RoomNames int
	// SendQueue bounds the messages that wait in one lane, in bytes. 0: 64 MiB.
	SendQueue int
	// BackpressureLimit bounds the messages that wait for one encrypted member, in bytes, including
	// those in its connection. 0: 1 MiB.
	BackpressureLimit int
	// BatchLimit bounds for how many members one fan-out is transformed at a time, and the workers
	// that encrypt. 0: 10.
	BatchLimit int
}

// Hub is the index of the connected clients. Its methods may be called from any goroutine. They
// block only for its lock, except those that say so.
type Hub struct {
	// Set by New, then read-only.
	lanes      []*Lane
	maxRooms   int
	roomNames  int
	wake       func(lane int)
	backlogged func(lane int) bool

	sealPool     sealPool
	transformers transformers

	deflating    atomic.Int64 // members that accept compression: senders compress only for them
	encrypted    atomic.Int64 // members that are encrypted
	transforming atomic.Int64 // members with a Transform: without any, a fan-out needs no semaphore
	delivered    atomic.Uint64
	dropped      atomic.Uint64

	waiters waiters

	mu      sync.RWMutex // guards the fields below, and some of each Member; before Lane.mu
	clients clients
	users   shrinkmap.Map[string, *group]
	rooms   shrinkmap.Map[string, *group]
	all     *group
}

// New makes an empty hub.
func New(cfg Config) *Hub {
	if cfg.SendQueue <= 0 {
		cfg.SendQueue = 64 << 20
	}
	if cfg.BackpressureLimit <= 0 {
		cfg.BackpressureLimit = 1 << 20
	}
	if cfg.BatchLimit <= 0 {
		cfg.BatchLimit = 10
	}
	if cfg.Backlogged == nil {
		cfg.Backlogged = func(int) bool { return true }
	}
	h := &Hub{maxRooms: cfg.MaxRooms, roomNames: cfg.RoomNames, wake: cfg.Wake, backlogged: cfg.Backlogged}
	h.sealPool.maxWorkers = min(runtime.GOMAXPROCS(0), cfg.BatchLimit)
	h.transformers.limit = cfg.BatchLimit
	h.waiters.changed = make(chan struct{})
	for i := range max(cfg.Lanes, 1) {
		l := &Lane{hub: h, index: i, limit: cfg.SendQueue}
		l.sealer = sealer{lane: l, limit: cfg.BackpressureLimit, pool: &h.sealPool, transformers: &h.transformers, inline: inlineBudget}
		h.lanes = append(h.lanes, l)
	}
	h.all = newGroup(everyone, "", len(h.lanes))
	return h
}

// ResumeAll resumes all that wait for a turn. It is called after the loops have ended. From then
// on, WaitTurn returns false.
func (h *Hub) ResumeAll() {
	for _, l := range h.lanes {
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
		l.resume()
	}
}

// Lane returns the lane of loop i.
func (h *Hub) Lane(i int) *Lane { return h.lanes[i] }

// Admission describes a new member.
type Admission struct {
	User    string   // empty for an anonymous client
	Rooms   []string // to join besides the member's own; valid names
	Welcome *ws.Message
	// Next is queued right after the welcome, even if it does not fit. Nil: nothing.
	Next *ws.Message
	// Encryption encrypts all messages after the welcome. Nil: no encryption.
	Encryption *Encryption
}

// Admit indexes m by id and user, joins it to its rooms and queues the welcome, in one step for
// other goroutines. m gets no message before the welcome, and each message that is sent after Admit
// has returned.
func (h *Hub) Admit(m *Member, a Admission) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.admitted, m.ownRoom = true, true
	h.clients.put(m)
	places := 1 + len(a.Rooms) // everyone and the rooms
	if a.User != "" {
		places++
	}
	m.places = make([]place, 0, places) // few clients join more rooms later
	h.all.add(m)
	if a.User != "" {
		h.group(&h.users, user, a.User).add(m)
	}
	for _, name := range a.Rooms {
		if g := h.group(&h.rooms, room, name); !m.hasID(name) && m.place(g) < 0 {
			g.add(m)
		}
	}
	if a.Encryption != nil {
		m.queue.Store(&sealQueue{member: m, Encryption: *a.Encryption})
	}
	h.countLocked(m, 1)
	m.lane.push(item{kind: welcome, member: m, msg: a.Welcome})
	if a.Next != nil {
		m.lane.queue(item{kind: direct, member: m, msg: a.Next})
	}
}

// countLocked adds n to the counter of members that get messages in the same form as m.
func (h *Hub) countLocked(m *Member, n int64) {
	switch q := m.queue.Load(); {
	case q != nil:
		h.encrypted.Add(n)
		if q.Transform != nil {
			h.transforming.Add(n)
		}
	case m.Deflate:
		h.deflating.Add(n)
	}
}

// Remove removes m from the index, and returns its user and the rooms that it was in, including its
// own. ok is false if m was not in the index. Messages that were queued for m before may still be
// written.
func (h *Hub) Remove(m *Member) (userID string, rooms []string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !m.admitted {
		return "", nil, false
	}
	userID, rooms = m.userLocked(), m.roomsLocked()
	m.admitted, m.ownRoom = false, false
	h.clients.remove(m)
	for len(m.places) > 0 {
		h.leaveLocked(m, len(m.places)-1)
	}
	m.places = nil
	h.countLocked(m, -1)
	h.waiters.wake() // m may have been the slowest member
	return userID, rooms, true
}

// Join makes m a member of the named room. joined is false if it was one already. The name must be
// valid.
func (h *Hub) Join(m *Member, name string) (joined bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !m.admitted {
		return false, ErrNotMember
	}
	if m.hasID(name) {
		joined, m.ownRoom = !m.ownRoom, true
		return joined, nil
	}
	if g := h.rooms.Get(name); g != nil && m.place(g) >= 0 {
		return false, nil
	}
	if h.maxRooms > 0 && m.countRoomsLocked() >= h.maxRooms {
		return false, ErrTooManyRooms
	}
	if h.roomNames > 0 && int(m.places[0].names)+len(name) > h.roomNames {
		return false, fmt.Errorf("%w: their names would have more than %d bytes", ErrTooManyRooms, h.roomNames)
	}
	g := h.group(&h.rooms, room, name)
	g.add(m)
	m.lane.logChange(g, m, true)
	return true, nil
}

// Leave ends the membership of m in the named room, and reports whether m was a member.
func (h *Hub) Leave(m *Member, name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.waiters.wake() // m may have been the slowest member
	if m.ownRoom && m.hasID(name) {
		m.ownRoom = false
		return true
	}
	g := h.rooms.Get(name)
	if g == nil {
		return false
	}
	i := m.place(g)
	if i < 0 {
		return false
	}
	h.leaveLocked(m, i)
	return true
}

// leaveLocked removes m from the group at m.places[i], and removes a room or user without members.
func (h *Hub) leaveLocked(m *Member, i int) {
	g := m.places[i].group
	g.remove(m, i)
	m.lane.logChange(g, m, false)
	if g.size > 0 {
		return
	}
	switch g.kind {
	case user:
		h.users.Delete(g.name)
	case room:
		h.rooms.Delete(g.name)
	}
}

// group returns the group of that name, which it makes if there is none.
func (h *Hub) group(t *shrinkmap.Map[string, *group], k kind, name string) *group {
	g := t.Get(name)
	if g == nil {
		g = newGroup(k, name, len(h.lanes))
		t.Put(name, g)
	}
	return g
}

// Client returns the member with that id, or nil.
func (h *Hub) Client(id string) *Member {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.clientLocked(id)
}

// clientLocked returns the member with that id, or nil.
func (h *Hub) clientLocked(text string) *Member {
	id, ok := ParseID(text)
	if !ok {
		return nil
	}
	return h.clients.get(id)
}

// Count returns the number of members of the target.
func (h *Hub) Count(t Target) int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	g, m := h.resolve(t)
	n := 0
	if g != nil {
		n = g.size
	}
	if m != nil {
		n++
	}
	return n
}

// Members appends the members of the target to dst. The caller may keep the result.
func (h *Hub) Members(dst []*Member, t Target) []*Member {
	h.mu.RLock()
	defer h.mu.RUnlock()
	g, m := h.resolve(t)
	if g != nil {
		dst = slices.Grow(dst, g.size)
		for _, set := range g.sets {
			dst = append(dst, set...)
		}
	}
	if m != nil {
		dst = append(dst, m)
	}
	return dst
}

// Rooms appends the names of all rooms to dst, except the members' own rooms.
func (h *Hub) Rooms(dst []string) []string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for name := range h.rooms.All() {
		dst = append(dst, name)
	}
	return dst
}

// CountRooms returns the number of rooms, except the members' own rooms.
func (h *Hub) CountRooms() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.rooms.Len()
}

// Delivered returns how many messages were passed to connections. It counts a message once for each
// connection.
func (h *Hub) Delivered() uint64 { return h.delivered.Load() }

// Dropped returns how many messages were dropped because too much was waiting in a connection.
func (h *Hub) Dropped() uint64 { return h.dropped.Load() }

// Encrypted returns the number of encrypted members.
func (h *Hub) Encrypted() int { return int(h.encrypted.Load()) }

// Unsealed returns how many messages were dropped because they could not be encrypted. It counts a
// message once for each member.
func (h *Hub) Unsealed() (n uint64) {
	for _, l := range h.lanes {
		n += l.sealer.unsealed.Load()
	}
	return n
}

// Wait blocks until all goroutines that encrypt have ended. The loops must have ended before.
func (h *Hub) Wait() {
	h.sealPool.done.Wait()
	h.transformers.done.Wait()
}
