package hub

import (
	"sync/atomic"

	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/seal"
)

// Encryption makes a member an encrypted one. At least one of the fields must be set.
type Encryption struct {
	// Cipher seals each message. If it is nil, messages are sent as Transform returns them.
	Cipher *seal.Cipher
	// Transform returns the replacement of a message with this payload, or nil to keep the message.
	// If it returns an error, the member does not get the message. It is called on goroutines of
	// the hub, for one message of a member after the other, and may block.
	Transform func(payload []byte) ([]byte, error)
}

// A sealQueue holds the messages of one encrypted member that wait to be sealed. It has no lock: it
// belongs to the loop of the member's lane. While a worker seals messages of the queue, the loop
// only appends to it.
type sealQueue struct {
	// Set when it is made, then read-only.
	member *Member
	Encryption

	// Changed by the loop, read by any goroutine.
	waiting atomic.Int64 // bytes of frames that were accepted and not yet passed to the connection

	// Owned by the loop.
	batches []*batch // oldest first
	busy    bool     // with a worker, or held
	held    bool     // until the connection has drained
	ending  bool     // the connection is to be closed after all messages
	last    []byte   // the frame that closes it

	// Set by the loop, which does not change them while a worker seals messages of the queue.
	work []*batch // a copy of batches, which the loop appends to meanwhile
	at   int      // batches[0].msgs[at:] is still to be sealed
}

// A batch is a run of messages, shared by all members that get it. It does not change.
type batch struct {
	msgs      []*ws.Message
	one       [1]*ws.Message // msgs, if it is only one
	size      int            // of the frames, sealed
	semaphore *semaphore     // bounds how many members transform the messages at a time
}

// newBatch returns a batch of the messages of a run. Its semaphore is that of the first one.
func newBatch(run []item) *batch {
	b := &batch{semaphore: run[0].semaphore}
	if b.msgs = b.one[:0]; len(run) > 1 {
		b.msgs = make([]*ws.Message, 0, len(run))
	}
	for i := range run {
		b.msgs = append(b.msgs, run[i].msg)
		b.size += sealedSize(run[i].msg)
	}
	return b
}

// sealedSize returns the size of the frame that seals msg, in bytes.
func sealedSize(msg *ws.Message) int { return ws.FrameSize(seal.EnvelopeSize(len(msg.Payload()))) }

// maxSealedSize returns an upper bound for the size of n frames of that many bytes after they were
// sealed.
func maxSealedSize(n, bytes int) int {
	// Each frame may have a longer header, and base64 rounds its size up.
	return bytes/3*4 + n*(ws.FrameSize(seal.EnvelopeSize(0))+16)
}

// sealer returns the sealer of the member's lane.
func (q *sealQueue) sealer() *sealer { return &q.member.lane.sealer }

// pending returns how many bytes wait for the member. It reads the counters in the order in which
// messages pass them, so it misses none.
func (q *sealQueue) pending() int {
	n := int(q.waiting.Load())
	return n + q.member.link.Buffered()
}

// fits reports whether n more bytes may wait. If nothing waits, a message of any size fits, as in a
// connection.
func (q *sealQueue) fits(n int) bool {
	pending := q.pending()
	return pending == 0 || pending+n <= q.sealer().limit
}

// push queues the messages of b up to the first that does not fit, and returns their number.
func (q *sealQueue) push(b *batch) int {
	if !q.fits(b.size) {
		first := &batch{semaphore: b.semaphore}
		for n, msg := range b.msgs {
			size := first.size + sealedSize(msg)
			if !q.fits(size) {
				break // keep the order: no later message may overtake a dropped one
			}
			first.msgs, first.size = b.msgs[:n+1], size
		}
		if b = first; len(b.msgs) == 0 {
			return 0
		}
	}
	q.add(b)
	return len(b.msgs)
}

// add queues b, even if it does not fit.
func (q *sealQueue) add(b *batch) {
	q.batches = append(q.batches, b)
	q.count(b.size)
}

// count adds n bytes to what waits; n may be negative.
func (q *sealQueue) count(n int) {
	waiting := &q.sealer().waiting
	switch now := q.waiting.Add(int64(n)); {
	case n > 0 && now == int64(n):
		waiting.Add(1)
	case n < 0 && now == 0:
		waiting.Add(-1)
	}
}

// remove removes the n oldest messages.
func (q *sealQueue) remove(n int) {
	q.at += n
	done := 0
	for done < len(q.batches) && q.at >= len(q.batches[done].msgs) {
		q.at -= len(q.batches[done].msgs)
		done++
	}
	if done == 0 {
		return
	}
	left := copy(q.batches, q.batches[done:])
	clear(q.batches[left:])
	q.batches = q.batches[:left]
	if left == 0 && cap(q.batches) > 64 {
		q.batches = nil
	}
}

// discard removes all messages. The connection is closed.
func (q *sealQueue) discard() {
	q.batches, q.at = nil, 0
	q.count(-int(q.waiting.Load()))
}

// messages iterates over the messages that a worker may seal.
func (q *sealQueue) messages(yield func(*ws.Message) bool) {
	at := q.at
	for _, b := range q.work {
		for _, msg := range b.msgs[at:] {
			if !yield(msg) {
				return
			}
		}
		at = 0
	}
}

// sealed is the result of a worker: the frames of the oldest messages of a queue.
type sealed struct {
	queue    *sealQueue
	frames   []byte
	messages int // in frames
	taken    int // from the queue, including messages that could not be sealed
	size     int // for which they were counted in waiting
}

// seal seals the oldest messages of the queue, up to maxSealBytes and at least one. The queue must
// not have a Transform. It is called by a worker, or by the loop.
func (q *sealQueue) seal() sealed {
	r := sealed{queue: q}
	for msg := range q.messages {
		n := sealedSize(msg)
		if r.taken > 0 && r.size+n > maxSealBytes {
			break
		}
		r.size += n
		r.taken++
	}
	r.frames = q.sealer().pool.getBuffer(r.size)
	left := r.taken
	for msg := range q.messages {
		if left == 0 {
			break
		}
		left--
		r.add(msg.Payload())
	}
	return r
}

// transform transforms, and seals, the oldest message of the queue, which must have a Transform.
func (q *sealQueue) transform() sealed {
	msg := q.work[0].msgs[0]
	r := sealed{queue: q, taken: 1, size: sealedSize(msg)}
	payload := msg.Payload()
	replacement, err := q.Transform(payload)
	if replacement != nil {
		payload = replacement
	}
	switch {
	case err != nil:
		q.failed(err)
	case q.Cipher == nil:
		r.frames, r.messages = ws.AppendFrame(nil, ws.OpText, payload), 1
	default:
		r.frames = make([]byte, 0, ws.FrameSize(seal.EnvelopeSize(len(payload))))
		r.add(payload)
	}
	return r
}

// add seals one message. It reports to the member's owner, and to no other client, that a message
// cannot be sealed.
func (r *sealed) add(payload []byte) {
	start := len(r.frames)
	frames := ws.AppendHeader(r.frames, ws.OpText, false, seal.EnvelopeSize(len(payload)))
	frames, err := r.queue.Cipher.AppendEnvelope(frames, payload)
	if err != nil {
		r.frames = frames[:start]
		r.queue.failed(err)
		return
	}
	r.frames = frames
	r.messages++
}

// failed counts and reports a message that could not be sealed.
func (q *sealQueue) failed(err error) {
	q.sealer().unsealed.Add(1)
	q.member.owner.Unsealed(err)
}
