package session

import "github.com/hearthws/hearth/internal/ws"

// An inbox holds the messages of a client that wait for the worker, and the state of the worker.
// The messages form a ring, so that an empty inbox, which nearly all clients have, needs only one
// pointer. Session.mu guards it.
type inbox struct {
	last  *inboxMessage // nil if the inbox is empty
	bytes uint32        // what the messages cost

	running    bool // a worker of the pool has the session, or the pool has queued it
	connecting bool // messages and changes of rooms wait until the connected callback has returned
	paused     bool // the server does not read from the client until the inbox is shorter
	onLoop     bool // an event loop calls Data, so the work is deferred; set by Open
}

type inboxMessage struct {
	next *inboxMessage // in the newest message, the oldest one
	message
	seen   bool // by the answering, which has looked for an answer in it
	popped bool // not in the inbox any more
}

// A message is a message of the client as it arrived.
type message struct {
	payload []byte
	deflate ws.Opcode // the message's opcode if payload is compressed, otherwise 0
	handled bool      // out of the order, as an answer
}

// messageOverhead is what a queued message costs in addition to its payload, so that the limit also
// bounds a flood of empty messages.
const messageOverhead = 64

func (m message) cost() uint32 { return uint32(len(m.payload) + messageOverhead) }

func (b *inbox) push(msg message) {
	m := &inboxMessage{message: msg}
	if b.last == nil {
		m.next = m
	} else {
		m.next, b.last.next = b.last.next, m
	}
	b.last = m
	b.bytes += msg.cost()
}

// pop takes the oldest message. There must be one.
func (b *inbox) pop() message {
	m := b.last.next
	if m == b.last {
		b.last = nil
	} else {
		b.last.next = m.next
	}
	b.bytes -= m.cost()
	m.popped = true
	return m.message
}

// nextUnseen returns the oldest message that the answering has not seen, or nil.
func (b *inbox) nextUnseen() *inboxMessage {
	if b.last == nil || b.last.seen {
		return nil
	}
	m := b.last.next
	for m.seen {
		m = m.next
	}
	return m
}

func (b *inbox) empty() bool { return b.last == nil }

// full reports whether the messages cost more than the limit.
func (b *inbox) full(limit int) bool { return int(b.bytes) > limit }

// short reports whether the messages cost at most half of the limit.
func (b *inbox) short(limit int) bool { return !b.full(limit / 2) }

// clear drops all messages and returns the number of those that were not handled.
func (b *inbox) clear() (n int) {
	for !b.empty() {
		if !b.pop().handled {
			n++
		}
	}
	return n
}
