package redis

import (
	"context"
	"errors"
	"time"
)

const (
	// lingerTime is how long a node goes on listening at a master that has been demoted. Sentinels make a replica of it some
	// eight seconds after they have named another, and close all its connections then.
	lingerTime = 30 * time.Second

	// lingerCheck is how often such a server is asked whether it still calls itself a master.
	lingerInterval = time.Second
)

// leave gives up a wire that tend has done with. After an orderly failover the old master still takes messages from those
// who have not heard of the new one, so its wire is kept for a while, to deliver these.
//
// A server that calls itself a replica is left at once: it repeats what the new master publishes, and that has come already.
// So does an old master from the moment when it becomes a replica; Sentinels close its connections in the same step.
func (s *subscription) retire(ctx context.Context, c *conn, cause error) {
	if !errors.Is(cause, errOtherMaster) || ctx.Err() != nil {
		c.Close()
		return
	}
	c.demoted.Store(true)
	s.endLinger() // at most one: of failovers in a row, the last counts
	ctx, cancel := context.WithTimeout(ctx, lingerTime)
	done := make(chan struct{})
	s.endLinger = func() { cancel(); <-done }
	go func() { // ends with ctx, by endLinger, which waits for it
		defer close(done)
		defer cancel()
		defer c.Close()
		linger(ctx, c)
	}()
}

// linger returns when c is no longer to be listened to.
func linger(ctx context.Context, c *conn) {
	every := time.NewTicker(lingerInterval)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.Done():
			return
		case <-every.C:
			if c.hello(ctx) != nil || c.usable() != nil {
				return
			}
		}
	}
}
