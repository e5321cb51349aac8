package session

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/hub"
)

// runCallback runs a callback with the server's context. It counts and logs an error or a panic,
// with the attributes about; nothing else ends.
func (s *Session) runCallback(name string, call func(ctx context.Context) error, about ...any) {
	callback.Run(func() error { return call(s.env.Base) }, func(err error) {
		s.callbackFailed(&s.env.Stats.CallbackErrors, name, err, about...)
	})
}

// callbackFailed logs an error of a callback, and counts it in counter if that is not nil.
func (s *Session) callbackFailed(counter *atomic.Uint64, name string, err error, about ...any) {
	if s.ended() && (errors.Is(err, hub.ErrNotMember) || errors.Is(err, context.Canceled)) {
		// The client disconnected while the callback ran. The application is not at fault.
		s.Debug(name+" callback: the client has disconnected", "cause", err)
		return
	}
	if counter != nil {
		counter.Add(1)
	}
	s.env.logFailure(name, err, append(about, "client", s.ID())...)
}

// RunCallback runs a callback that is about no client in particular. It counts and logs an error
// or a panic.
func (e *Env) RunCallback(name string, call func(ctx context.Context) error) {
	callback.Run(func() error { return call(e.Base) }, func(err error) { e.CallbackFailed(name, err) })
}

// CallbackFailed counts and logs an error that callback.Run reported. about has further
// attributes of the log line.
func (e *Env) CallbackFailed(name string, err error, about ...any) {
	e.Stats.CallbackErrors.Add(1)
	e.logFailure(name, err, about...)
}

func (e *Env) logFailure(name string, err error, about ...any) {
	args := append([]any{"error", err}, about...)
	var p *callback.PanicError
	if errors.As(err, &p) {
		args = append(args, "stack", string(p.Stack))
	}
	e.Log.Error(name+" callback failed", args...)
}

// Debug logs a line about the client if the debug level is enabled.
func (s *Session) Debug(msg string, args ...any) {
	if s.env.Log.Enabled(s.env.Base, slog.LevelDebug) {
		s.env.Log.Debug(msg, append(args, "client", s.ID())...)
	}
}
