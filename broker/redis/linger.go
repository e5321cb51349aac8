package redis

import (
	"context"
	"errors"
	"time"
)

const (
	// lingerTime is how long a node stays subscribed at a master that has been demoted. Sentinels
	// turn it into a replica, and close all its connections, some eight seconds after they have
	// named another.
	lingerTime = 30 * time.Second

	// lingerInterval is how often such a server is asked whether it still calls itself a master.
	lingerInterval = time.Second
)

// retire gives up a connection that maintain has finished with. After an orderly failover the old
// master still accepts messages from publishers that have not learned of the new one, so its
// connection is kept for a while to deliver these.
//
// A server that calls itself a replica is left at once: it repeats what the new master publishes,
// which has been received from there. So does an old master as soon as it becomes a replica;
// Sentinels close its connections in the same step.
func (s *subscription) retire(ctx context.Context, c *conn, cause error) {
	if !errors.Is(cause, errOtherMaster) || ctx.Err() != nil {
		c.Close()
		return
	}
	c.demoted.Store(true)
	s.endLinger() // at most one is kept: that of the last failover
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

// linger returns when c is not needed any more.
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
