package outqueue

import (
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/fifo"
)

// Deadlines is a queue of moments for things that all get the same time, so that the first to come is the first to end.
// It holds numbers, not pointers: what has ended meanwhile is not kept in memory by it. The zero value is empty. Not
// safe for concurrent use.
type Deadlines struct{ queue fifo.Queue[deadline] }

type deadline struct {
	key uint64
	at  clock.Instant
}

// Add sets the end of what key stands for. at must not be before that of any earlier Add.
func (d *Deadlines) Add(key uint64, at clock.Instant) {
	d.queue.Push(deadline{key: key, at: at})
}

// Due removes and returns the first key whose time has come.
func (d *Deadlines) Due(now clock.Instant) (key uint64, ok bool) {
	first := d.queue.Peek()
	if first == nil || first.at > now {
		return 0, false
	}
	return d.queue.Pop().key, true
}

// Wait is the time from now to the first end of something that still matters (live says so of a key; the rest are
// dropped). It is zero when that has come, and ok is false when there is none.
func (d *Deadlines) Wait(now clock.Instant, live func(key uint64) bool) (wait time.Duration, ok bool) {
	for first := d.queue.Peek(); first != nil; first = d.queue.Peek() {
		if live(first.key) {
			return max(first.at.Sub(now), 0), true
		}
		d.queue.Pop()
	}
	return 0, false
}
