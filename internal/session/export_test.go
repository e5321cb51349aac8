package session

import "github.com/hearthws/hearth/internal/hub"

// Owner returns the session as the owner of its member.
func (s *Session) Owner() hub.Owner { return owner{s} }

// Paused reports whether the server does not read from the client.
func (s *Session) Paused() bool { return s.paused() }

// HasTransient reports whether the session has state that an idle session does not need.
func (s *Session) HasTransient() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transient != nil
}

// HoldInflating makes all compressed messages wait until free is called.
func (e *Env) HoldInflating() (free func()) {
	e.inflating.acquire()
	n := cap(e.inflating.places)
	for range n - 1 {
		e.inflating.acquire()
	}
	return func() {
		for range n {
			e.inflating.release()
		}
	}
}
