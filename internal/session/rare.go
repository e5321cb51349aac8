package session

// rare is the state that a session needs at its beginning, at its end, when its end is awaited,
// while callbacks have not heard of a change of its rooms, and while the client sends faster than
// its messages are handled. An idle authenticated session has none.
type rare struct {
	guest   *guest        // until authenticated
	done    chan struct{} // closed at the end; made when somebody asks
	end     *end          // once it has ended
	rest    []byte        // read, and not parsed because the client was paused; at most one read
	parsing bool          // a worker parses what was rest
	rates   *rates        // where rates are limited
	changes []change      // of the client's rooms, not reported yet, in their order: see changedLocked
	ending  *ending       // how the session ends once all that has been received is handled
}

// An end is how a session did. The flags are guarded by Session.mu; the rest does not change once
// that has been given up.
type end struct {
	code   int
	reason string
	rooms  []string // that it was in
	guest  *guest   // of a client that was never authenticated: in the lobby until the socket is closed
	gone   bool     // the socket is
	left   bool     // rooms were queued for the left callback
	told   bool     // the disconnected callback has begun
	final  bool     // nothing will run for it any more
}

func (s *Session) rareLocked() *rare {
	if s.rare == nil {
		s.rare = new(rare)
	}
	return s.rare
}

// guestLocked is the session as the lobby has it, nil when it has it no more.
func (s *Session) guestLocked() *guest {
	if s.rare == nil {
		return nil
	}
	return s.rare.guest
}

// welcomeLocked makes the session no guest any more.
func (s *Session) welcomeLocked() {
	s.rare.guest = nil
	s.tidyLocked()
}

// tidyLocked gives rare back if there is nothing in it.
func (s *Session) tidyLocked() {
	if r := s.rare; r != nil && r.guest == nil && r.done == nil && r.end == nil && r.rest == nil && !r.parsing && len(r.changes) == 0 && r.ending == nil && r.rates == nil {
		s.rare = nil
	}
}
