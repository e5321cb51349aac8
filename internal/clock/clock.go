// Package clock measures time for timeouts: monotonic time, without the time in which the process stood still.
//
// A timeout judges what a peer did in some time. It must not depend on the wall clock, which an administrator or NTP may
// step. And it must not count time in which this process could not have heard the peer: a stopped process (SIGSTOP), a
// paused virtual machine, a frozen container. After a standstill the peer's messages may still be unread in the kernel,
// or on their way, while every timer of the process is due at once.
package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// watchInterval is the time between two readings that Watch makes.
	watchInterval = 250 * time.Millisecond
	// standstill is the time without a reading, while Watch runs, from which the process is taken to have stood still.
	standstill = 2 * watchInterval
)

// An Instant is a reading of a Clock. Only those of the same Clock can be compared.
type Instant int64 // nanoseconds since the clock was made, standstills not counted

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// A Clock is made by New. Its methods may be called from any goroutine and do not block, Watch excepted.
type Clock struct {
	start time.Time // read-only

	// Any goroutine reads these. They are written with mu held, lost before seen.
	lastAge atomic.Int64 // the Age at some recent reading
	skipped atomic.Int64 // how much of it were standstills

	mu       sync.Mutex // guards watched, and writing the fields above; innermost
	watching bool       // Watch runs
}

// New makes a clock. Until Watch runs it does not notice standstills.
func New() *Clock { return &Clock{start: time.Now()} }

// Now reads the clock.
func (c *Clock) Now() Instant {
	for {
		skipped := c.skipped.Load()
		age := c.Age()
		if age-time.Duration(c.lastAge.Load()) > watchInterval/2 {
			c.advance(age)
		}
		// Otherwise there was a standstill, perhaps between the lines above.
		if c.skipped.Load() == skipped {
			return Instant(int64(age) - skipped)
		}
	}
}

// advance makes age the newest reading. What passed since the last one is a standstill if it was too long. It counts as
// one pulse: a process that gets hardly any processor must still find a dead peer some day.
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

// Watch notices standstills, until done is closed. It must run for as long as timeouts depend on the clock.
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

// Age is the monotonic time since the clock was made, standstills included.
func (c *Clock) Age() time.Duration { return time.Since(c.start) }

// At is the moment at which Age was age. Its monotonic reading is exact. Its wall reading is by the wall clock as it is
// set now.
func (c *Clock) At(age time.Duration) time.Time {
	now := time.Now()
	return now.Add(age - now.Sub(c.start))
}

// Time is At for a reading. A standstill after the reading counts as before it.
func (c *Clock) Time(i Instant) time.Time { return c.At(time.Duration(int64(i) + c.skipped.Load())) }
