package ticket

import (
	"math"
	"sync"
	"time"
)

const (
	// DefaultMaxUsed is how many sessions a Register remembers at most that were resumed: 2^20,
	// about 50 MiB. Only an accepted ticket adds one, and resuming the same session again does not.
	DefaultMaxUsed = 1 << 20

	// DefaultMaxRevoked is how many users a Register remembers at most whose tickets were revoked.
	DefaultMaxRevoked = 1 << 16
)

// never is a generation that no ticket has.
const never = math.MaxUint32

// A Register remembers which tickets must not be accepted any more, until they have expired. Its
// methods are safe for concurrent use and do not block.
//
// Every resumed connection is a new generation of its session. The tickets of a connection have its
// generation, and the first of them that is used makes all of them useless: the Register remembers
// the generation that comes next for the client. So it has one entry for each resumed session, no
// matter how many tickets the session got.
//
// It forgets in two steps, which needs no order of the entries: after each period, it drops the
// entries of the period before the last. The period is as long as a ticket may be accepted.
type Register struct {
	// Set by NewRegister, then read-only.
	period     time.Duration
	maxUsed    int
	maxRevoked int

	mu    sync.Mutex // guards the fields below; innermost
	began time.Time  // of the current period
	// By client: the least generation to accept. The current period, and the one before.
	used [2]map[[16]byte]uint32
	// By user: tickets that were issued until then are rejected. The same periods.
	revoked [2]map[string]time.Time
	// The same for all tickets.
	allRevoked time.Time
}

// NewRegister makes a Register for tickets with that lifetime. It remembers at most maxUsed
// sessions and about maxRevoked users.
func NewRegister(lifetime time.Duration, maxUsed, maxRevoked int) *Register {
	r := &Register{period: lifetime + 2*MaxSkew, maxUsed: maxUsed, maxRevoked: maxRevoked, began: time.Now()}
	r.used[0], r.revoked[0] = map[[16]byte]uint32{}, map[string]time.Time{}
	return r
}

// Accept records that a session is resumed with the ticket. Errors: ErrRevoked, and those of Use.
func (r *Register) Accept(t *Ticket) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advanceLocked(time.Now())
	if r.isRevokedLocked(t) {
		return ErrRevoked
	}
	return r.useLocked(t.Client, t.Generation)
}

// Use records that another node resumes the client's session with a ticket of that generation. The
// error is ErrUsed if the session was resumed from that generation, or a later one, before. It is
// ErrFull if there is no room to remember this; then nothing is recorded.
func (r *Register) Use(client [16]byte, generation uint32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advanceLocked(time.Now())
	return r.useLocked(client, generation)
}

func (r *Register) useLocked(client [16]byte, generation uint32) error {
	least, known := r.used[0][client]
	if !known {
		least, known = r.used[1][client]
	}
	switch {
	case generation < least, generation == never:
		return ErrUsed
	case !known && len(r.used[0])+len(r.used[1]) >= r.maxUsed:
		return ErrFull
	}
	delete(r.used[1], client)
	r.used[0][client] = generation + 1
	return nil
}

// Revoked reports whether the ticket was revoked after it was accepted.
func (r *Register) Revoked(t *Ticket) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.isRevokedLocked(t) || r.used[0][t.Client] == never || r.used[1][t.Client] == never
}

// RevokeClient makes all tickets of the client useless, those that it will get in the next period
// included. If there is no room to remember this, it
// revokes the tickets of all users.
func (r *Register) RevokeClient(client [16]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.advanceLocked(now)
	if r.useLocked(client, never-1) == ErrFull {
		r.revokeAllLocked(now)
	}
}

// RevokeUser makes all tickets useless that the user's clients have got until now, by the clock of
// any node. Tickets that are issued within MaxSkew from now may be rejected too. If there are too
// many such users, it revokes the tickets of all of them, and forgets none.
func (r *Register) RevokeUser(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.advanceLocked(now)
	delete(r.revoked[1], user)
	r.revoked[0][user] = now.Add(MaxSkew)
	if len(r.revoked[0])+len(r.revoked[1]) > r.maxRevoked {
		r.revokeAllLocked(now)
	}
}

// revokeAllLocked revokes the tickets that were issued until now.
func (r *Register) revokeAllLocked(now time.Time) {
	r.allRevoked = now.Add(MaxSkew)
	r.revoked = [2]map[string]time.Time{{}, nil}
}

func (r *Register) isRevokedLocked(t *Ticket) bool {
	for _, until := range []time.Time{r.allRevoked, r.revoked[0][t.User], r.revoked[1][t.User]} {
		if !t.Issued.After(until) {
			return true
		}
	}
	return false
}

// advanceLocked begins a new period if the current one has ended.
func (r *Register) advanceLocked(now time.Time) {
	ended := now.Sub(r.began) / r.period // by the monotonic clock
	if ended == 0 {
		return
	}
	r.used[1], r.revoked[1] = r.used[0], r.revoked[0]
	if ended > 1 {
		r.used[1], r.revoked[1] = nil, nil
	}
	r.used[0], r.revoked[0] = map[[16]byte]uint32{}, map[string]time.Time{}
	r.began = now
}
