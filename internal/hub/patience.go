package hub

import (
	"runtime"
	"time"
)

const (
	// yields is how often others may run before it is clear that nothing is being sent by who has a processor: five to
	// ten microseconds where nobody else wants one.
	yields = 100

	// pauses of at least pauseLength each, in a row, that bring nothing are the end of patience. Whoever was about to
	// send and lost its processor to another process gets the loop's meanwhile.
	pauses      = 2
	pauseLength = 20 * time.Microsecond

	// shyest is for how many crowds the loop does not pause after pauses that were in vain; at first for one.
	shyest = 64
)

// patience is how a loop waits for more of what it is about to carry. It first lets other goroutines run, which is all
// that is needed where processors are free. Where they are not, a publisher in the middle of a burst may have none for
// milliseconds while the loop goes round it with half of the burst: then only sleep helps. Sleep that has brought
// nothing is tried more and more rarely, so that messages that come one at a time are not kept waiting.
type patience struct {
	shy   int // crowds for which there is no pause
	shyer int // what shy will be after the next pause in vain
}

// gather returns when what waits in l has stopped growing, or is enough for one write.
func (p *patience) gather(l *Lane) {
	seen := p.grow(l, l.waiting.Load(), yields, runtime.Gosched)
	if seen >= batchMax || l.hub.waiters.any() { // whoever waits for us sends nothing
		return
	}
	if p.shy > 0 {
		p.shy--
		return
	}
	if p.grow(l, seen, pauses, func() { pause(pauseLength) }) > seen || l.hub.waiters.any() {
		p.shyer = 0
		return
	}
	p.shyer = min(max(2*p.shyer, 1), shyest)
	p.shy = p.shyer
}

// grow lets time pass until nothing has come for that many moments, and returns what waits then.
func (p *patience) grow(l *Lane, seen int64, moments int, moment func()) int64 {
	for quiet := 0; quiet < moments && seen < batchMax && !l.hub.waiters.any(); {
		moment()
		if now := l.waiting.Load(); now != seen {
			seen, quiet = now, 0
		} else {
			quiet++
		}
	}
	return seen
}
