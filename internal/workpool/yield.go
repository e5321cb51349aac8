package workpool

import "time"

const (
	// maxYield is how long an event loop waits for tasks at most.
	maxYield = 200 * time.Microsecond

	// minSkip is for how many turns an event loop does not wait after a wait that a task blocked.
	// The number doubles with each such wait up to maxSkip, and halves with each other one.
	minSkip = 64
	maxSkip = 1 << 16
)

// A Yielder makes an event loop wait for the tasks that it has deferred. Most tasks take a
// microsecond and send an answer. If the loop went on beside them, the first answer would wake it,
// and it would write that answer alone, on another processor. After the wait it finds all answers.
//
// The wait is short. It ends after maxYield if the tasks take longer. A task that blocks delays the
// loop until the next check of the pool, and the loop then skips the wait for some turns.
//
// Make one with NewYielder for each loop.
type Yielder struct {
	free chan struct{} // has room for one

	// Guarded by Pool.mu.
	since    time.Time // when the wait began
	skip     int       // turns that do not wait
	nextSkip int       // becomes skip after the next wait that a task blocks
}

// NewYielder makes the Yielder of one loop.
func NewYielder() *Yielder { return &Yielder{free: make(chan struct{}, 1), nextSkip: minSkip} }

// RunDeferred starts work on deferred tasks and lets them run first. An event loop calls it once a
// turn. It blocks for a short time; see Yielder.
func (p *Pool) RunDeferred(y *Yielder) {
	p.mu.Lock()
	if p.queue.Len() == 0 {
		p.mu.Unlock()
		return
	}
	p.startWorkLocked()
	if y.skip > 0 {
		y.skip--
		p.mu.Unlock()
		return
	}
	y.since = time.Now()
	p.yielders = append(p.yielders, y)
	p.mu.Unlock()
	<-y.free
}

// releaseLocked ends the waits that have taken that long. blocked reports that no task has been
// taken since the last check.
func (p *Pool) releaseLocked(waited time.Duration, blocked bool) {
	if len(p.yielders) == 0 {
		return
	}
	now := time.Now()
	kept := p.yielders[:0]
	for _, y := range p.yielders {
		if now.Sub(y.since) < waited {
			kept = append(kept, y)
			continue
		}
		if blocked {
			y.skip, y.nextSkip = y.nextSkip, min(2*y.nextSkip, maxSkip)
		} else {
			y.nextSkip = max(y.nextSkip/2, minSkip)
		}
		y.free <- struct{}{}
	}
	clear(p.yielders[len(kept):])
	p.yielders = kept
}
