package session

import (
	"container/list"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ticket"
)

// An absence is the time between the end of a client that holds a ticket and the last callbacks of
// its session: Left for its rooms, and Disconnected. It ends after Tickets.Grace, or when a node
// claims the session, or its tickets are revoked.

// absences are the clients that are absent. All absences are equally long, so the list has the
// oldest first, and Tickets.Run ends those that are over. Tickets.mu guards it.
type absences struct {
	list   list.List // of *ticketHolder
	closed bool      // no absence begins any more
}

// An absence is the part of a ticketHolder about its absence. Tickets.mu guards it.
type absence struct {
	element *list.Element // in absences.list; nil if the client is not absent
	until   clock.Instant
}

// beginAbsence makes the client absent if it can resume its session. The caller holds the mu of the
// session, which ends. If there are too many absences then, beginAbsence returns the session whose
// absence must end, and the caller calls endAbsence for it when it has released mu.
func (t *Tickets) beginAbsence(s *Session) (begun bool, displaced *Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.clients[s.member.Key()]
	if t.Grace == 0 || t.absences.closed || h == nil || h.session != s || h.issued.IsZero() {
		return false, nil
	}
	if t.Register.Revoked(&ticket.Ticket{Client: s.member.Key(), User: h.user, Issued: h.issued}) {
		return false, nil
	}
	h.absence = absence{element: t.absences.list.PushBack(h), until: t.Clock.Now().Add(t.Grace)}
	if t.MaxAbsent > 0 && t.absences.list.Len() > t.MaxAbsent {
		oldest, _ := t.absences.list.Front().Value.(*ticketHolder)
		displaced = oldest.session
		t.unlistLocked(oldest)
	}
	return true, displaced
}

// unlistLocked takes the holder off the list of absences.
func (t *Tickets) unlistLocked(h *ticketHolder) {
	if h.absence.element != nil {
		t.absences.list.Remove(h.absence.element)
		h.absence = absence{}
	}
}

// returned handles that the session, which has ended, is resumed on another connection.
func (t *Tickets) returned(s *Session) {
	t.mu.Lock()
	if h := t.clients[s.member.Key()]; h != nil && h.session == s {
		t.unlistLocked(h)
	}
	t.mu.Unlock()
	endAbsence(s, true)
}

// endAbsencesOf ends the absences that match.
func (t *Tickets) endAbsencesOf(match func(h *ticketHolder) bool) {
	var ended []*Session
	t.mu.Lock()
	for e := t.absences.list.Front(); e != nil; {
		h, _ := e.Value.(*ticketHolder)
		e = e.Next()
		if match(h) {
			ended = append(ended, h.session)
			t.unlistLocked(h)
		}
	}
	t.mu.Unlock()
	for _, s := range ended {
		endAbsence(s, false)
	}
}

// endOldAbsences ends the absences that have lasted for Grace.
func (t *Tickets) endOldAbsences() {
	var ended []*Session
	t.mu.Lock()
	now := t.Clock.Now()
	for t.absences.list.Len() > 0 {
		h, _ := t.absences.list.Front().Value.(*ticketHolder)
		if h.absence.until > now {
			break
		}
		ended = append(ended, h.session)
		t.unlistLocked(h)
	}
	t.mu.Unlock()
	for _, s := range ended {
		endAbsence(s, false)
	}
}

// CloseAbsences ends all absences. From then on, the last callbacks of sessions do not wait.
func (t *Tickets) CloseAbsences() {
	t.mu.Lock()
	t.absences.closed = true
	t.mu.Unlock()
	t.endAbsencesOf(func(*ticketHolder) bool { return true })
}

// Absent returns the number of absent clients.
func (t *Tickets) Absent() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.absences.list.Len()
}

// RevokeUser makes the tickets useless that the user's clients have got until now, see
// ticket.Register.RevokeUser, and ends the absences of these clients. It never blocks.
func (t *Tickets) RevokeUser(user string) {
	t.Register.RevokeUser(user)
	t.endAbsencesOf(func(h *ticketHolder) bool { return h.user == user })
}

// RevokeClient makes the tickets of the client useless, see ticket.Register.RevokeClient, and ends
// its absence. It never blocks.
func (t *Tickets) RevokeClient(client hub.ID) {
	t.Register.RevokeClient(client)
	t.mu.Lock()
	var s *Session
	if h := t.clients[client]; h != nil && h.absence.element != nil {
		s = h.session
		t.unlistLocked(h)
	}
	t.mu.Unlock()
	if s != nil {
		endAbsence(s, false)
	}
}

// endAbsence lets the worker of a session that has ended call the last callbacks. moved means that
// the session was resumed on another connection.
func endAbsence(s *Session, moved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := s.transient.closeInfo
	info.absent = false
	if moved && !info.leavesQueued { // otherwise the first of the callbacks may have been called
		info.moved = true
	}
	s.scheduleLocked(false)
}

// Moved reports whether the session was resumed on another connection, in and after the callbacks
// for its end. It never blocks.
func Moved(s *Session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Before the leaves are queued, a left callback is for a room that the client has left itself.
	return s.ended() && s.transient.closeInfo.moved && s.transient.closeInfo.leavesQueued
}

// graceInterval returns how often absences are checked, or limit if there are none.
func graceInterval(grace, limit time.Duration) time.Duration {
	if grace == 0 {
		return limit
	}
	return min(limit, grace/4)
}
