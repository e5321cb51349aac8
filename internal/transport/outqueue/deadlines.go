package outqueue

import (
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/fifo"
)

// Deadlines is a queue of deadlines that are all the same time ahead when they are added, so the
// first one added is the first to pass. It holds keys, not pointers, so that it keeps no closed
// connection in memory. The zero value is empty. Not safe for concurrent use.
type Deadlines struct{ queue fifo.Queue[deadline] }

type deadline struct {
	key uint64
	at  clock.Instant
}

// Add adds a deadline for key. at must not be before that of any earlier Add.
func (d *Deadlines) Add(key uint64, at clock.Instant) {
	d.queue.Push(deadline{key: key, at: at})
}

// Due removes and returns the first key whose deadline has passed.
func (d *Deadlines) Due(now clock.Instant) (key uint64, ok bool) {
	first := d.queue.Peek()
	if first == nil || first.at > now {
		return 0, false
	}
	return d.queue.Pop().key, true
}

// Wait returns the time from now to the first deadline whose key is live, and zero if that has
// passed. It removes the deadlines before it. ok is false if there is none.
func (d *Deadlines) Wait(now clock.Instant, live func(key uint64) bool) (wait time.Duration, ok bool) {
	for first := d.queue.Peek(); first != nil; first = d.queue.Peek() {
		if live(first.key) {
			return max(first.at.Sub(now), 0), true
		}
		d.queue.Pop()
	}
	return 0, false
}
