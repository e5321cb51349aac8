package session

// transient is the state that a session needs before the client is authenticated, at its end, and
// while something waits: a context that is in use, unparsed bytes, unreported changes of rooms,
// or a close behind queued messages. It is nil otherwise, as it is for an idle client without rates
// whose credentials do not expire. Session.mu guards it.
type transient struct {
	pendingClient *pendingClient // until the client is authenticated or the session ends
	done          chan struct{}  // closed at the end; made by the first call of sessionContext.Done
	closeInfo     *closeInfo     // once the session has ended
	unparsed      []byte         // part of a read, not parsed because the client was paused
	parsing       bool           // a worker parses what was in unparsed
	rates         *rates         // if rates are limited
	credentials   *credentials   // if they expire, or have been replaced
	changes       roomChanges    // not reported yet
	questions     []*question    // that wait for an answer
	answering     bool           // a goroutine looks for answers in the inbox
	deferredClose *closeRequest  // to do when all messages that were received are handled
}

// closeInfo says how a session ended. Session.mu guards the flags. The rest does not change after
// Session.disconnect.
type closeInfo struct {
	code          int
	reason        string
	rooms         []string       // that the client was in
	pendingClient *pendingClient // if the client was never authenticated; nil otherwise

	socketClosed       bool
	absent             bool // the leaves and the disconnected callback wait for Tickets.Grace
	moved              bool // the session was resumed on another connection
	leavesQueued       bool // the rooms were queued for the left callback
	disconnectedCalled bool // the disconnected callback has been called
	finished           bool // no worker will run for the session
}

// client returns the session's entry in the lobby, or nil.
func (t *transient) client() *pendingClient {
	if t == nil {
		return nil
	}
	return t.pendingClient
}

// hasWork reports whether there is work for a worker besides messages.
func (t *transient) hasWork() bool { return t != nil && (len(t.changes) > 0 || t.hasDeferred()) }

// hasDeferred reports whether there is work for when the inbox is short or empty.
func (t *transient) hasDeferred() bool {
	return t != nil && (t.unparsed != nil || t.deferredClose != nil)
}

// orNil returns t, or nil if the session can do without t.
func (t *transient) orNil() *transient {
	if t != nil && t.pendingClient == nil && t.done == nil && t.closeInfo == nil && t.unparsed == nil && !t.parsing &&
		t.rates == nil && t.credentials == nil && len(t.changes) == 0 && len(t.questions) == 0 && !t.answering && t.deferredClose == nil {
		return nil
	}
	return t
}

// dropUnparsed discards the bytes that were not parsed.
func (t *transient) dropUnparsed() {
	if t != nil {
		t.unparsed, t.parsing = nil, false
	}
}

// transientLocked returns the transient state, and makes it first if there is none.
func (s *Session) transientLocked() *transient {
	if s.transient == nil {
		s.transient = new(transient)
	}
	return s.transient
}
