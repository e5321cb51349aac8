// Package fifo is the queue in which messages between nodes wait: first in, first out, with memory that is given back
// when it has emptied.
package fifo

// maxIdleSlots is the number of slots up to which an empty queue keeps its memory.
const maxIdleSlots = 4096

// A Queue is a ring of values. The zero value is empty. Not safe for concurrent use.
type Queue[T any] struct {
	ring []T // its length is a power of two
	head int
	n    int
}

// Len is how many values wait.
func (q *Queue[T]) Len() int { return q.n }

// Push puts v at the end.
func (q *Queue[T]) Push(v T) {
	if q.n == len(q.ring) {
		ring := make([]T, max(8, 2*len(q.ring)))
		k := copy(ring, q.ring[q.head:])
		copy(ring[k:], q.ring[:q.head])
		q.ring, q.head = ring, 0
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = v
	q.n++
}

// Peek is the first value, which stays; nil if there is none. It is good until the next Push or Pop.
func (q *Queue[T]) Peek() *T {
	if q.n == 0 {
		return nil
	}
	return &q.ring[q.head]
}

// Pop takes the first value out; the zero value if there is none.
func (q *Queue[T]) Pop() T {
	var zero T
	if q.n == 0 {
		return zero
	}
	slot := &q.ring[q.head]
	v := *slot
	*slot = zero
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	if q.n == 0 && len(q.ring) > maxIdleSlots {
		q.ring, q.head = nil, 0
	}
	return v
}
