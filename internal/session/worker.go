package session

import (
	"context"
	"runtime"

	"github.com/hearthws/hearth/protocol"
)

// A worker is a Session on the goroutine of the pool that handles its input. It is the
// workpool.Task and the hub.Resumer of the session. At most one goroutine is the worker of a
// session at a time.
type worker struct{ *Session }

// A worker handles at most runMessages messages, of runBytes when inflated, before it is the turn
// of other sessions. A single message may be larger.
const (
	runMessages = 64
	runBytes    = 256 << 10
)

// A job is what a worker does next: report a change of rooms, or handle a message.
type job struct {
	change  roomChange // if it names a room
	message            // otherwise
	grants  grants     // of the client when the worker took the job
}

// Run handles a part of the input. It implements workpool.Task, and may block in callbacks.
func (w worker) Run() {
	for n, bytes := 0, 0; n < runMessages && bytes < runBytes; n++ {
		j, ok := w.next()
		switch {
		case !ok:
			return
		case j.change.room != "":
			w.report(j.change)
		default:
			bytes += w.handle(j)
		}
	}
	if !w.member.WaitTurn(w) {
		w.Resume()
	}
	runtime.Gosched() // otherwise Go lets a goroutine run for 10 ms, and event loops wait as long
}

// Resume queues the session for the rest of its input. It implements hub.Resumer.
func (w worker) Resume() { w.env.Pool.Submit(w) }

// next takes the oldest change of rooms, or otherwise the oldest message, so that the callbacks
// are called for a change before the next message is handled. It returns false if there is
// nothing to do; then the session has no worker any more.
func (w worker) next() (j job, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	box := &w.inbox
	for !box.connecting {
		if w.env.Abandoned.Load() {
			w.unlocked(w.discardInput)
		}
		t := w.transient
		switch {
		case t != nil && len(t.changes) > 0:
			j.change = t.changes.pop()
			w.transient = w.transient.orNil()
			return j, true
		case !box.empty():
			j.message, j.grants = box.pop(), w.grants
			if (box.paused || t.hasDeferred()) && box.short(w.env.Limits.ClientQueue) {
				w.unlocked(w.parseUnparsed)
			}
			return j, true
		case t != nil && t.unparsed != nil:
			w.unlocked(w.parseUnparsed)
		case w.ended() && t.closeInfo.absent:
			stopInputLocked(w.Session)
			box.running = false
			return j, false
		case w.ended() && !t.closeInfo.leavesQueued:
			t.closeInfo.leavesQueued = true
			for _, room := range t.closeInfo.rooms {
				w.changedLocked(room, false)
			}
		case w.ended():
			w.unlocked(w.finish)
			return j, false
		case t.hasDeferred():
			req := *t.deferredClose
			w.unlocked(func() { w.closeNow(req) })
		default:
			box.running = false
			return j, false
		}
	}
	box.running = false
	return j, false
}

// unlocked calls f without the lock, which the caller holds.
func (w worker) unlocked(f func()) {
	w.mu.Unlock()
	defer w.mu.Lock()
	f()
}

// discardInput drops and counts the messages that are not being handled yet.
func (w worker) discardInput() {
	w.mu.Lock()
	n := w.inbox.clear()
	w.transient.dropUnparsed()
	w.mu.Unlock()
	w.countDiscarded(n)
}

// parseUnparsed parses bytes that were kept, as long as the inbox is short. When none are left, the
// server reads from the client again.
func (w worker) parseUnparsed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.inbox.short(w.env.Limits.ClientQueue) {
		t := w.transient
		if t == nil || t.unparsed == nil {
			w.resumeLocked()
			return
		}
		unparsed := t.unparsed
		t.unparsed, t.parsing = nil, true
		w.unlocked(func() { unparsed = reader(w).parse(unparsed) })
		if t.parsing && len(unparsed) > 0 { // otherwise the session has ended and dropped the rest
			t.unparsed = unparsed
		}
		t.parsing = false
		w.transient = w.transient.orNil()
	}
}

// resumeLocked reads from a paused client again, unless the client is about to be closed.
func (w worker) resumeLocked() {
	t := w.transient
	if !w.inbox.paused || t != nil && t.deferredClose != nil {
		return
	}
	now := w.env.Clock.Now()
	w.lastRead.Store(int64(now)) // the client was not silent: the server did not read
	w.lastActive.Store(int64(now))
	t.advanceRates(now, w.inbox.paused)
	w.inbox.paused = false
	w.conn().Resume()
}

// report calls the callback for a change of the client's rooms.
func (w worker) report(c roomChange) {
	name, call := "left", w.env.Calls.Left
	if c.joined {
		name, call = "joined", w.env.Calls.Joined
	}
	if call == nil {
		return
	}
	w.runCallback(name, func(ctx context.Context) error {
		call(ctx, w.Session, c.room)
		return nil
	})
}

// finish calls the disconnected callback, after the left callbacks, and ends the work for the
// session.
func (w worker) finish() {
	w.mu.Lock()
	info := w.transient.closeInfo
	called := info.disconnectedCalled
	info.disconnectedCalled = true
	w.mu.Unlock()

	if w.grants.has(admitted) && !called && w.env.Calls.Disconnected != nil {
		w.runCallback("disconnected", func(ctx context.Context) error {
			w.env.Calls.Disconnected(ctx, w.Session, info.code, info.reason)
			return nil
		})
	}
	if w.grants.has(resume) {
		w.env.Tickets.remove(w.Session)
	}
	w.mu.Lock()
	info.finished = true // inbox.running stays set, so nothing is scheduled any more
	closed := info.socketClosed
	w.mu.Unlock()
	if closed {
		w.env.Running.Done()
	}
}

// handle handles a message. It returns the size of the message, inflated.
func (w worker) handle(j job) (size int) {
	payload := j.payload
	if j.handled {
		return len(payload)
	}
	if j.deflate != 0 {
		var ok bool
		if payload, ok = w.inflate(j); !ok {
			return len(j.payload)
		}
	}
	w.handlePayload(payload, j.grants)
	return len(payload)
}

// handlePayload handles a message by the state in which the worker took it: the authenticate and
// connected callbacks run beside the worker, and may change the state meanwhile.
func (w worker) handlePayload(payload []byte, g grants) {
	cipher := w.member.Cipher() // nil for a client that is not authenticated
	e, ok := w.parse(payload)
	switch {
	case cipher == nil || !g.has(admitted) || ok && e.Event == protocol.EventHeartbeat:
	case ok && e.Event == protocol.EventEncrypted:
		e, ok = w.open(cipher, e.Data)
	case w.env.Encryption.Only:
		w.rejectPlaintext()
		return
	}
	if ok {
		w.dispatch(e, g)
	}
}
