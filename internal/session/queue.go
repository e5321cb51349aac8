package session

// A queue holds messages that wait for callbacks. They are a ring, so that one pointer is enough of it for those who have
// none: nearly all. Its zero value is empty.
type queue struct{ last *queued }

type queued struct {
	next    *queued // of the last: the first
	payload []byte
}

func (q *queue) push(payload []byte) {
	m := &queued{payload: payload}
	if q.last == nil {
		m.next = m
	} else {
		m.next, q.last.next = q.last.next, m
	}
	q.last = m
}

func (q *queue) pop() (payload []byte) {
	m := q.last.next
	if m == q.last {
		q.last = nil
	} else {
		q.last.next = m.next
	}
	return m.payload
}

func (q *queue) empty() bool { return q.last == nil }

// overhead is what a queued message costs besides its bytes: so a flood of empty ones is bounded too.
const overhead = 64
