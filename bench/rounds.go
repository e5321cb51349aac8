package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A result is the outcome of one server in one round of one measure.
type result struct {
	Kind    string `json:"kind"` // "result"
	Measure string `json:"measure"`
	Server  string `json:"server"`
	Round   int    `json:"round"`
	// lost, wrong, closed or not run: the figures do not count
	Error   string             `json:"error,omitempty"`
	Bound   string             `json:"bound,omitempty"`
	Shares  shares             `json:"shares"`
	Figures map[string]float64 `json:"figures,omitempty"`
	Command []string           `json:"command"`           // the load generator's
	Reading *reading           `json:"reading,omitempty"` // of all turns that count
	Turns   []reading          `json:"turns,omitempty"`   // each turn; the first does not count
}

// runRounds runs all measures in each round: side by side if servers take turns, otherwise one
// after the other. A failed result does not end the run. It returns an error if ctx is done or the
// recorder cannot write.
func runRounds(ctx context.Context, env *environment, opts options, rec *recorder, progress io.Writer) ([]result, error) {
	var results []result
	for round := range opts.rounds {
		for _, m := range opts.measures {
			for _, group := range m.groups(rotate(m.serversOf(opts.servers), round)) {
				measured := measureGroup(ctx, newEntrants(env, m, group, len(results), opts.check))
				if err := ctx.Err(); err != nil {
					return results, fmt.Errorf("interrupted in round %d: %w", round+1, err)
				}
				for _, r := range measured {
					r.Round = round
					results = append(results, r)
					if err := rec.write(r); err != nil {
						return results, err
					}
					fmt.Fprintf(progress, "round %d of %d: %s\n", round+1, opts.rounds, r)
				}
			}
		}
	}
	return results, nil
}

// rotate starts each round with another server, so that no server always follows the same one.
func rotate[T any](all []T, round int) []T {
	first := round % len(all)
	return append(slices.Clone(all[first:]), all[:first]...)
}

// late reports whether messages of a paced fan-out were so late that a server wrote some of them
// together. The server then looks better than it is.
func (r result) late() bool {
	const together = 1.02 // messages per read
	return r.Reading != nil && r.Reading.SpreadP50US > 0 && float64(r.Reading.Got) > together*float64(r.Reading.Reads)
}

func (r result) String() string {
	name := fmt.Sprintf("%-15s %-11s", r.Measure, r.Server)
	if r.Error != "" {
		return name + "FAILED: " + strings.ReplaceAll(r.Error, "\n", "; ")
	}
	var parts []string
	for _, m := range measures {
		if m.name != r.Measure {
			continue
		}
		for _, f := range m.figures {
			parts = append(parts, number(r.Figures[f.key])+" "+f.name)
		}
	}
	return name + strings.Join(parts, ", ")
}

func countFailed(results []result) int {
	failed := 0
	for _, r := range results {
		if r.Error != "" {
			failed++
		}
	}
	return failed
}
