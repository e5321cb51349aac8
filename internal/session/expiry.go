package session

import (
	"container/heap"
	"sync"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

const (
	// maxExpiryWait bounds the time between two checks while credentials can expire. They expire by
	// the wall clock, and timers do not follow its steps, nor the time in which a machine sleeps.
	maxExpiryWait = 10 * time.Second
	// expiryBatch is how many clients are handled between two checks of the list.
	expiryBatch = 256
)

// credentials is what a session knows about the credentials of its client. Sessions whose
// credentials do not expire have none, unless the client has authenticated again.
type credentials struct {
	session *Session // read-only

	// Session.mu guards these.
	expires   time.Time // without a monotonic reading; zero: never
	expired   bool      // the session is being closed, so the credentials cannot be replaced
	replacing bool      // an authenticate callback runs for new credentials
	replaced  bool      // there was one
	started   clock.Instant

	// Expirations.mu guards these.
	next  time.Time // when to act; at first the time to tell the client, then when it expires
	last  time.Time // expires
	index int       // in Expirations.queue plus 1; 0: not listed
}

// Expirations has the clients whose credentials expire, ordered by the time of the next action: to
// tell the client, or to close it. One timer serves all. The zero Expirations is empty. Its methods
// may be called from any goroutine, and do not block.
type Expirations struct {
	// mu guards the fields below. It is innermost.
	mu     sync.Mutex
	queue  expiryQueue
	timer  *time.Timer
	fires  time.Time // when the timer fires, by the monotonic clock; zero if it is not set
	closed bool
}

// set lists c with its time of expiry, in place of an earlier one. The client is told when notice
// is left, or half of the time if that is less; a notice of 0 means never. A zero time removes c.
func (x *Expirations) set(c *credentials, expires time.Time, notice time.Duration) {
	now := wallClock()
	x.mu.Lock()
	defer x.mu.Unlock()
	if c.index > 0 {
		heap.Remove(&x.queue, c.index-1)
	}
	if expires.IsZero() || x.closed {
		return
	}
	c.last = expires
	c.next = expires.Add(-min(notice, max(0, expires.Sub(now)/2)))
	heap.Push(&x.queue, c)
	x.armLocked(now)
}

// expired reports whether the credentials have expired.
func (id Identity) expired() bool { return !id.Expires.IsZero() && !id.Expires.After(wallClock()) }

// wallClock returns the time without a monotonic reading, so that comparisons use the wall clock.
func wallClock() time.Time { return time.Now().Round(0) }

// armLocked sets the timer for the first client, unless it fires earlier anyway.
func (x *Expirations) armLocked(now time.Time) {
	if len(x.queue) == 0 || x.closed {
		return
	}
	wait := min(max(0, x.queue[0].next.Sub(now)), maxExpiryWait)
	fires := time.Now().Add(wait)
	if !x.fires.IsZero() && !fires.Before(x.fires) {
		return
	}
	x.fires = fires
	if x.timer == nil {
		x.timer = time.AfterFunc(wait, x.fire)
	} else {
		x.timer.Reset(wait)
	}
}

// fire acts for all clients whose time has come. The timer calls it.
func (x *Expirations) fire() {
	x.mu.Lock()
	x.fires = time.Time{}
	x.mu.Unlock()
	for more := true; more; {
		now := wallClock()
		var due []expiry
		x.mu.Lock()
		for len(x.queue) > 0 && !x.queue[0].next.After(now) && len(due) < expiryBatch && !x.closed {
			due = append(due, x.popLocked())
		}
		if more = len(due) == expiryBatch; !more {
			x.armLocked(now)
		}
		x.mu.Unlock()
		for _, e := range due {
			e.act(now)
		}
	}
}

// popLocked takes the first client. A client that is told of its expiry is listed again.
func (x *Expirations) popLocked() expiry {
	c := x.queue[0]
	e := expiry{credentials: c, at: c.last, final: !c.next.Before(c.last)}
	if e.final {
		heap.Pop(&x.queue)
	} else {
		c.next = c.last
		heap.Fix(&x.queue, 0)
	}
	return e
}

// Close stops the timer. No client is told or closed from then on.
func (x *Expirations) Close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	if x.timer != nil {
		x.timer.Stop()
	}
}

// An expiry is an action that is due.
type expiry struct {
	*credentials
	at    time.Time // when the credentials expire
	final bool      // close the client; otherwise tell it
}

// act tells or closes the client, unless it has new credentials or has disconnected.
func (e expiry) act(now time.Time) {
	s := e.session
	s.mu.Lock()
	current := e.expires.Equal(e.at) && !s.ended()
	switch {
	case !current:
	case e.final:
		e.expired = true
	case s.grants.has(extension):
		s.member.Notice(ws.NewMessage(protocol.AppendExpiring(nil, e.at)))
	}
	s.mu.Unlock()
	if current && e.final {
		s.CloseFor(&s.env.Stats.Expired, protocol.CloseExpired, protocol.ReasonExpired)
	}
}

// An expiryQueue is a heap.Interface, first the credentials whose next action comes first.
type expiryQueue []*credentials

func (q expiryQueue) Len() int           { return len(q) }
func (q expiryQueue) Less(i, j int) bool { return q[i].next.Before(q[j].next) }

func (q expiryQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i+1, j+1
}

// Push implements heap.Interface.
func (q *expiryQueue) Push(c any) {
	added := c.(*credentials)
	*q = append(*q, added)
	added.index = len(*q)
}

// Pop implements heap.Interface. It gives memory back after a time with many clients.
func (q *expiryQueue) Pop() any {
	last := len(*q) - 1
	c := (*q)[last]
	(*q)[last] = nil
	c.index = 0
	if *q = (*q)[:last]; cap(*q) >= 64 && last < cap(*q)/4 {
		*q = append(make(expiryQueue, 0, 2*last), *q...)
	}
	return c
}

// credentialsLocked returns the session's credentials, and makes them first if there are none.
func credentialsLocked(s *Session) *credentials {
	t := s.transientLocked()
	if t.credentials == nil {
		t.credentials = &credentials{session: s}
	}
	return t.credentials
}

// setExpiryLocked makes the client's credentials expire at a time; zero: never.
func setExpiryLocked(s *Session, expires time.Time) {
	if expires.IsZero() && (s.transient == nil || s.transient.credentials == nil) {
		return
	}
	c := credentialsLocked(s)
	c.expires = expires.Round(0)
	notice := s.env.Timeouts.ExpiryNotice
	if !s.grants.has(extension) {
		notice = 0
	}
	s.env.Expirations.set(c, c.expires, notice)
}

// ExpiresAt returns when the credentials of the client expire, or did at its end; zero: never.
func ExpiresAt(s *Session) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.transient == nil || s.transient.credentials == nil {
		return time.Time{}
	}
	return s.transient.credentials.expires
}
