package session

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/fifo"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ticket"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// ticketInterval is the longest time for which a client whose rooms have changed waits for a new
// ticket.
const ticketInterval = time.Second

// Tickets issues the tickets of a node's clients, and decides about those with which clients resume
// their sessions. Its methods may be called from any goroutine.
type Tickets struct {
	// Set before the first use, then read-only.

	Sealer   *ticket.Sealer
	Register *ticket.Register
	Lifetime time.Duration // of a ticket
	// Grace is how long the last callbacks of a client with a ticket wait for the client to resume
	// its session. 0: they do not wait.
	Grace     time.Duration
	MaxAbsent int          // clients whose last callbacks wait; 0: no limit
	Clock     *clock.Clock // measures Grace
	// Claim asks all nodes, this one included, whether a ticket may be used, and makes them close
	// their connections of the client, as Claimed does. It may block until ctx is done.
	Claim func(ctx context.Context, t *ticket.Ticket) error

	// mu guards the fields below. It is taken after Session.mu. Only the locks of Register and
	// Clock are taken under it.
	mu       sync.Mutex
	clients  map[hub.ID]*ticketHolder
	renewal  fifo.Queue[*ticketHolder] // all holders, that with the oldest ticket first
	changed  []*ticketHolder           // those whose tickets may be out of date
	absences absences
}

// A ticketHolder is a client that gets tickets, from its admission until its callbacks have
// returned. The fields are guarded by Tickets.mu, except issuing.
type ticketHolder struct {
	session    *Session // nil when the client has ended
	user       string
	generation uint32    // of the tickets
	queued     time.Time // when it was put into Tickets.renewal
	outdated   bool      // the rooms or the metadata have changed since the last ticket
	listed     bool      // is in Tickets.changed
	issued     time.Time // when the last ticket was issued; zero if the client has none
	absence    absence
	ended      chan struct{} // closed when the client has ended; made by the first awaitEnd

	issuing sync.Mutex // held while a ticket is made, so that the newest is sent last; taken first
}

// TicketStats count tickets since the start.
type TicketStats struct {
	Issued      atomic.Uint64
	Failed      atomic.Uint64 // not issued: too large, or the metadata cannot be encoded
	Accepted    atomic.Uint64
	Invalid     atomic.Uint64 // rejected: malformed, of a foreign key, or from the future
	Expired     atomic.Uint64
	Used        atomic.Uint64 // before
	Revoked     atomic.Uint64
	Unavailable atomic.Uint64 // rejected because it could not be decided, or by the application
	Displaced   atomic.Uint64 // absences that ended early because there were too many
}

// hold makes the client a holder of tickets. The caller holds the mu of the session, which is about
// to be admitted, and then issues the first ticket.
func (t *Tickets) hold(s *Session, user string, generation uint32) *ticketHolder {
	h := &ticketHolder{session: s, user: user, generation: generation, queued: time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clients == nil {
		t.clients = make(map[hub.ID]*ticketHolder)
	}
	t.clients[s.member.Key()] = h
	t.renewal.Push(h)
	return h
}

// remove ends the tickets of a client whose callbacks have returned.
func (t *Tickets) remove(s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.clients[s.member.Key()]; h != nil && h.session == s {
		delete(t.clients, s.member.Key())
		t.unlistLocked(h)
		h.session = nil
		if h.ended != nil {
			close(h.ended)
		}
	}
}

// change makes the client get a new ticket soon.
func (t *Tickets) change(s *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.clients[s.member.Key()]
	if h == nil || h.session != s {
		return
	}
	h.outdated = true
	if !h.listed {
		h.listed = true
		t.changed = append(t.changed, h)
	}
}

// flush issues a new ticket if that of the client is out of date, or waits until a ticket that is
// being made has been sent.
func (t *Tickets) flush(s *Session) {
	t.mu.Lock()
	h := t.clients[s.member.Key()]
	t.mu.Unlock()
	if h == nil {
		return
	}
	h.issuing.Lock()
	defer h.issuing.Unlock()
	t.mu.Lock()
	outdated := h.session == s && h.outdated
	t.mu.Unlock()
	if outdated {
		t.send(h)
	}
}

// Run renews tickets until stop is closed: those that are out of date, and those that have reached
// half of their lifetime. It also ends absences after Grace.
func (t *Tickets) Run(stop <-chan struct{}) {
	tick := time.NewTicker(max(graceInterval(t.Grace, min(ticketInterval, t.Lifetime/16)), time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
		for _, h := range t.due(time.Now()) {
			t.issue(h)
		}
		t.endOldAbsences()
	}
}

// due returns the holders that need a new ticket.
func (t *Tickets) due(now time.Time) []*ticketHolder {
	t.mu.Lock()
	defer t.mu.Unlock()
	var due []*ticketHolder
	for _, h := range t.changed {
		h.listed = false
		if h.outdated { // it has not got a ticket meanwhile
			due = append(due, h)
		}
	}
	t.changed = nil
	for n := t.renewal.Len(); n > 0; n-- {
		h := *t.renewal.Peek()
		if now.Sub(h.queued) < t.Lifetime/2 {
			break
		}
		t.renewal.Pop()
		if h.session == nil {
			continue
		}
		h.queued = now
		t.renewal.Push(h)
		if !h.outdated {
			due = append(due, h)
		}
	}
	return due
}

// issue sends the client a ticket.
func (t *Tickets) issue(h *ticketHolder) {
	h.issuing.Lock()
	defer h.issuing.Unlock()
	t.send(h)
}

// send makes a ticket and sends it. The caller holds h.issuing.
func (t *Tickets) send(h *ticketHolder) {
	t.mu.Lock()
	s := h.session
	h.outdated = false
	t.mu.Unlock()
	if s == nil || s.ended() {
		return
	}
	tk := ticket.Ticket{Client: s.member.Key(), Generation: h.generation, User: h.user, Encrypted: s.Encrypted()}
	callback.Run(func() (err error) {
		if s.env.Calls.EncodeValue != nil {
			if tk.Metadata, err = s.env.Calls.EncodeValue(s); err != nil {
				return err
			}
		}
		tk.Rooms, tk.Credentials = s.Rooms(), ExpiresAt(s)
		text, err := t.Sealer.Seal(&tk, time.Now())
		if err == nil {
			t.mu.Lock()
			h.issued = tk.Issued
			t.mu.Unlock()
			s.env.Stats.Tickets.Issued.Add(1)
			s.member.Notice(ws.NewMessage(protocol.AppendTicket(nil, text, tk.Expires)))
		}
		return err
	}, func(err error) {
		s.env.Stats.Tickets.Failed.Add(1)
		s.env.Log.Warn("client gets no ticket", "client", s.ID(), "error", err)
	})
}

// Claimed handles that a node, perhaps this one, resumes a session with the ticket. It records
// that, closes the client here if it is connected, and ends its absence. When it has returned, the
// hub does not have the client. It returns the number of clients that it has closed. It never
// blocks, so a broker may call it.
func (t *Tickets) Claimed(tk *ticket.Ticket) (closed int, err error) {
	if err := t.Register.Accept(tk); err != nil {
		return 0, err
	}
	t.mu.Lock()
	h := t.clients[tk.Client]
	var s *Session
	if h != nil {
		s = h.session
	}
	t.mu.Unlock()
	switch {
	case s == nil:
		return 0, nil
	case s.closeNow(closeRequest{code: protocol.CloseResumed, reason: protocol.ReasonResumed, moved: true}):
		return 1, nil
	}
	t.returned(s)
	return 0, nil
}

// errStillEnding is why a ticket is rejected whose client has callbacks here that do not return.
var errStillEnding = errors.New("the callbacks of the client's last connection have not returned")

// awaitEnd waits until the callbacks for the last connection of the client have returned.
func (t *Tickets) awaitEnd(ctx context.Context, client hub.ID) error {
	t.mu.Lock()
	h := t.clients[client]
	if h == nil {
		t.mu.Unlock()
		return nil
	}
	if h.ended == nil {
		h.ended = make(chan struct{})
	}
	t.mu.Unlock()
	select {
	case <-h.ended:
		return nil
	case <-ctx.Done():
		return errStillEnding
	}
}

// Changed makes the client get a new ticket soon, if it gets tickets. It never blocks.
func Changed(s *Session) {
	s.mu.Lock()
	g := s.grants
	s.mu.Unlock()
	if g.has(resume) {
		s.env.Tickets.change(s)
	}
}
