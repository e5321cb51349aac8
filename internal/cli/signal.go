package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// A signalError is the cause of a context that a signal cancelled.
type signalError struct{ signal syscall.Signal }

func (e signalError) Error() string { return e.signal.String() }

// untilSignal returns a context that SIGINT or SIGTERM cancels. After that a second signal ends the
// process.
func untilSignal() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done, ended := make(chan struct{}), make(chan struct{})
	// Ends with done. The returned function closes done and waits for this goroutine.
	go func() {
		defer close(ended)
		select {
		case sig := <-signals:
			cancel(signalError{sig.(syscall.Signal)})
		case <-done:
			signal.Stop(signals)
			return
		}
		repeats := time.NewTimer(signalDebounce)
		defer repeats.Stop()
		select {
		case <-repeats.C:
			signal.Stop(signals)
		case <-done: // the process exits now: a repeated signal must not change its exit code
		}
	}()
	return ctx, func() { close(done); <-ended; cancel(nil) }
}

// signalExit returns the exit code of the signal that cancelled ctx, or nil if no signal did.
func signalExit(ctx context.Context) error {
	var by signalError
	if errors.As(context.Cause(ctx), &by) {
		return exitError{exitSignal + int(by.signal)}
	}
	return nil
}
