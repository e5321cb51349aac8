package session

import (
	"context"
	"time"
)

// sessionContext is a session as the context of those callbacks that make no sense without it: done when the session ends.
// It costs a session nothing until somebody asks for Done.
type sessionContext Session

// ended is closed from the start, for those who ask too late.
var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (l *sessionContext) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

func (l *sessionContext) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.transient
	if r == nil || r.done == nil {
		if (*Session)(l).endedLocked() {
			return closedChan
		}
		r = (*Session)(l).transientLocked()
		r.done = make(chan struct{})
	}
	return r.done
}

func (l *sessionContext) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (*Session)(l).endedLocked() {
		return context.Canceled
	}
	return nil
}

// Value is that of the server's context.
func (l *sessionContext) Value(key any) any { return l.env.Base.Value(key) }
