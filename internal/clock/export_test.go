package clock

import "time"

// Stall makes the clock find that the process stood still for d, as if the last reading were that
// old.
func (c *Clock) Stall(d time.Duration) { c.start = c.start.Add(-d) }
