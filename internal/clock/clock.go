// Package clock measures time for timeouts: monotonic time that does not include standstills of the
// process.
//
// A timeout limits the time in which a peer must act. It must not depend on the wall clock, which
// an administrator or NTP may step. And it must not include time in which this process could not
// receive the peer's messages: a stopped process (SIGSTOP), a paused virtual machine, a frozen
// container. After a standstill the peer's messages may still be unread in the kernel, or on their
// way, while every timer of the process is due at once.
package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// watchInterval is the time between two readings by Watch.
	watchInterval = 250 * time.Millisecond
	// standstill is the time without a reading, while Watch runs, that counts as a standstill.
	standstill = 2 * watchInterval
)

// An Instant is a reading of a Clock. Only readings of the same Clock can be compared.
type Instant int64 // nanoseconds since the clock was made, standstills not counted

// Add returns the instant d after i.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// A Clock is made by New. Its methods are safe for concurrent use and do not block, except Watch.
type Clock struct {
	start time.Time // read-only

	// Any goroutine may read these. They are written with mu held, skipped before lastAge.
	lastAge atomic.Int64 // the Age at some recent reading
	skipped atomic.Int64 // total length of the standstills

	// Guards watching, and writes to the fields above; no other lock is taken while it is held.
	mu       sync.Mutex
	watching bool // Watch runs
}

// New makes a clock. It does not notice standstills until Watch runs.
func New() *Clock { return &Clock{start: time.Now()} }

// Now returns the current reading of the clock.
func (c *Clock) Now() Instant {
	for {
		skipped := c.skipped.Load()
		age := c.Age()
		if age-time.Duration(c.lastAge.Load()) > watchInterval/2 {
			c.advance(age)
		}
		// If it differs, there was a standstill, perhaps during this iteration: try again.
		if c.skipped.Load() == skipped {
			return Instant(int64(age) - skipped)
		}
	}
}

// advance records a reading at age. If the time since the last reading is a standstill, it counts
// as one watchInterval and not as zero, so that a process that gets hardly any CPU time still
// detects a dead peer.
func (c *Clock) advance(age time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	gap := age - time.Duration(c.lastAge.Load())
	if gap <= 0 {
		return
	}
	if c.watching && gap > standstill {
		c.skipped.Add(int64(gap - watchInterval))
	}
	c.lastAge.Store(int64(age))
}

// Watch detects standstills until done is closed. It must run for as long as timeouts depend on the
// clock.
func (c *Clock) Watch(done <-chan struct{}) {
	c.watch(true)
	defer c.watch(false)
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.Now()
		case <-done:
			return
		}
	}
}

func (c *Clock) watch(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastAge.Store(int64(c.Age()))
	c.watching = on
}

// Age returns the monotonic time since the clock was made, including standstills.
func (c *Clock) Age() time.Duration { return time.Since(c.start) }

// At returns the time at which Age was age. Its monotonic reading is exact. Its wall clock reading
// follows the current setting of the wall clock.
func (c *Clock) At(age time.Duration) time.Time {
	now := time.Now()
	return now.Add(age - now.Sub(c.start))
}

// Time is At for an Instant. A standstill after the reading counts as if it were before it.
func (c *Clock) Time(i Instant) time.Time { return c.At(time.Duration(int64(i) + c.skipped.Load())) }
