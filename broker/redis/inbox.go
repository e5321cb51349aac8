package redis

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/fifo"
	"github.com/hearthws/hearth/internal/resp"
	"github.com/hearthws/hearth/protocol"
)

const (
	// handover is how many messages, and bytes, the reader gathers at most before it hands them over; a read that brought
	// less ends a batch as well.
	handoverMessages = 256
	handoverBytes    = 1 << 18

	// chunksMax is how much memory that was read into is kept for messages that wait in it; more of them are copied.
	chunksMax = 16 << 20
)

// ErrOverflow is the cause of a loss: the node did not deliver as fast as the others published.
var ErrOverflow = errors.New("redis broker: receiver too slow, queue full")

// An incoming message has been read and not yet been looked at.
type incoming struct {
	resp.Message
	pins   int           // bytes of Buffer, in the first message of it that waits
	before []broker.Loss // told first
}

// waiting is what counts against a bound: with patterns, strangers choose how long the name of a channel is.
func (m *incoming) waiting() int { return len(m.Channel) + len(m.Payload) }

// detach gives m memory of its own.
func (m *incoming) detach() {
	own := strings.Clone(m.Channel + m.Payload)
	m.Channel, m.Payload = own[:len(m.Channel)], own[len(m.Channel):]
	m.Buffer.Release()
	m.Buffer = nil
}

// An inbox holds what has come, between the goroutine that reads from Redis, which never waits, and the one that
// delivers.
type inbox struct {
	limit  Bound // read-only
	health *health
	missed func(protocol.Missed) // gets what publishers report; set before deliver, then read-only; nil: the receiver gets it

	mu     sync.Mutex // guards the fields below
	some   sync.Cond  // signalled when there is something, or closed
	queue  fifo.Queue[incoming]
	bytes  int
	chunks int           // bytes of memory that was read into, and that queue refers to
	last   *resp.Buffer  // of the end of queue, if its first message still waits
	gaps   []broker.Loss // after the last of queue; at most one of each kind (known and unknown number)
	closed bool
}

func newInbox(limit Bound, h *health) *inbox {
	in := &inbox{limit: limit, health: h}
	in.some.L = &in.mu
	return in
}

// put takes over what batch holds.
func (in *inbox) put(batch []incoming) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, m := range batch {
		n := in.queue.Len()
		if n > 0 && (n >= in.limit.Messages || in.bytes+m.waiting() > in.limit.Bytes) {
			in.overflowLocked()
			m.Buffer.Release()
			continue
		}
		in.pinLocked(&m)
		m.before, in.gaps = in.gaps, nil
		in.queue.Push(m)
		in.bytes += m.waiting()
	}
	in.some.Signal()
}

// pinLocked lets m stay where it was read, unless too much memory is kept for that: when the receiver is slow, one short
// message may be all that was kept of a chunk.
func (in *inbox) pinLocked(m *incoming) {
	switch {
	case m.Buffer == nil || m.Buffer == in.last:
	case in.chunks+m.Buffer.Size() > chunksMax:
		m.detach()
	default:
		m.pins = m.Buffer.Size()
		in.chunks += m.pins
		in.last = m.Buffer
	}
}

func (in *inbox) overflowLocked() {
	now := time.Now()
	in.loseLocked(broker.Loss{Messages: 1, Since: now, Until: now, Cause: ErrOverflow})
	in.health.lost.Add(1)
}

// lose has a loss told behind what has come before it.
func (in *inbox) lose(l broker.Loss) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.loseLocked(l)
	in.some.Signal()
}

func (in *inbox) loseLocked(l broker.Loss) {
	for i := range in.gaps {
		if g := &in.gaps[i]; (g.Messages > 0) == (l.Messages > 0) {
			g.Messages += l.Messages
			g.Until = l.Until
			if g.Since.After(l.Since) {
				g.Since = l.Since
			}
			if g.Channels == nil || l.Channels == nil {
				g.Channels = nil // any
			} else {
				g.Channels = append(g.Channels, l.Channels...)
			}
			return
		}
	}
	in.gaps = append(in.gaps, l)
	in.health.losses.Add(1)
	in.health.failed(l.Cause)
}

// take waits for something to deliver, and appends some of it to batch. With gaps and no message it is one without a
// payload. False after close.
func (in *inbox) take(batch []incoming) ([]incoming, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.queue.Len() == 0 && len(in.gaps) == 0 && !in.closed {
		in.some.Wait()
	}
	if in.closed {
		return nil, false
	}
	for bytes := 0; in.queue.Len() > 0 && len(batch) < handoverMessages && bytes < handoverBytes; {
		m := in.queue.Pop()
		bytes += m.waiting()
		if in.chunks -= m.pins; m.pins > 0 && m.Buffer == in.last {
			in.last = nil // whatever else comes of it counts anew
		}
		batch = append(batch, m)
	}
	in.bytes -= bytesOf(batch)
	if len(batch) == 0 {
		batch = append(batch, incoming{before: in.gaps})
		in.gaps = nil
	}
	return batch, true
}

func bytesOf(batch []incoming) int {
	n := 0
	for i := range batch {
		n += batch[i].waiting()
	}
	return n
}

// close ends delivery; what waits is not delivered any more.
func (in *inbox) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.queue, in.gaps, in.last = fifo.Queue[incoming]{}, nil, nil
	in.some.Broadcast()
}

func (in *inbox) isClosed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.closed
}

// deliver calls the receiver until the inbox is closed.
func (in *inbox) deliver(r broker.Receiver, bad *throttle) {
	var batch []incoming
	var ms []protocol.Message // scratch
	for {
		var more bool
		if batch, more = in.take(batch[:0]); !more {
			return
		}
		for rest := batch; len(rest) > 0 && more; {
			in.tell(r, rest[0].before)
			n := 1
			for n < len(rest) && rest[n].before == nil { // a loss is told in its place
				n++
			}
			ms = in.read(ms[:0], rest[:n], r.ServerID, bad)
			more = in.hand(r, ms)
			clear(ms)
			for i := range rest[:n] {
				rest[i].Buffer.Release()
			}
			rest = rest[n:]
		}
		clear(batch)
	}
}

func (in *inbox) tell(r broker.Receiver, losses []broker.Loss) {
	for _, l := range losses {
		if r.Lost != nil {
			r.Lost(l)
		}
	}
}

// read appends to ms what batch says that is not the node's own and is for the receiver.
func (in *inbox) read(ms []protocol.Message, batch []incoming, own string, bad *throttle) []protocol.Message {
	for i := range batch {
		if batch[i].Payload == "" { // carries losses
			continue
		}
		m, err := protocol.ParseMessageString(batch[i].Payload)
		var report protocol.Missed
		isReport := err == nil && in.missed != nil && m.Type == protocol.TypeNodes && m.Event == protocol.NodeMissed
		if isReport {
			report, err = protocol.ParseMissed(m.Data)
		}
		switch {
		case err != nil:
			in.health.malformed.Add(1)
			bad.log(err, "channel", clip(batch[i].Channel))
		case m.ServerID == own:
		case isReport:
			in.missed(report)
		default:
			ms = append(ms, m)
		}
	}
	return ms
}

// hand gives the receiver what was read. It reports whether the inbox is still open: once it is closed, calls end.
func (in *inbox) hand(r broker.Receiver, ms []protocol.Message) (open bool) {
	if r.DeliverAll != nil {
		if len(ms) > 0 {
			in.health.delivered.Add(uint64(len(ms)))
			r.DeliverAll(ms)
		}
		return !in.isClosed()
	}
	for i := range ms {
		if in.isClosed() {
			return false
		}
		in.health.delivered.Add(1)
		r.Deliver(ms[i])
	}
	return true
}

// clip is a copy of what strangers may have made long.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return strings.Clone(s)
}

// A reader is what one subscription's wire calls: it gathers what one read has brought, and hands it over at once, so a
// burst costs one lock and one wake-up. Owned by the goroutine that reads from the wire.
type reader struct {
	inbox *inbox
	bad   *throttle
	max   int    // bytes of a message
	own   string // how messages of this node begin
	probe string // the channel of its probes
	seen  func(probe string)

	batch []incoming
	bytes int
}

// message is called for each message, and never waits.
func (r *reader) message(m resp.Message) {
	switch {
	case m.Channel == r.probe && m.Payload != "":
		r.seen(strings.Clone(m.Payload))
	case m.Payload == "" || m.Size > r.max: // empty, or passed over
		r.inbox.health.malformed.Add(1)
		r.bad.log(errSize, "channel", clip(m.Channel), "bytes", m.Size)
	case strings.HasPrefix(m.Payload, r.own):
		// What AppendMessage has written here, back again: no need to look further.
	default:
		r.batch = append(r.batch, incoming{Message: m})
		if r.bytes += m.Size; len(r.batch) >= handoverMessages || r.bytes >= handoverBytes {
			r.flush()
		}
		return
	}
	m.Buffer.Release()
}

var errSize = errors.New("redis: a message that is empty, or larger than Config.MaxMessage, or on a channel of a longer name than any has")

// flush hands over what was gathered.
func (r *reader) flush() {
	if len(r.batch) == 0 {
		return
	}
	r.inbox.put(r.batch)
	clear(r.batch)
	r.batch, r.bytes = r.batch[:0], 0
}
