package session

import (
	"context"
	"time"
)

// A sessionContext is a Session as the context of callbacks that are useless without the client: it
// is done when the session ends. It costs nothing until Done is called.
type sessionContext struct{ *Session }

// closedChan is what Done returns when the session has ended.
var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Deadline implements context.Context.
func (c sessionContext) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// Done implements context.Context.
func (c sessionContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.transient; t != nil && t.done != nil {
		return t.done
	}
	if c.ended() {
		return closedChan
	}
	t := c.transientLocked()
	t.done = make(chan struct{})
	return t.done
}

// Err implements context.Context.
func (c sessionContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended() {
		return context.Canceled
	}
	return nil
}

// Value returns the value that the server's context has for key.
func (c sessionContext) Value(key any) any { return c.env.Base.Value(key) }
