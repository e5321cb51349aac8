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
	// batchMessages and batchBytes bound what the reader collects before it hands it over. The end
	// of what one read returned also ends a batch.
	batchMessages = 256
	batchBytes    = 1 << 18

	// maxBufferBytes bounds the read buffers that are kept for messages in them. Beyond that,
	// messages are copied.
	maxBufferBytes = 16 << 20
)

// ErrOverflow is the cause of a loss: the node delivered messages more slowly than other nodes
// published them.
var ErrOverflow = errors.New("redis broker: receiver too slow, queue full")

// An incoming message has been received and not been parsed.
type incoming struct {
	resp.Message
	pinned int           // size of Buffer, in the first waiting message of it; 0 in the others
	losses []broker.Loss // reported before the message
}

// bytes returns how much the message counts against Config.ReceiveQueue. With Config.Patterns,
// other programs choose how long the name of a channel is.
func (m *incoming) bytes() int { return len(m.Channel) + len(m.Payload) }

// detach copies the message out of its read buffer.
func (m *incoming) detach() {
	own := strings.Clone(m.Channel + m.Payload)
	m.Channel, m.Payload = own[:len(m.Channel)], own[len(m.Channel):]
	m.Buffer.Release()
	m.Buffer = nil
}

// An inbox holds the messages between the goroutine that reads from Redis, which never waits, and
// the one that delivers them.
type inbox struct {
	limit  Bound // read-only
	health *health

	// onMissed is called with reports of publishers; if it is nil, they are delivered. Set before
	// deliver, then read-only.
	onMissed func(protocol.Missed)

	mu          sync.Mutex // guards the fields below
	ready       sync.Cond  // signalled when there is something to deliver, and on close
	queue       fifo.Queue[incoming]
	bytes       int
	bufferBytes int           // size of the read buffers that queue refers to
	lastBuffer  *resp.Buffer  // of the last message in queue, if that counts in bufferBytes
	losses      []broker.Loss // behind the last message; at most one with a number, one without
	closed      bool
}

func newInbox(limit Bound, h *health) *inbox {
	in := &inbox{limit: limit, health: h}
	in.ready.L = &in.mu
	return in
}

// put queues a batch, or counts the loss of what does not fit.
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

// pinLocked lets m stay in its read buffer, unless too much memory is kept for that: with a slow
// receiver, one short message may be all that is left in a buffer.
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

// overflowLocked records the loss of one message.
func (in *inbox) overflowLocked() {
	now := time.Now()
	in.loseLocked(broker.Loss{Messages: 1, Since: now, Until: now, Cause: ErrOverflow})
	in.health.lost.Add(1)
}

// lose reports a loss behind the messages that are queued.
func (in *inbox) lose(l broker.Loss) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.loseLocked(l)
	in.ready.Signal()
}

// loseLocked joins the loss with one of the same kind that waits at the same place.
func (in *inbox) loseLocked(l broker.Loss) {
	for i := range in.losses {
		if g := &in.losses[i]; (g.Messages > 0) == (l.Messages > 0) {
			g.Messages += l.Messages
			g.Until = l.Until
			if g.Since.After(l.Since) {
				g.Since = l.Since
			}
			if g.Channels == nil || l.Channels == nil {
				g.Channels = nil // any channel
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

// take waits until there is something to deliver, and appends some of it to batch. Losses without a
// message are one without a payload. It returns false after close.
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
			in.lastBuffer = nil // later messages in it count it again
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

// bytesOf returns how much a batch counts against Config.ReceiveQueue.
func bytesOf(batch []incoming) int {
	n := 0
	for i := range batch {
		n += batch[i].bytes()
	}
	return n
}

// close ends delivery. Messages that wait are dropped.
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
	var ms []protocol.Message // reused
	for {
		var more bool
		if batch, more = in.take(batch[:0]); !more {
			return
		}
		for rest := batch; len(rest) > 0 && more; {
			in.reportLosses(r, rest[0].losses)
			n := 1
			for n < len(rest) && rest[n].losses == nil { // a loss is reported in its place
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

// reportLosses calls the receiver for each loss.
func (in *inbox) reportLosses(r broker.Receiver, losses []broker.Loss) {
	for _, l := range losses {
		if r.Lost != nil {
			r.Lost(l)
		}
	}
}

// parse appends to ms the messages in batch that are for the receiver. It leaves out the node's own
// messages and reports of publishers.
func (in *inbox) parse(ms []protocol.Message, batch []incoming, own string, bad *limitedLog) []protocol.Message {
	for i := range batch {
		if batch[i].Payload == "" { // carries losses only
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
		case m.ServerID == own && m.Position.Offset == 0:
		case isReport:
			in.onMissed(report)
		default:
			ms = append(ms, m)
		}
	}
	return ms
}

// deliverParsed passes messages to the receiver. It reports whether the inbox is still open:
// nothing is delivered after close.
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

// clip returns a copy of a text that other programs may have made long, cut to 100 bytes.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return strings.Clone(s)
}

// A batcher receives the messages of one connection. It collects those of one read and hands them
// over together, so a burst costs one lock and one wake-up. Owned by the goroutine that reads from
// the connection.
type batcher struct {
	inbox        *inbox
	malformed    *limitedLog
	maxMessage   int    // bytes
	ownPrefix    string // the beginning of messages of this node
	history      bool   // there are rooms with history
	probeChannel string // the channel of this node's probes
	onProbe      func(probe string)

	batch []incoming
	bytes int
}

// message is called for each message. It never waits.
func (r *batcher) message(m resp.Message) {
	switch {
	case m.Channel == r.probeChannel && m.Payload != "":
		r.onProbe(strings.Clone(m.Payload))
	case m.Payload == "" || m.Size > r.maxMessage: // empty, or discarded
		r.inbox.health.malformed.Add(1)
		r.malformed.warn(errMessageSize, "channel", clip(m.Channel), "bytes", m.Size)
	case strings.HasPrefix(m.Payload, r.ownPrefix) && !(r.history && mayHavePosition(m.Payload)):
		// Published by this node, which gets only its messages with a position.
	default:
		r.batch = append(r.batch, incoming{Message: m})
		if r.bytes += m.Size; len(r.batch) >= batchMessages || r.bytes >= batchBytes {
			r.flush()
		}
		return
	}
	m.Buffer.Release()
}

// mayHavePosition reports whether a message may have a position, from the end of its JSON.
func mayHavePosition(payload string) bool {
	end := payload[max(0, len(payload)-maxPosition):]
	return strings.HasSuffix(end, `"}`) && strings.Contains(end, `,"offset":`)
}

var errMessageSize = errors.New("redis: empty or oversized message")

// flush hands over the collected messages.
func (r *batcher) flush() {
	if len(r.batch) == 0 {
		return
	}
	r.inbox.put(r.batch)
	clear(r.batch)
	r.batch, r.bytes = r.batch[:0], 0
}
