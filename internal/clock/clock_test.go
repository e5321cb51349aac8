package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/clock"
)

// watched returns a clock that is watched until the end of the bubble of t.
func watched(t *testing.T) *clock.Clock {
	t.Helper()
	c := clock.New()
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go c.Watch(done) // ends with done; the bubble waits for it
	return c
}

func TestClockRunsWithTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := watched(t)
		for _, d := range []time.Duration{0, 1, time.Millisecond, 10 * time.Second, time.Hour} {
			before, at := c.Now(), time.Now()
			time.Sleep(d)
			if got := c.Now().Sub(before); got != d {
				t.Errorf("%v passed, want %v", got, d)
			}
			if got := c.Time(before); !got.Equal(at) {
				t.Errorf("the moment of a reading is %v, want %v", got, at)
			}
		}
	})
}

// TestClockWithoutWatch checks that without Watch, time without readings is counted in full.
func TestClockWithoutWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := clock.New()
		before := c.Now()
		time.Sleep(time.Hour)
		if got := c.Now().Sub(before); got != time.Hour {
			t.Errorf("%v passed, want an hour", got)
		}
	})
}
