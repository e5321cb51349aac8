package main

import (
	"context"
	"slices"
	"time"
)

// measureGroup measures servers side by side. All are started and have their clients before the
// first of them is measured. Then they take turns of about a second each: a machine whose speed
// drifts over seconds, as shared ones do, slows all of them alike, where those that are measured
// one after the other may find it fast or slow. The first turn of each server warms it up and does
// not count. A server that is measured in one go is a group by itself, and has one turn.
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

// inOrder returns the order of the entrants in a turn. A different one comes first each time, forth
// and then back, so that a machine that slows down steadily favours none of them.
func inOrder[T any](all []T, turn int) []T {
	order := rotate(all, (turn+1)/2)
	if turn%2 == 0 {
		slices.Reverse(order)
	}
	return order
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
