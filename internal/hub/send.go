package hub

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/ws"
)

// Kind is the kind of a Target.
type Kind uint8

// The kinds of target (protocol §6).
const (
	All Kind = iota
	Client
	User
	Room
	None // a target without members
)

// Target names the receivers of a message: all clients, one client, the clients of one user, or the
// members of one room.
type Target struct {
	Kind Kind
	Name string // empty for All
}

// resolve returns the target's group, its single member, or both: the room that is named by the id
// of a client has that client as a member, and those that the server has joined to it.
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

// Send queues msg for the target's members, except those whose ids are in exclude. exclude is
// ignored if the target is a client or a user. A target without members is no error. Send returns
// ErrQueueFull if at least one lane was full. It never waits for a connection.
func (h *Hub) Send(t Target, msg *ws.Message, exclude []string) error {
	return h.SendFunc(t, func() *ws.Message { return msg }, exclude)
}

// SendFunc is like Send, and calls message only if the target has members: most messages of other
// nodes have no receiver on this node.
func (h *Hub) SendFunc(t Target, message func() *ws.Message, exclude []string) error {
	h.mu.RLock()
	g, m := h.resolve(t)
	empty := m == nil && (g == nil || g.size == 0)
	h.mu.RUnlock()
	if empty {
		return nil
	}
	msg := message() // without the lock, because the message may be large
	if h.deflating.Load() > 0 {
		msg.Deflated() // compresses the message on this goroutine, not on a loop
		msg.Positioned().Deflated()
	}
	// Members that have left since then get nothing. A room that has lost all members and got new
	// ones since then is another group. Its members have joined during this call, so they need not
	// get the message.
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
		for i, set := range g.sets {
			if n := len(set); n > 0 {
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

// SendTo queues msg for m. It returns ErrNotMember if m has left, and ErrQueueFull if the lane is
// full.
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

// Pending returns how many bytes wait for the slowest member of the target, including those in its
// lane. The messages that a turn handles count in the lane until its end, so they may count twice
// for a moment, and no message is missed. Pending returns 0 for a target without members.
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
	for i, set := range g.sets {
		if len(set) == 0 {
			continue
		}
		n := h.lanes[i].pending(encrypted)
		slowest := 0
		if h.lanes[i].mayHaveBacklog() {
			for _, m := range set {
				slowest = max(slowest, m.Buffered())
			}
		}
		largest = max(largest, n+slowest)
	}
	return largest
}

// mayHaveBacklog reports whether bytes may wait for any of the lane's members after the lane.
// Messages that move from one queue to the next count in both, and the queues are read in the order
// in which messages pass them. Only a switch to encryption moves bytes back, so mayHaveBacklog
// reads the number of switches twice.
func (l *Lane) mayHaveBacklog() bool {
	changes := l.sealer.switched.Load()
	return l.sealer.waiting.Load() > 0 || l.hub.backlogged(l.index) || l.sealer.switched.Load() != changes
}

// pending returns how many bytes wait in the lane. encrypted means that a receiver may be
// encrypted, so they may become more. Callers read it before they read the members, in the order in
// which messages pass them, so they miss none.
func (l *Lane) pending(encrypted bool) int {
	n, bytes := int(l.messages.Load()), int(l.waiting.Load())
	if encrypted {
		return maxSealedSize(n, bytes)
	}
	return bytes
}

// WaitPending blocks until Pending(t) is at most limit, or until ctx is done. It returns nil, or
// the error of ctx.
func (h *Hub) WaitPending(ctx context.Context, t Target, limit int) error {
	if h.Pending(t) <= limit {
		return ctx.Err()
	}
	h.waiters.n.Add(1)
	defer h.waiters.n.Add(-1)
	changed := h.waiters.next()
	// A turn that began before this goroutine was counted does not wake it, so make sure that
	// another turn follows.
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

// waiters are the goroutines in WaitPending.
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

// wake makes all waiters check again.
func (w *waiters) wake() {
	if !w.any() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
}
