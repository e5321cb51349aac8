package session

// HasTransient reports whether the session has state that an idle session does without.
func (s *Session) HasTransient() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transient != nil
}

// HoldInflating has all messages wait to be inflated until free is called.
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
