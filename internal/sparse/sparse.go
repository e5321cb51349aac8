// Package sparse keeps a log from growing with the trouble that it tells of: of many events of a kind one has a line, and
// then one at most each interval, which says how many had none.
package sparse

import (
	"sync"
	"time"
)

// Lines are those about one kind of event. Safe for concurrent use, and never waits.
type Lines struct {
	every time.Duration // read-only

	mu      sync.Mutex // guards the fields below; innermost
	next    time.Time
	skipped uint64
}

// New allows the first line at once, and each further one that long after the last.
func New(every time.Duration) *Lines { return &Lines{every: every} }

// Due reports whether an event has a line, and how many before it, since the last that had one, did not.
func (l *Lines) Due() (skipped uint64, due bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.next) {
		l.skipped++
		return 0, false
	}
	skipped, l.skipped = l.skipped, 0
	l.next = now.Add(l.every)
	return skipped, true
}
