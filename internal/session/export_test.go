package session

// HasRare reports whether the session has state that an idle session does without.
func (s *Session) HasRare() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rare != nil
}

// HoldInflating has all messages wait to be inflated until free is called.
func (e *Env) HoldInflating() (free func()) {
	e.inflating.enter()
	n := cap(e.inflating.places)
	for range n - 1 {
		e.inflating.enter()
	}
	return func() {
		for range n {
			e.inflating.leave()
		}
	}
}
