package hub

import (
	"runtime"
	"time"
)

const (
	// maxYields is how often others may run before it is clear that nothing is being sent by who has a processor: five to
	// ten microseconds where nobody else wants one.
	maxYields = 100

	// pauses of at least pauseLength each, in a row, that bring nothing are the end of patience. Whoever was about to
	// send and lost its processor to another process gets the loop's meanwhile.
	maxPauses   = 2
	pauseLength = 20 * time.Microsecond

	// maxSkip is for how many crowds the loop does not pause after pauses that were in vain; at first for one.
	maxSkip = 64
)

// coalescer is how a loop waits for more of what it is about to carry. It first lets other goroutines run, which is all
// that is needed where processors are free. Where they are not, a publisher in the middle of a burst may have none for
// milliseconds while the loop goes round it with half of the burst: then only sleep helps. Sleep that has brought
// nothing is tried more and more rarely, so that messages that come one at a time are not kept waiting.
type coalescer struct {
	skip     int // crowds for which there is no pause
	nextSkip int // what skip will be after the next pause in vain
}

// wait returns when what waits in l has stopped growing, or is enough for one write.
func (c *coalescer) wait(l *Lane) {
	seen := c.poll(l, l.waiting.Load(), maxYields, runtime.Gosched)
	if seen >= maxBatchBytes || l.hub.waiters.any() { // whoever waits for us sends nothing
		return
	}
	if c.skip > 0 {
		c.skip--
		return
	}
	if c.poll(l, seen, maxPauses, func() { pause(pauseLength) }) > seen || l.hub.waiters.any() {
		c.nextSkip = 0
		return
	}
	c.nextSkip = min(max(2*c.nextSkip, 1), maxSkip)
	c.skip = c.nextSkip
}

// poll lets time pass until nothing has come for that many moments, and returns what waits then.
func (c *coalescer) poll(l *Lane, seen int64, rounds int, wait func()) int64 {
	for quiet := 0; quiet < rounds && seen < maxBatchBytes && !l.hub.waiters.any(); {
		wait()
		if now := l.waiting.Load(); now != seen {
			seen, quiet = now, 0
		} else {
			quiet++
		}
	}
	return seen
}
