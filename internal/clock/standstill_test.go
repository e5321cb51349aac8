package clock_test

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestStandstill checks that a standstill counts as little, for readings before, during and after
// it.
func TestStandstill(t *testing.T) {
	t.Parallel()
	for _, stood := range []time.Duration{time.Second, time.Minute, 1000 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			c := watched(t)
			time.Sleep(10 * time.Second)
			before, at := c.Now(), time.Now()
			c.Stall(stood)
			after := c.Now()
			if got := after.Sub(before); got < 0 || got > time.Second/2 {
				t.Errorf("a standstill of %v counts as %v", stood, got)
			}
			if got := c.Time(before).Sub(at); got < -time.Second/2 || got > time.Second/2 {
				t.Errorf("a reading before a standstill of %v moved by %v", stood, got)
			}
			time.Sleep(time.Minute)
			if got := c.Now().Sub(after); got != time.Minute {
				t.Errorf("%v passed after the standstill, want a minute", got)
			}
		})
	}
}

// TestShortDelays checks that delays of a busy machine are counted in full.
func TestShortDelays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := watched(t)
		synctest.Wait()
		before := c.Now()
		c.Stall(400 * time.Millisecond)
		if got := c.Now().Sub(before); got != 400*time.Millisecond {
			t.Errorf("a delay of 400ms counts as %v", got)
		}
	})
}

// TestRepeatedStandstills checks that a process that hardly runs still measures some time.
func TestRepeatedStandstills(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := watched(t)
		synctest.Wait()
		before := c.Now()
		for range 100 {
			c.Stall(10 * time.Second)
			c.Now()
		}
		if got := c.Now().Sub(before); got < 10*time.Second || got > 100*time.Second {
			t.Errorf("100 standstills of 10s count as %v", got)
		}
	})
}
