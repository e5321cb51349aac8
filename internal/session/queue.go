package session

import "github.com/hearthws/hearth/internal/ws"

// A queue holds messages that wait for callbacks. They are a ring, so that one pointer is enough of it for those who have
// none: nearly all. Its zero value is empty.
type queue struct{ last *queuedMessage }

type queuedMessage struct {
	next *queuedMessage // of the last: the first
	message
}

// A message is one message of the client, as it came.
type message struct {
	payload []byte
	deflate ws.Opcode // what it is when payload is compressed; 0: payload is not
}

func (q *queue) push(msg message) {
	m := &queuedMessage{message: msg}
	if q.last == nil {
		m.next = m
	} else {
		m.next, q.last.next = q.last.next, m
	}
	q.last = m
}

func (q *queue) pop() message {
	m := q.last.next
	if m == q.last {
		q.last = nil
	} else {
		q.last.next = m.next
	}
	return m.message
}

func (q *queue) empty() bool { return q.last == nil }

// len counts the messages one by one.
func (q *queue) len() (n int) {
	if q.empty() {
		return 0
	}
	n = 1
	for m := q.last.next; m != q.last; m = m.next {
		n++
	}
	return n
}

// overhead is what a queued message costs besides its bytes: so a flood of empty ones is bounded too.
const overhead = 64
