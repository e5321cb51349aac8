package pending

import (
	"time"

	"github.com/hearthws/hearth/internal/clock"
)

// Deadlines is a queue of moments for things that all get the same time, so that the first to come is the first to end.
// It holds numbers, not pointers: what has ended meanwhile is not kept in memory by it. The zero value is empty. Not
// safe for concurrent use.
type Deadlines struct {
	q    []deadline
	head int
}

type deadline struct {
	key uint64
	at  clock.Instant
}

// Add sets the end of what key stands for. at must not be before that of any earlier Add.
func (d *Deadlines) Add(key uint64, at clock.Instant) {
	if d.head > keepCap && d.head*2 >= len(d.q) {
		d.q = d.q[:copy(d.q, d.q[d.head:])]
		d.head = 0
	}
	d.q = append(d.q, deadline{key: key, at: at})
}

// Due removes and returns the first key whose time has come.
func (d *Deadlines) Due(now clock.Instant) (key uint64, ok bool) {
	if d.head == len(d.q) || d.q[d.head].at > now {
		return 0, false
	}
	key = d.q[d.head].key
	d.pop()
	return key, true
}

// Wait is the time from now to the first end of something that still matters (live says so of a key; the rest are
// dropped). It is zero when that has come, and ok is false when there is none.
func (d *Deadlines) Wait(now clock.Instant, live func(key uint64) bool) (wait time.Duration, ok bool) {
	for d.head < len(d.q) {
		if first := d.q[d.head]; live(first.key) {
			return max(first.at.Sub(now), 0), true
		}
		d.pop()
	}
	return 0, false
}

func (d *Deadlines) pop() {
	d.head++
	if d.head == len(d.q) {
		*d = Deadlines{q: d.q[:0]}
		if cap(d.q) > 4*keepCap {
			d.q = nil
		}
	}
}
