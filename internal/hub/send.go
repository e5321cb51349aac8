package hub

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/ws"
)

// Kind says what a Target is.
type Kind uint8

// The kinds of target (protocol §6).
const (
	All Kind = iota
	Client
	User
	Room
	None // no members, ever
)

// Target is where a message goes: everyone, one client, the sessions of one user, the members of one room.
type Target struct {
	Kind Kind
	Name string // not for All
}

// resolve finds the target's group, its single member, or both: a room that carries the id of a client has that
// client for a member, besides whom the server has joined to it.
func (h *Hub) resolve(t Target) (*group, *Member) {
	switch t.Kind {
	case All:
		return h.all, nil
	case Client:
		return nil, h.clientLocked(t.Name)
	case User:
		return h.users.Get(t.Name), nil
	case Room:
		m := h.clientLocked(t.Name)
		if m != nil && !m.ownRoom {
			m = nil
		}
		return h.rooms.Get(t.Name), m
	}
	return nil, nil
}

// Send queues msg for the target's members, but for those whose ids are excluded (rooms and everyone only).
// A target without members is no error. ErrQueueFull: at least one lane could not take it. Any goroutine; never blocks.
func (h *Hub) Send(t Target, msg *ws.Message, exclude []string) error {
	return h.SendFunc(t, func() *ws.Message { return msg }, exclude)
}

// SendFunc is Send of a message that is made only if the target has members: what other nodes send is mostly for nobody
// here. The target is looked up once, by the call that finds them.
func (h *Hub) SendFunc(t Target, message func() *ws.Message, exclude []string) error {
	h.mu.RLock()
	g, m := h.resolve(t)
	nobody := m == nil && (g == nil || g.size == 0)
	h.mu.RUnlock()
	if nobody {
		return nil
	}
	msg := message() // without the lock: it may be large
	if h.deflating.Load() > 0 {
		msg.Deflated() // here, once, by the sender: not on a loop
	}
	// Who has left meanwhile gets nothing. A room that has emptied and begun anew meanwhile is another group: those who are in
	// that one have joined while this call was under way, and may or may not have been there in time.
	h.mu.RLock()
	defer h.mu.RUnlock()
	var excluded []*Member
	if t.Kind == All || t.Kind == Room {
		for _, id := range exclude {
			if x := h.clientLocked(id); x != nil {
				excluded = append(excluded, x)
			}
		}
	}
	full := false
	if m != nil && m.admitted && !slices.Contains(excluded, m) {
		full = !m.lane.push(item{kind: direct, member: m, msg: msg})
	}
	if g != nil {
		var s *semaphore
		if h.transforming.Load() > 0 {
			s = h.transformers.semaphore()
		}
		for i := range g.sets {
			if n := len(g.sets[i].members); n > 0 {
				it := item{kind: fanOut, group: g, msg: msg, exclude: excluded, large: n >= largeFanOut, semaphore: s}
				full = !h.lanes[i].push(it) || full
			}
		}
	}
	if full {
		return ErrQueueFull
	}
	return nil
}

// SendTo queues msg for m itself. ErrNotMember when m has left.
func (h *Hub) SendTo(m *Member, msg *ws.Message) error {
	if m.Deflate && !m.Encrypted() {
		msg.Deflated()
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	if !m.admitted {
		return ErrNotMember
	}
	if !m.lane.push(item{kind: direct, member: m, msg: msg}) {
		return ErrQueueFull
	}
	return nil
}

// Pending is how many bytes the slowest member of the target has not taken yet, what waits in its lane included.
// What a turn is handing over counts in the lane until it is over, so for a moment it may count twice: never not at all.
// 0 for a target without members. Any goroutine.
func (h *Hub) Pending(t Target) int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	g, m := h.resolve(t)
	largest := 0
	if m != nil {
		largest = m.lane.pending(m.Encrypted())
		largest += m.Buffered()
	}
	if g == nil {
		return largest
	}
	encrypted := h.encrypted.Load() > 0
	for i := range g.sets {
		if len(g.sets[i].members) == 0 {
			continue
		}
		n := h.lanes[i].pending(encrypted)
		slowest := 0
		if h.lanes[i].mayHaveBacklog() {
			for _, m := range g.sets[i].members {
				slowest = max(slowest, m.Buffered())
			}
		}
		largest = max(largest, n+slowest)
	}
	return largest
}

// mayHaveBacklog reports whether something may wait for any of the lane's members behind the lane itself. What is on its way from one place to
// the next is counted in both, and they are asked in the order in which it goes; only a change to encryption takes bytes
// back, from a connection.
func (l *Lane) mayHaveBacklog() bool {
	changes := l.sealer.switched.Load()
	return l.sealer.waiting.Load() > 0 || l.hub.backlogged(l.index) || l.sealer.switched.Load() != changes
}

// pending is how many bytes wait in the lane, for somebody who may be encrypted: then they will be more. It is to be
// asked before the members, as the messages go: so none is missed.
func (l *Lane) pending(encrypted bool) int {
	n, bytes := int(l.messages.Load()), int(l.waiting.Load())
	if encrypted {
		return maxSealedSize(n, bytes)
	}
	return bytes
}

// WaitPending blocks until Pending(t) is at most limit, or ctx is done, whose error it then returns.
func (h *Hub) WaitPending(ctx context.Context, t Target, limit int) error {
	if h.Pending(t) <= limit {
		return ctx.Err()
	}
	h.waiters.n.Add(1)
	defer h.waiters.n.Add(-1)
	changed := h.waiters.next()
	// A turn that began before this waiter was counted may have told nobody: have another one come.
	for _, l := range h.lanes {
		l.wake()
	}
	for ; ; changed = h.waiters.next() {
		if h.Pending(t) <= limit {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waiters are the goroutines that wait for a lane to have moved.
type waiters struct {
	n       atomic.Int32
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at the next turn; guarded by mu
}

func (w *waiters) any() bool { return w.n.Load() > 0 }

func (w *waiters) next() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// wake lets all waiters look again.
func (w *waiters) wake() {
	if !w.any() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
}
