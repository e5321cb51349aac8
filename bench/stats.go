package main

import (
	"maps"
	"slices"
)

// A spread has the median, minimum and maximum of a sample.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Count  int     `json:"count"`
}

// newSpread returns the spread of values, in any order. The zero spread has Count 0.
func newSpread(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1], Count: n}
}

// roundRatios divides the values of each round, so that a slow phase that affects both servers of a
// round cancels out. It leaves out rounds without one of the two, and those in which b is zero.
func roundRatios(a, b map[int]float64) spread {
	var ratios []float64
	for round, value := range a {
		if other, ok := b[round]; ok && other != 0 {
			ratios = append(ratios, value/other)
		}
	}
	return newSpread(ratios)
}

func roundSpread(rounds map[int]float64) spread {
	return newSpread(slices.Collect(maps.Values(rounds)))
}
