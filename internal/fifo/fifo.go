// Package fifo is a first-in first-out queue that frees its memory when it becomes empty.
package fifo

// maxIdleSlots is the largest capacity that an empty queue keeps.
const maxIdleSlots = 4096

// A Queue is a ring of values. The zero value is empty. Not safe for concurrent use.
type Queue[T any] struct {
	ring []T // the length is a power of two
	head int
	n    int
}

// Len returns the number of values in the queue.
func (q *Queue[T]) Len() int { return q.n }

// Push adds v at the end.
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

// Peek returns a pointer to the first value without removing it, nil if there is none. The pointer
// is valid until the next Push or Pop.
func (q *Queue[T]) Peek() *T {
	if q.n == 0 {
		return nil
	}
	return &q.ring[q.head]
}

// At returns a pointer to the value with i values before it. There must be one. The pointer is
// valid until the next Push or Pop.
func (q *Queue[T]) At(i int) *T { return &q.ring[(q.head+i)&(len(q.ring)-1)] }

// Pop removes and returns the first value. It returns the zero value if there is none.
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
