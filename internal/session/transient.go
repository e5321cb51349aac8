package session

// rare is the state that a session needs at its beginning, at its end, when its end is awaited,
// while callbacks have not heard of a change of its rooms, and while the client sends faster than
// its messages are handled. An idle authenticated session has none.
type transient struct {
	pendingClient *pendingClient // until authenticated
	done          chan struct{}  // closed at the end; made when somebody asks
	closeInfo     *closeInfo     // once it has ended
	unparsed      []byte         // read, and not parsed because the client was paused; at most one read
	parsing       bool           // a worker parses what was rest
	rates         *rates         // where rates are limited
	changes       []roomChange   // of the client's rooms, not reported yet, in their order: see changedLocked
	deferredClose *closeRequest  // how the session ends once all that has been received is handled
}

// An end is how a session did. The flags are guarded by Session.mu; the rest does not change once
// that has been given up.
type closeInfo struct {
	code               int
	reason             string
	rooms              []string       // that it was in
	pendingClient      *pendingClient // of a client that was never authenticated: in the lobby until the socket is closed
	socketClosed       bool           // the socket is
	leavesQueued       bool           // rooms were queued for the left callback
	disconnectedCalled bool           // the disconnected callback has begun
	finished           bool           // nothing will run for it any more
}

func (s *Session) transientLocked() *transient {
	if s.transient == nil {
		s.transient = new(transient)
	}
	return s.transient
}

// pendingClientLocked is the session as the lobby has it, nil when it has it no more.
func (s *Session) pendingClientLocked() *pendingClient {
	if s.transient == nil {
		return nil
	}
	return s.transient.pendingClient
}

// dropPendingClientLocked makes the session no guest any more.
func (s *Session) dropPendingClientLocked() {
	s.transient.pendingClient = nil
	s.freeTransientLocked()
}

// freeTransientLocked gives rare back if there is nothing in it.
func (s *Session) freeTransientLocked() {
	if r := s.transient; r != nil && r.pendingClient == nil && r.done == nil && r.closeInfo == nil && r.unparsed == nil && !r.parsing && len(r.changes) == 0 && r.deferredClose == nil && r.rates == nil {
		s.transient = nil
	}
}
