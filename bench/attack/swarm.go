package main

import (
	"context"
	"sync"
)

// A swarm is attackers at work, each on a goroutine.
type swarm struct {
	stop func() // ends all and waits for them
	wait func() // waits until all have ended by themselves
}

// start runs attackers until their context is done, which closes their connections, too.
func start(ctx context.Context, n int, attacker func(ctx context.Context, number int)) *swarm {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { attacker(ctx, i) }) // ends with ctx; stop waits for it
	}
	return &swarm{stop: func() { cancel(); wait.Wait() }, wait: func() { wait.Wait(); cancel() }}
}

// again repeats something until ctx is done. Errors are expected: the server may close a connection
// as often as it wants.
func again(ctx context.Context, what func(ctx context.Context) error) {
	for ctx.Err() == nil {
		inner, cancel := context.WithCancel(ctx)
		err := what(inner)
		cancel() // closes its connections
		if err != nil {
			_ = sleep(ctx, refusedPause)
		}
	}
}
