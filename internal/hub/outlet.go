package hub

import (
	"sync/atomic"

	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/seal"
)

const (
	// sealMax is how much of one member's messages is sealed at a time, in bytes of frames.
	sealMax = 32 << 10
	// windowMax is how much may wait in a member's connection before sealing for it stops. The rest waits as references to
	// messages that all receivers share: ciphertext is each member's own.
	windowMax = 64 << 10
)

// Encryption makes a member an encrypted one: everything that is sent to it goes through here. One of the two is needed.
type Encryption struct {
	// Cipher seals each message. Nil: what Transform makes of it goes out.
	Cipher *seal.Cipher
	// Transform returns what takes the place of a message with this payload, nil for the message itself. With an error the
	// message is lost for the member. Called on goroutines of its own, for one message of a member after the other; may block.
	Transform func(payload []byte) ([]byte, error)
}

// An outlet is the way of an encrypted member's messages. The loop decides on their order, as for everybody; then they
// wait here, are sealed elsewhere, some at a time, and come back to the loop as frames. While some are being sealed the
// loop only adds to the queue, and what it adds is not looked at.
type outlet struct {
	// Set when it is made, then read-only.
	member *Member
	Encryption

	// Any goroutine; changed by the loop.
	waiting atomic.Int64 // bytes of frames that were accepted and not yet handed to the link

	// Owned by the loop.
	queue  []*batch // what waits, oldest first
	at     int      // queue[0].msgs[at:] is still to be sealed
	busy   bool     // being sealed, or held
	held   bool     // until the connection has taken enough
	ending bool     // the connection is to be finished behind all of it
	last   []byte   // the frame that it is finished with

	// The loop's while nothing is being sealed, otherwise of whoever seals.
	work []*batch // the queue, as far as it had come
	from int      // work[0].msgs[from:] is to be sealed
}

// A batch is a run of messages, shared by all members who get it. It does not change.
type batch struct {
	msgs  []*ws.Message
	one   [1]*ws.Message // for msgs
	size  int            // of the frames, sealed
	turns *turns         // of those who transform it
}

func newBatch(run ...item) *batch {
	b := &batch{}
	if b.msgs = b.one[:0]; len(run) > 1 {
		b.msgs = make([]*ws.Message, 0, len(run))
	}
	for i := range run {
		b.add(run[i].msg)
	}
	return b
}

// parcels are a run of messages as encrypted members take it. It is made when the first of them does.
type parcels struct {
	run   []item
	few   bool // members get it
	whole *batch
	each  []*batch
}

// all is the run as one: for who seals.
func (p *parcels) all() *batch {
	if p.whole == nil {
		p.whole = newBatch(p.run...)
	}
	return p.whole
}

// single are its messages one by one: for who transforms, since the turns are those of one fan-out.
func (p *parcels) single(t *transformers) []*batch {
	for i := len(p.each); i < len(p.run); i++ {
		b := newBatch(p.run[i])
		if b.turns = p.run[i].turns; b.turns == nil {
			b.turns = t.turns()
		}
		p.each = append(p.each, b)
	}
	return p.each
}

func (b *batch) add(msg *ws.Message) {
	b.msgs = append(b.msgs, msg)
	b.size += sealedSize(msg)
}

// sealedSize is the length of the frame that seals msg.
func sealedSize(msg *ws.Message) int { return ws.FrameSize(seal.EnvelopeSize(len(msg.Payload()))) }

// sealedAtMost bounds what messages become when they are sealed: n frames of so many bytes.
func sealedAtMost(n, bytes int) int {
	return bytes/3*4 + n*(ws.FrameSize(seal.EnvelopeSize(0))+16) // a longer header, and the rounding of base64
}

// pending is how much waits for the member. It asks in the order in which messages go: so none is missed.
func (o *outlet) pending() int {
	n := int(o.waiting.Load())
	return n + o.member.link.Buffered()
}

// fits reports whether n more bytes may wait. As for a connection, one of any size may if nothing else does.
func (o *outlet) fits(n int) bool {
	waiting := o.pending()
	return waiting == 0 || waiting+n <= o.member.lane.hub.backpressure
}

// push queues b, or as much of it as may wait, and returns how many messages that was.
func (o *outlet) push(b *batch) int {
	if !o.fits(b.size) {
		part := &batch{}
		for _, msg := range b.msgs { // nothing later may overtake what is dropped
			if !o.fits(part.size + sealedSize(msg)) {
				break
			}
			part.add(msg)
		}
		part.turns = b.turns
		if b = part; len(b.msgs) == 0 {
			return 0
		}
	}
	o.add(b)
	return len(b.msgs)
}

// add queues b, whatever waits.
func (o *outlet) add(b *batch) {
	o.queue = append(o.queue, b)
	o.count(b.size)
}

// count counts n bytes more, or less, in what waits.
func (o *outlet) count(n int) {
	owing := &o.member.lane.sealing.owing
	switch now := o.waiting.Add(int64(n)); {
	case n > 0 && now == int64(n):
		owing.Add(1)
	case n < 0 && now == 0:
		owing.Add(-1)
	}
}

// advance forgets the n oldest messages.
func (o *outlet) advance(n int) {
	o.at += n
	done := 0
	for done < len(o.queue) && o.at >= len(o.queue[done].msgs) {
		o.at -= len(o.queue[done].msgs)
		done++
	}
	if done == 0 {
		return
	}
	rest := copy(o.queue, o.queue[done:])
	clear(o.queue[rest:])
	o.queue = o.queue[:rest]
	if rest == 0 && cap(o.queue) > 64 {
		o.queue = nil
	}
}

// discard forgets everything: the connection is gone.
func (o *outlet) discard() {
	o.queue, o.at = nil, 0
	o.count(-int(o.waiting.Load()))
}

// sealed is what came of some of a member's messages.
type sealed struct {
	*outlet
	frames   []byte
	messages int  // in frames
	taken    int  // from the queue: the others could not be sealed
	reserved int  // bytes that they were counted with in waiting
	done     bool // nothing is being sealed for the member any more
}

// seal seals as many of the messages as make sealMax, at least one. It belongs to a goroutine of the press.
func (o *outlet) seal() sealed {
	taken, size, from := 0, 0, o.from
	for _, b := range o.work {
		for _, msg := range b.msgs[from:] {
			if n := sealedSize(msg); taken == 0 || size+n <= sealMax {
				size += n
				taken++
				continue
			}
			return o.sealSome(taken, size)
		}
		from = 0
	}
	return o.sealSome(taken, size)
}

func (o *outlet) sealSome(n, size int) sealed {
	s := sealed{outlet: o, frames: o.member.lane.hub.press.paper(size), taken: n, reserved: size, done: true}
	from := o.from
	for _, b := range o.work {
		for _, msg := range b.msgs[from:] {
			if n == 0 {
				return s
			}
			n--
			s.add(msg.Payload())
		}
		from = 0
	}
	return s
}

// add seals one message; the owner hears of one that can't be sealed, and nobody else does.
func (s *sealed) add(payload []byte) {
	start := len(s.frames)
	frames := ws.AppendHeader(s.frames, ws.OpText, false, seal.EnvelopeSize(len(payload)))
	frames, err := s.Cipher.AppendEnvelope(frames, payload)
	if err != nil {
		s.frames = frames[:start]
		s.lost(err)
		return
	}
	s.frames = frames
	s.messages++
}

// lost tells of a message that could not be sealed.
func (o *outlet) lost(err error) {
	o.member.lane.hub.unsealed.Add(1)
	o.member.owner.Unsealed(err)
}
