package hub

import (
	"runtime"
	"time"
)

const (
	// maxYields is how many calls of Gosched without a new message end the first part of the wait.
	// That takes five to ten microseconds if no other goroutine is ready to run.
	maxYields = 100

	// maxPauses is how many pauses of at least pauseLength without a new message end the wait.
	// During a pause, a sender that lost its processor to another process gets that of the loop.
	maxPauses   = 2
	pauseLength = 20 * time.Microsecond

	// maxSkip bounds for how many large fan-outs the loop skips the pauses, after pauses that
	// brought no message. It begins with one.
	maxSkip = 64
)

// A coalescer waits for more messages before a large fan-out. It first lets other goroutines run.
// That is sufficient while processors are free. Otherwise a sender in the middle of a burst may
// have no processor for milliseconds, and the loop would carry half of the burst; then only sleep
// helps. Sleep that brings no message is tried more and more rarely, so that single messages are
// not delayed.
type coalescer struct {
	skip     int // large fan-outs for which there is no pause
	lastSkip int // the last value that skip was set to
}

// wait returns when the queue of l has stopped growing, or is enough for one write.
func (c *coalescer) wait(l *Lane) {
	seen := c.poll(l, l.waiting.Load(), maxYields, runtime.Gosched)
	if seen >= maxBatchBytes || l.hub.waiters.any() { // senders that wait for the loop send nothing
		return
	}
	if c.skip > 0 {
		c.skip--
		return
	}
	if c.poll(l, seen, maxPauses, func() { pause(pauseLength) }) > seen || l.hub.waiters.any() {
		c.lastSkip = 0
		return
	}
	c.lastSkip = min(max(2*c.lastSkip, 1), maxSkip)
	c.skip = c.lastSkip
}

// poll calls wait until that many rounds in a row have brought no message, and returns how many
// bytes are waiting in l then. seen is how many were waiting before.
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
