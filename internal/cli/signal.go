package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// A signalError is the cause of a context that a signal ended.
type signalError struct{ signal syscall.Signal }

func (e signalError) Error() string { return e.signal.String() }

// untilSignal makes a context that ends with SIGINT or SIGTERM. After that a second one ends the process.
func untilSignal() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done, ended := make(chan struct{}), make(chan struct{})
	// Ends with done; whoever closes that waits for it.
	go func() {
		defer close(ended)
		defer signal.Stop(signals)
		select {
		case sig := <-signals:
			cancel(signalError{sig.(syscall.Signal)})
		case <-done:
			return
		}
		repeats := time.NewTimer(signalDebounce)
		defer repeats.Stop()
		select {
		case <-repeats.C:
		case <-done:
		}
	}()
	return ctx, func() { close(done); <-ended; cancel(nil) }
}

// signalExit is how the program ends if a signal has ended ctx; nil if none has.
func signalExit(ctx context.Context) error {
	var by signalError
	if errors.As(context.Cause(ctx), &by) {
		return exitError{exitSignal + int(by.signal)}
	}
	return nil
}
