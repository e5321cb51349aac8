// Package hub knows who is connected (clients by id, by user, by room) and carries messages to them.
//
// It has two halves. The index (Hub, Member, group) answers who is where, under one lock that is never held while
// anything is written. The lanes (Lane) carry: one for each event loop, a queue that any goroutine fills and that only
// the loop empties, so that what one goroutine sends to one client arrives in that order, whatever the path: to the
// client, to its user, to a room or to everyone.
//
// Lock order: Hub.mu before Lane.mu. No lock is held while a Link is written.
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

// ErrQueueFull is returned by sends when a lane has Config.Queue bytes waiting: the publishers are faster than the loop.
// Nothing was queued for any lane that was full; lanes with room were served.
var ErrQueueFull = errors.New("send queue is full")

// ErrTooManyRooms is returned, perhaps wrapped, by Join when the member is in Config.MaxRooms rooms, or the names of its
// rooms would have more than Config.RoomNames bytes.
var ErrTooManyRooms = errors.New("client is in too many rooms")

// ErrNotMember is returned by Join for a member that has left the hub or never was in it.
var ErrNotMember = errors.New("client is not connected")

// Config is what a Hub is made with.
type Config struct {
	// Lanes is the number of event loops. At least 1.
	Lanes int
	// Wake makes a lane's loop call Tick soon. Called from any goroutine, must not block. Required.
	Wake func(lane int)
	// Backlogged reports whether any of a lane's links may have Buffered bytes. Called from any goroutine, must not
	// block. Default: each link is asked.
	Backlogged func(lane int) bool
	// MaxRooms bounds the rooms of one member, its own not counted. 0: no bound.
	MaxRooms int

	// RoomNames bounds the bytes of the names of one member's rooms, its own not counted. 0: no bound.
	RoomNames int
	// SendQueue bounds the bytes of messages that wait in one lane. 0: 64 MiB.
	SendQueue int
	// BackpressureLimit bounds the bytes that wait for one encrypted member, what its connection holds included. 0: 1 MiB.
	BackpressureLimit int
	// BatchLimit bounds for how many members one fan-out is encrypted at a time. 0: 10.
	BatchLimit int
}

// Hub is the index of who is connected. Its methods may be called from any goroutine and do not block beyond its lock.
type Hub struct {
	// Set by New, then read-only.
	lanes      []*Lane
	maxRooms   int
	roomNames  int
	wake       func(lane int)
	backlogged func(lane int) bool

	sealPool     sealPool
	transformers transformers

	deflating    atomic.Int64 // members that take compressed messages: publishers compress only for somebody
	encrypted    atomic.Int64 // members
	transforming atomic.Int64 // members: without any, a fan-out needs no semaphore
	delivered    atomic.Uint64
	dropped      atomic.Uint64

	waiters waiters

	mu      sync.RWMutex // guards the fields below and, in each Member, what says so; before Lane.mu
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

// ResumeAll resumes all that wait for a turn, once the loops have ended. Nobody is held from then on.
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

// Admission is what makes a connection a member.
type Admission struct {
	User    string   // empty: anonymous
	Rooms   []string // joined besides the member's own; valid names
	Welcome *ws.Message
	// Encryption makes the welcome the last message in clear. Nil: none.
	Encryption *Encryption
}

// Admit indexes m by id and user, joins it to its rooms and queues the welcome, in one step for everybody who looks:
// nothing reaches m before the welcome, and everything that is sent after Admit has returned reaches it.
func (h *Hub) Admit(m *Member, a Admission) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.admitted, m.ownRoom = true, true
	h.clients.put(m)
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
}

// countLocked counts m in or out by the form in which it takes messages.
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

// Remove takes m out of the index and returns its user and the rooms that it was in, its own included; ok is false when
// it was not in it. What was queued for m before may still be written.
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
	h.waiters.wake() // it may have been the slowest
	return userID, rooms, true
}

// Join makes m a member of the named room; joined is false when it already was. The name must be valid.
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

// Leave ends m's membership in the named room, and reports whether there was one.
func (h *Hub) Leave(m *Member, name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.waiters.wake() // it may have been the slowest
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

// leaveLocked takes m out of the group at m.places[i]; a room or user without members ceases to exist.
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

// group finds or makes the group of that name.
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

// clientLocked returns the member whose id has this text, or nil.
func (h *Hub) clientLocked(text string) *Member {
	id, ok := parseID(text)
	if !ok {
		return nil
	}
	return h.clients.get(id)
}

// Count returns how many members the target has here.
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

// Members appends the members of the target to dst: a copy, safe to keep.
func (h *Hub) Members(dst []*Member, t Target) []*Member {
	h.mu.RLock()
	defer h.mu.RUnlock()
	g, m := h.resolve(t)
	if g != nil {
		dst = slices.Grow(dst, g.size)
		for i := range g.sets {
			dst = g.sets[i].appendTo(dst)
		}
	}
	if m != nil {
		dst = append(dst, m)
	}
	return dst
}

// Rooms appends the names of all rooms to dst, members' own rooms not included.
func (h *Hub) Rooms(dst []string) []string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for name := range h.rooms.All() {
		dst = append(dst, name)
	}
	return dst
}

// CountRooms is the number of rooms that have members, members' own rooms not included.
func (h *Hub) CountRooms() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.rooms.Len()
}

// Delivered is how many messages were handed to connections, one for each.
func (h *Hub) Delivered() uint64 { return h.delivered.Load() }

// Dropped is how many messages were dropped because a connection had too much waiting.
func (h *Hub) Dropped() uint64 { return h.dropped.Load() }

// Encrypted is how many members are.
func (h *Hub) Encrypted() int { return int(h.encrypted.Load()) }

// Unsealed is how many messages were lost because they could not be encrypted, one for each member.
func (h *Hub) Unsealed() (n uint64) {
	for _, l := range h.lanes {
		n += l.sealer.unsealed.Load()
	}
	return n
}

// Wait blocks until nothing is being encrypted any more. No lane may be given a turn from then on.
func (h *Hub) Wait() {
	h.sealPool.done.Wait()
	h.transformers.done.Wait()
}
