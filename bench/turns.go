package main

import (
	"context"
	"slices"
	"time"
)

// measureGroup measures servers side by side. It starts all of them and connects their clients.
// Then they take turns of about a second each, so a machine whose speed drifts over seconds, as
// shared ones do, slows all of them alike. Servers measured one after the other could find it fast
// or slow. The first turn of each server warms it up and does not count. A server that is measured
// in one piece is a group by itself and has one turn.
func measureGroup(ctx context.Context, entrants []*entrant) []result {
	for _, e := range entrants {
		e.attempt(func() error { return e.start(ctx) })
	}
	for turn := range entrants[0].load.turns + 1 {
		for _, e := range inOrder(entrants, turn) {
			e.attempt(e.takeTurn)
		}
	}
	var results []result
	for _, e := range entrants {
		results = append(results, e.finish())
	}
	if !entrants[0].check {
		pause(ctx, 300*time.Millisecond)
	}
	return results
}

// inOrder returns the order of the entrants in a turn. Each turn begins with another one, and every
// second turn is reversed, so a machine that slows down steadily favours none of them.
func inOrder[T any](all []T, turn int) []T {
	order := rotate(all, (turn+1)/2)
	if turn%2 == 0 {
		slices.Reverse(order)
	}
	return order
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
