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
	batchMessages = 256
	batchBytes    = 1 << 18

	// chunksMax is how much memory that was read into is kept for messages that wait in it; more of them are copied.
	maxBufferBytes = 16 << 20
)

// ErrOverflow is the cause of a loss: the node did not deliver as fast as the others published.
var ErrOverflow = errors.New("redis broker: receiver too slow, queue full")

// An incoming message has been read and not yet been looked at.
type incoming struct {
	resp.Message
	pinned int           // bytes of Buffer, in the first message of it that waits
	losses []broker.Loss // told first
}

// waiting is what counts against a bound: with patterns, strangers choose how long the name of a channel is.
func (m *incoming) bytes() int { return len(m.Channel) + len(m.Payload) }

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
	limit    Bound // read-only
	health   *health
	onMissed func(protocol.Missed) // gets what publishers report; set before deliver, then read-only; nil: the receiver gets it

	mu          sync.Mutex // guards the fields below
	ready       sync.Cond  // signalled when there is something, or closed
	queue       fifo.Queue[incoming]
	bytes       int
	bufferBytes int           // bytes of memory that was read into, and that queue refers to
	lastBuffer  *resp.Buffer  // of the end of queue, if its first message still waits
	losses      []broker.Loss // after the last of queue; at most one of each kind (known and unknown number)
	closed      bool
}

func newInbox(limit Bound, h *health) *inbox {
	in := &inbox{limit: limit, health: h}
	in.ready.L = &in.mu
	return in
}

// put takes over what batch holds.
func (in *inbox) put(batch []incoming) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, m := range batch {
		n := in.queue.Len()
		if n > 0 && (n >= in.limit.Messages || in.bytes+m.bytes() > in.limit.Bytes) {
			in.overflowLocked()
			m.Buffer.Release()
			continue
		}
		in.pinLocked(&m)
		m.losses, in.losses = in.losses, nil
		in.queue.Push(m)
		in.bytes += m.bytes()
	}
	in.ready.Signal()
}

// pinLocked lets m stay where it was read, unless too much memory is kept for that: when the receiver is slow, one short
// message may be all that was kept of a chunk.
func (in *inbox) pinLocked(m *incoming) {
	switch {
	case m.Buffer == nil || m.Buffer == in.lastBuffer:
	case in.bufferBytes+m.Buffer.Size() > maxBufferBytes:
		m.detach()
	default:
		m.pinned = m.Buffer.Size()
		in.bufferBytes += m.pinned
		in.lastBuffer = m.Buffer
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
	in.ready.Signal()
}

func (in *inbox) loseLocked(l broker.Loss) {
	for i := range in.losses {
		if g := &in.losses[i]; (g.Messages > 0) == (l.Messages > 0) {
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
	in.losses = append(in.losses, l)
	in.health.losses.Add(1)
	in.health.setError(l.Cause)
}

// take waits for something to deliver, and appends some of it to batch. With gaps and no message it is one without a
// payload. False after close.
func (in *inbox) take(batch []incoming) ([]incoming, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.queue.Len() == 0 && len(in.losses) == 0 && !in.closed {
		in.ready.Wait()
	}
	if in.closed {
		return nil, false
	}
	for bytes := 0; in.queue.Len() > 0 && len(batch) < batchMessages && bytes < batchBytes; {
		m := in.queue.Pop()
		bytes += m.bytes()
		if in.bufferBytes -= m.pinned; m.pinned > 0 && m.Buffer == in.lastBuffer {
			in.lastBuffer = nil // whatever else comes of it counts anew
		}
		batch = append(batch, m)
	}
	in.bytes -= bytesOf(batch)
	if len(batch) == 0 {
		batch = append(batch, incoming{losses: in.losses})
		in.losses = nil
	}
	return batch, true
}

func bytesOf(batch []incoming) int {
	n := 0
	for i := range batch {
		n += batch[i].bytes()
	}
	return n
}

// close ends delivery; what waits is not delivered any more.
func (in *inbox) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.queue, in.losses, in.lastBuffer = fifo.Queue[incoming]{}, nil, nil
	in.ready.Broadcast()
}

func (in *inbox) isClosed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.closed
}

// deliver calls the receiver until the inbox is closed.
func (in *inbox) deliver(r broker.Receiver, bad *limitedLog) {
	var batch []incoming
	var ms []protocol.Message // scratch
	for {
		var more bool
		if batch, more = in.take(batch[:0]); !more {
			return
		}
		for rest := batch; len(rest) > 0 && more; {
			in.reportLosses(r, rest[0].losses)
			n := 1
			for n < len(rest) && rest[n].losses == nil { // a loss is told in its place
				n++
			}
			ms = in.parse(ms[:0], rest[:n], r.ServerID, bad)
			more = in.deliverParsed(r, ms)
			clear(ms)
			for i := range rest[:n] {
				rest[i].Buffer.Release()
			}
			rest = rest[n:]
		}
		clear(batch)
	}
}

func (in *inbox) reportLosses(r broker.Receiver, losses []broker.Loss) {
	for _, l := range losses {
		if r.Lost != nil {
			r.Lost(l)
		}
	}
}

// read appends to ms what batch says that is not the node's own and is for the receiver.
func (in *inbox) parse(ms []protocol.Message, batch []incoming, own string, bad *limitedLog) []protocol.Message {
	for i := range batch {
		if batch[i].Payload == "" { // carries losses
			continue
		}
		m, err := protocol.ParseMessageString(batch[i].Payload)
		var report protocol.Missed
		isReport := err == nil && in.onMissed != nil && m.Type == protocol.TypeNodes && m.Event == protocol.NodeMissed
		if isReport {
			report, err = protocol.ParseMissed(m.Data)
		}
		switch {
		case err != nil:
			in.health.malformed.Add(1)
			bad.warn(err, "channel", clip(batch[i].Channel))
		case m.ServerID == own:
		case isReport:
			in.onMissed(report)
		default:
			ms = append(ms, m)
		}
	}
	return ms
}

// hand gives the receiver what was read. It reports whether the inbox is still open: once it is closed, calls end.
func (in *inbox) deliverParsed(r broker.Receiver, ms []protocol.Message) (open bool) {
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
type batcher struct {
	inbox        *inbox
	malformed    *limitedLog
	maxMessage   int    // bytes of a message
	ownPrefix    string // how messages of this node begin
	probeChannel string // the channel of its probes
	onProbe      func(probe string)

	batch []incoming
	bytes int
}

// message is called for each message, and never waits.
func (r *batcher) message(m resp.Message) {
	switch {
	case m.Channel == r.probeChannel && m.Payload != "":
		r.onProbe(strings.Clone(m.Payload))
	case m.Payload == "" || m.Size > r.maxMessage: // empty, or passed over
		r.inbox.health.malformed.Add(1)
		r.malformed.warn(errMessageSize, "channel", clip(m.Channel), "bytes", m.Size)
	case strings.HasPrefix(m.Payload, r.ownPrefix):
		// What AppendMessage has written here, back again: no need to look further.
	default:
		r.batch = append(r.batch, incoming{Message: m})
		if r.bytes += m.Size; len(r.batch) >= batchMessages || r.bytes >= batchBytes {
			r.flush()
		}
		return
	}
	m.Buffer.Release()
}

var errMessageSize = errors.New("redis: a message that is empty, or larger than Config.MaxMessage, or on a channel of a longer name than any has")

// flush hands over what was gathered.
func (r *batcher) flush() {
	if len(r.batch) == 0 {
		return
	}
	r.inbox.put(r.batch)
	clear(r.batch)
	r.batch, r.bytes = r.batch[:0], 0
}
