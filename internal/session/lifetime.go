package session

import (
	"context"
	"time"
)

// lifetime is a session as the context of those callbacks that make no sense without it: done when the session ends.
// It costs a session nothing until somebody asks for Done.
type lifetime Session

// ended is closed from the start, for those who ask too late.
var ended = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (l *lifetime) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

func (l *lifetime) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rare
	if r == nil || r.done == nil {
		if (*Session)(l).endedLocked() {
			return ended
		}
		r = (*Session)(l).rareLocked()
		r.done = make(chan struct{})
	}
	return r.done
}

func (l *lifetime) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (*Session)(l).endedLocked() {
		return context.Canceled
	}
	return nil
}

// Value is that of the server's context.
func (l *lifetime) Value(key any) any { return l.env.Base.Value(key) }
