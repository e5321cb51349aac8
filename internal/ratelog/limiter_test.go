package ratelog_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/ratelog"
)

func TestLimiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := ratelog.New(10 * time.Second)
		for _, tt := range []struct {
			after   time.Duration
			skipped uint64
			due     bool
		}{
			{0, 0, true}, // the first at once
			{0, 0, false},
			{9 * time.Second, 0, false},
			{time.Second, 2, true}, // ten seconds after the last
			{time.Second, 0, false},
			{time.Hour, 1, true}, // however late, and from then on anew
			{9999 * time.Millisecond, 0, false},
			{time.Millisecond, 1, true},
			{10 * time.Second, 0, true},
		} {
			time.Sleep(tt.after)
			if skipped, due := l.Allow(); skipped != tt.skipped || due != tt.due {
				t.Errorf("%v later: %d skipped, due: %v; want %d, %v", tt.after, skipped, due, tt.skipped, tt.due)
			}
		}
	})
}

// TestLimiterConcurrent allows one of many simultaneous events and counts all others.
func TestLimiterConcurrent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const events = 1000
		l := ratelog.New(time.Second)
		var lines, skipped atomic.Uint64
		var all sync.WaitGroup
		for range events {
			all.Go(func() {
				if n, due := l.Allow(); due {
					lines.Add(1)
					skipped.Add(n)
				}
			})
		}
		all.Wait()
		time.Sleep(time.Second)
		n, due := l.Allow()
		if lines.Load() != 1 || !due || n+skipped.Load() != events-1 {
			t.Errorf("%d lines; later due: %v, with %d of %d skipped", lines.Load(), due, n, events-1)
		}
	})
}
