package redis

import (
	"testing"
	"time"
)

// TestUnconfirmed checks how far back messages are uncertain.
func TestUnconfirmed(t *testing.T) {
	t.Parallel()
	type step struct {
		at       time.Duration
		add      int
		confirms bool
	}
	for name, tt := range map[string]struct {
		lag          time.Duration
		steps        []step
		messages     uint64
		since, until time.Duration
	}{
		"nothing":                 {5, []step{{at: 3, confirms: true}}, 0, 0, 0},
		"never confirmed":         {5, []step{{at: 1, add: 2}, {at: 90, add: 3}}, 5, 0, 90},
		"confirmed too early":     {5, []step{{at: 1, add: 2}, {at: 4, confirms: true}, {at: 6, add: 1}}, 3, 0, 6},
		"confirmed once":          {5, []step{{at: 1, add: 2}, {at: 7, confirms: true}, {at: 8, add: 1}}, 3, 0, 8},
		"confirmed twice":         {5, []step{{at: 1, add: 2}, {at: 7, confirms: true}, {at: 8, add: 1}, {at: 12, confirms: true}, {at: 13, add: 4}}, 5, 7, 13},
		"one before, twice":       {5, []step{{at: 1, add: 2}, {at: 7, confirms: true}, {at: 12, confirms: true}, {at: 13, add: 4}}, 4, 12, 13},
		"the server's word":       {0, []step{{at: 1, add: 2}, {at: 2, confirms: true}, {at: 3, add: 1}, {at: 4, confirms: true}, {at: 5, add: 1}}, 2, 2, 5},
		"confirmed for a while":   {5, []step{{at: 1, add: 2}, {at: 6, confirms: true}, {at: 11, confirms: true}, {at: 16, confirms: true}}, 0, 0, 0},
		"confirmations in a rush": {5, []step{{at: 1, add: 2}, {at: 6, confirms: true}, {at: 7, confirms: true}, {at: 8, confirms: true}}, 2, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := unconfirmed{lag: tt.lag}
			for _, s := range tt.steps {
				r.add(s.add, s.at)
				if s.confirms {
					r.confirm(s.at)
				}
			}
			messages, since, until := r.end(100)
			if messages != tt.messages || messages > 0 && (since != tt.since || until != tt.until) {
				t.Errorf("%d messages between %d and %d, want %d between %d and %d", messages, since, until, tt.messages, tt.since, tt.until)
			}
			if r.messages() != 0 {
				t.Errorf("%d messages are left", r.messages())
			}
		})
	}
}

// TestUnconfirmedUncertain checks that a confirmation by a Sentinel that may lag does not make the
// messages before it certain.
func TestUnconfirmedUncertain(t *testing.T) {
	t.Parallel()
	trail := unconfirmed{lag: 5 * time.Second}
	trail.confirm(10 * time.Second)
	trail.add(5, 19*time.Second)
	trail.confirm(19500 * time.Millisecond)
	for now, want := range map[time.Duration]bool{20 * time.Second: true, 24 * time.Second: true, 25 * time.Second: false} {
		if got := trail.uncertain(now); got != want {
			t.Errorf("at %v: uncertain %v, want %v", now, got, want)
		}
	}
}
