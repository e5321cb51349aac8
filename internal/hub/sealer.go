package hub

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/fifo"
)

const (
	// maxSealBytes bounds the frames that are sealed for one member at a time, in bytes.
	maxSealBytes = 32 << 10
	// maxConnectionBytes is how many bytes may wait in a member's connection before sealing for it
	// stops. The other messages wait as references to messages that all receivers share, while
	// sealed bytes are for one member only.
	maxConnectionBytes = 64 << 10
	// maxSealedBytes is how many sealed bytes may wait for a loop before the pool seals nothing
	// more for it.
	maxSealedBytes = 4 << 20

	// maxWrites is for how many members a turn writes sealed messages, so that the loop reads in
	// between.
	maxWrites = 256
	// The loop seals for inlineBudget members in a turn, if at most inlineBytes wait for the
	// member, such as a reply or an error. Giving a short message to the pool costs the loop more
	// time, and the client waits for two more goroutines.
	inlineBudget = 32
	inlineBytes  = 1 << 10
)

// A sealer carries the messages of a lane to its encrypted members, in these steps:
//
//	accept        appends messages to the member's sealQueue
//	next          gives a queue with messages to a worker: the loop, the pool or a transformer
//	seal          makes frames of the oldest messages, on the worker (or transform does)
//	returnSealed  returns the frames from another goroutine to the loop
//	writeSealed   writes them to the connection, and calls next for the rest of the queue
//
// At most one worker has a queue at a time, so the order of a member's messages is that of its
// lane.
type sealer struct {
	// Set by New, then read-only.
	lane         sealerLane
	limit        int // of the bytes that wait for one member, including those in its connection
	pool         *sealPool
	transformers *transformers

	// Any goroutine.
	waiting  atomic.Int32  // members whose queue counts waiting bytes; changed by the loop
	switched atomic.Int32  // members that were switched to encryption; changed by the loop
	unsealed atomic.Uint64 // messages that could not be sealed

	mu     sync.Mutex         // guards the fields below; innermost
	sealed fifo.Queue[sealed] // to be written
	bytes  int                // in sealed

	// Owned by the loop.
	inline  int          // for how many members this turn may still seal
	ready   []*sealQueue // go to the pool at the end of the turn
	drained []*sealQueue // were held until their connections had drained
}

// A sealerLane is what a sealer needs from its lane.
type sealerLane interface {
	// wake makes the loop run a turn soon. Any goroutine.
	wake()
	// record counts n messages that were written to m's connection, or rejected. On the loop.
	record(m *Member, n int, written bool)
}

// A fanOutBatch is a run of messages in the forms that some of its receivers need. Each form is
// made for the first of them.
type fanOutBatch struct {
	run    []item
	split  []item    // see single
	sealed [1]*batch // all messages, for members whose messages are only sealed
	each   []*batch  // one for each message, for members with a Transform
}

// newFanOutBatch returns the batch of a run, for members that get positions or for those that do
// not.
func newFanOutBatch(run []item, positions bool) *fanOutBatch {
	f := &fanOutBatch{run: run}
	for i := range run {
		msg := run[i].msg
		if !positions || msg.Positioned() == msg {
			continue
		}
		if &f.run[0] == &run[0] {
			f.run = slices.Clone(run) // the others need run unchanged
		}
		f.run[i].msg = msg.Positioned()
	}
	return f
}

// single returns the run with each message of a series as an item of its own.
func (f *fanOutBatch) single() []item {
	if f.split == nil {
		f.split = splitSeries(f.run)
	}
	return f.split
}

// batches returns the messages in the form for q. Those of a member with a Transform are separate,
// because each fan-out has its own semaphore.
func (f *fanOutBatch) batches(q *sealQueue) []*batch {
	run := f.single()
	if q.Transform == nil {
		if f.sealed[0] == nil {
			f.sealed[0] = newBatch(run)
		}
		return f.sealed[:]
	}
	for i := len(f.each); i < len(run); i++ {
		b := newBatch(run[i : i+1])
		if b.semaphore == nil {
			b.semaphore = q.sealer().transformers.semaphore()
		}
		f.each = append(f.each, b)
	}
	return f.each
}

// accept queues messages for an encrypted member up to the first that does not fit, and rejects the
// rest.
func (s *sealer) accept(m *Member, f *fanOutBatch) {
	if !m.live {
		return // its last frame was queued
	}
	q, accepted := m.queue.Load(), 0
	for _, b := range f.batches(q) {
		n := q.push(b)
		accepted += n
		if n < len(b.msgs) {
			break // keep the order: no later message may overtake a dropped one
		}
	}
	if rejected := len(f.single()) - accepted; rejected > 0 {
		s.lane.record(m, rejected, false)
	}
	if accepted > 0 && !q.busy {
		s.next(q)
	}
}

// requeue queues messages that were accepted before, when they were shorter, even if they do not
// fit.
func (s *sealer) requeue(q *sealQueue, f *fanOutBatch) {
	if len(f.run) == 0 {
		return
	}
	for _, b := range f.batches(q) {
		q.add(b)
	}
	s.next(q)
}

// next decides what happens to a queue that no worker has.
func (s *sealer) next(q *sealQueue) {
	link := q.member.link
	if link.Closing() {
		q.discard()
	}
	q.busy, q.work = len(q.batches) > 0, q.batches
	switch {
	case !q.busy:
		if q.ending {
			link.CloseAfterFlush(q.last)
		}
	case link.NotifyBelow(maxConnectionBytes):
		q.held = true // until Drained
	case q.Transform != nil:
		s.transformers.start(q)
	case s.inline > 0 && q.waiting.Load() <= inlineBytes:
		s.inline--
		r := q.seal()
		s.finishWork(&r, r.messages == 0 || link.Write(r.frames))
	default:
		s.ready = append(s.ready, q)
	}
}

// returnSealed returns results of workers to the loop. Any goroutine.
func (s *sealer) returnSealed(results ...sealed) {
	s.mu.Lock()
	first := s.sealed.Len() == 0
	for _, r := range results {
		s.sealed.Push(r)
		s.bytes += len(r.frames)
	}
	s.mu.Unlock()
	if first { // a loop that has begun to write continues until there are none
		s.lane.wake()
	}
}

// full reports whether the pool must wait for the loop to write sealed messages. Any goroutine.
func (s *sealer) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes >= maxSealedBytes
}

// writeSealed writes sealed messages, and gives the pool the queues that have more. It is the last
// step of a turn, after the unencrypted messages. It reports whether it wrote anything, and whether
// there is more to write.
func (s *sealer) writeSealed() (wrote, more bool) {
	s.inline = inlineBudget
	for range maxWrites {
		r, left, ok := s.pop()
		more = left > 0
		if !ok {
			break
		}
		s.write(&r)
		wrote = true
	}
	for i, q := range s.drained {
		s.drained[i] = nil
		s.next(q)
	}
	s.drained = s.drained[:0]
	if wrote || len(s.ready) > 0 {
		s.pool.submit(s, s.ready)
		s.ready = make([]*sealQueue, 0, len(s.ready))
	}
	return wrote, more
}

// pop removes the oldest result, and returns how many are left. ok is false if there is none.
func (s *sealer) pop() (r sealed, left int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed.Len() == 0 {
		return sealed{}, 0, false
	}
	r = s.sealed.Pop()
	s.bytes -= len(r.frames)
	return r, s.sealed.Len(), true
}

// write writes a result of the pool or of a transformer to the connection. It writes at once, so
// that the buffer can be reused.
func (s *sealer) write(r *sealed) {
	link := r.queue.member.link
	written := r.messages == 0 || link.WriteNow(r.frames)
	if written && link.Buffered() == 0 { // the kernel has all of it
		s.pool.putBuffer(r.frames)
	}
	s.finishWork(r, written)
}

// finishWork counts the messages of a result and continues with the rest of its queue.
func (s *sealer) finishWork(r *sealed, written bool) {
	s.lane.record(r.queue.member, r.messages, written)
	r.queue.remove(r.taken)
	r.queue.count(-r.size)
	s.next(r.queue)
}

// finish closes the connection of an encrypted member after a last frame, and after the messages
// that wait in its queue.
func (s *sealer) finish(m *Member, frame []byte) {
	q := m.queue.Load()
	switch {
	case !q.busy:
		m.link.CloseAfterFlush(frame)
	case !q.ending:
		q.ending, q.last = true, frame
		m.owner.CloseDelayed()
	}
}

// Drained continues with the messages that wait for m's connection, which has drained or is closed.
// It is called by the lane's loop, before Tick.
func (m *Member) Drained() {
	if q := m.queue.Load(); q != nil && q.held {
		q.held = false
		s := q.sealer()
		s.drained = append(s.drained, q)
	}
}
