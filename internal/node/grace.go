package node

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// grace is how long Shutdown waits for work to end after it cancelled it.
const grace = 250 * time.Millisecond

// errStillRunning reports work that did not end within the grace period.
var errStillRunning = errors.New("are still running")

// waitWithGrace runs wait on a goroutine of its own, and returns nil when wait returns before ctx
// is done. Otherwise it calls cancel, which gets a channel that is closed when wait returns, and
// waits for wait at most grace longer. It then returns ctx's error; if wait has still not returned,
// the error also wraps errStillRunning and names what is running. If cancel fails, waitWithGrace
// does not wait any longer, and returns its error too.
func waitWithGrace(ctx context.Context, what string, wait func(), cancel func(done <-chan struct{}) error) error {
	done := make(chan struct{})
	go func() { // ends when wait returns; if waitWithGrace returns earlier, its error says so
		wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	if err := cancel(done); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	select {
	case <-done:
		return ctx.Err()
	case <-time.After(grace):
		return fmt.Errorf("%s %w: %w", what, errStillRunning, ctx.Err())
	}
}
