package client

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// item is a message that waits to be sent.
type item struct {
	text []byte   // JSON, not encrypted
	req  *request // that the message is; nil for others
	// control marks joins, leaves and credentials, which belong to one connection.
	control bool
}

// maxControl is how many control messages may wait. A connection that is slow for so long is about
// to be given up.
const maxControl = 4096

// queue is the messages that wait to be sent, oldest first.
type queue struct {
	limit    int // of messages that are not control
	overflow Overflow
	dropped  atomic.Uint64
	wake     chan struct{} // of capacity 1: the writer has something to do

	mu       sync.Mutex
	space    chan struct{} // closed when there is space, and replaced; guarded by mu
	items    []item        // guarded by mu
	messages int           // in items that are not control; guarded by mu
	closed   bool          // guarded by mu
}

func newQueue(limit int, overflow Overflow) *queue {
	return &queue{limit: limit, overflow: overflow, wake: make(chan struct{}, 1), space: make(chan struct{})}
}

// add adds a message, as the policy says.
func (q *queue) add(ctx context.Context, it item) error {
	q.mu.Lock()
	for !q.closed && q.messages >= q.limit {
		switch q.overflow {
		case Reject:
			q.mu.Unlock()
			return ErrQueueFull
		case DropOldest:
			q.dropOldestLocked()
			continue
		}
		space := q.space
		q.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return ctx.Err()
		}
		q.mu.Lock()
	}
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	q.items = append(q.items, it)
	q.messages++
	q.signal()
	return nil
}

// control adds a control message at the end.
func (q *queue) control(text []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items)-q.messages >= maxControl {
		return ErrQueueFull
	}
	q.items = append(q.items, item{text: text, control: true})
	q.signal()
	return nil
}

// begin prepares the queue for a new connection: it replaces the control messages of the previous
// one by these, which come first.
func (q *queue) begin(control [][]byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := make([]item, 0, len(control)+q.messages)
	for _, text := range control {
		items = append(items, item{text: text, control: true})
	}
	for _, it := range q.items {
		if !it.control {
			items = append(items, it)
		}
	}
	q.items = items
	q.signal()
}

// take removes the oldest message. ok is false if there is none.
func (q *queue) take() (it item, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return item{}, false
	}
	it = q.items[0]
	q.items[0] = item{}
	q.items = q.items[1:]
	q.removedLocked(it)
	return it, true
}

// remove removes a request that has ended before it was sent.
func (q *queue) remove(r *request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at := slices.IndexFunc(q.items, func(it item) bool { return it.req == r }); at >= 0 {
		it := q.items[at]
		q.items = slices.Delete(q.items, at, at+1)
		q.removedLocked(it)
	}
}

// close drops all messages, and ends requests among them.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for q.messages > 0 {
		q.dropOldestLocked()
	}
	q.items = nil
	close(q.space)
	q.space = make(chan struct{})
}

// dropOldestLocked drops the oldest message that is not control.
func (q *queue) dropOldestLocked() {
	at := slices.IndexFunc(q.items, func(it item) bool { return !it.control })
	it := q.items[at]
	q.items = slices.Delete(q.items, at, at+1)
	q.removedLocked(it)
	if it.req == nil {
		q.dropped.Add(1)
		return
	}
	err := ErrQueueFull
	if q.closed {
		err = ErrClosed
	}
	it.req.end(answer{err: err})
}

// removedLocked counts it as removed.
func (q *queue) removedLocked(it item) {
	if it.control {
		return
	}
	q.messages--
	if q.messages == q.limit-1 {
		close(q.space)
		q.space = make(chan struct{})
	}
}

// signal wakes the writer.
func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}
