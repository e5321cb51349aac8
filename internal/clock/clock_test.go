package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/clock"
)

func TestClockRunsWithTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := clock.New()
		done := make(chan struct{})
		defer close(done)
		go c.Watch(done) // ends with done
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
