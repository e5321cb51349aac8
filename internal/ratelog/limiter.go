// Package ratelog limits how often a log line is repeated. Handler does so for every line of a
// logger, Limiter for one line whose caller counts the events itself.
package ratelog

import (
	"sync"
	"time"
)

// Limiter allows one event in each interval and counts the others. Safe for concurrent use. Never
// blocks.
type Limiter struct {
	interval time.Duration // read-only

	mu         sync.Mutex // guards the fields below; innermost
	next       time.Time
	suppressed uint64
}

// New makes a limiter that allows the first event at once.
func New(interval time.Duration) *Limiter { return &Limiter{interval: interval} }

// Allow reports whether the event may be logged, and how many events since the last one that was
// logged were not.
func (l *Limiter) Allow() (suppressed uint64, ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.next) {
		l.suppressed++
		return 0, false
	}
	suppressed, l.suppressed = l.suppressed, 0
	l.next = now.Add(l.interval)
	return suppressed, true
}
