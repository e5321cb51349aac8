package main

import (
	"context"
	"sync"
)

// A swarm is a group of running attackers, each on a goroutine.
type swarm struct {
	stop func() // stops all and waits for them
	wait func() // waits until all have ended by themselves
}

// start runs attackers until their context is done, which also closes their connections.
func start(ctx context.Context, n int, attacker func(ctx context.Context, number int)) *swarm {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { attacker(ctx, i) }) // ends with ctx; stop waits for it
	}
	return &swarm{stop: func() { cancel(); wait.Wait() }, wait: func() { wait.Wait(); cancel() }}
}

// again repeats f until ctx is done. Errors are expected: the server may close a connection at any
// time.
func again(ctx context.Context, what func(ctx context.Context) error) {
	for ctx.Err() == nil {
		inner, cancel := context.WithCancel(ctx)
		err := what(inner)
		cancel() // closes the connections of f
		if err != nil {
			_ = sleep(ctx, rejectedPause)
		}
	}
}
