package main

import (
	"math"
	"testing"
)

func TestNewSpread(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		values []float64
		want   spread
	}{
		"none":       {nil, spread{}},
		"one":        {[]float64{3}, spread{3, 3, 3, 1}},
		"odd":        {[]float64{9, 1, 4}, spread{4, 1, 9, 3}},
		"even":       {[]float64{8, 2, 4, 1}, spread{3, 1, 8, 4}},
		"an outlier": {[]float64{1, 1, 1, 1000, 1}, spread{1, 1, 1000, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := newSpread(tc.values); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestNewSpreadKeepsItsArgument(t *testing.T) {
	t.Parallel()
	values := []float64{3, 1, 2}
	newSpread(values)
	if values[0] != 3 || values[1] != 1 || values[2] != 2 {
		t.Errorf("now %v", values)
	}
}

func TestRoundRatios(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		a, b map[int]float64
		want spread
	}{
		"drift cancels out":   {map[int]float64{0: 1, 1: 2, 2: 4}, map[int]float64{0: 2, 1: 4, 2: 8}, spread{0.5, 0.5, 0.5, 3}},
		"a round is missing":  {map[int]float64{0: 1, 2: 4}, map[int]float64{0: 2, 1: 4, 2: 2}, spread{1.25, 0.5, 2, 2}},
		"no round in common":  {map[int]float64{0: 1}, map[int]float64{1: 2}, spread{}},
		"nothing to divide":   {nil, nil, spread{}},
		"no division by zero": {map[int]float64{0: 1, 1: 3}, map[int]float64{0: 0, 1: 1}, spread{3, 3, 3, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := roundRatios(tc.a, tc.b)
			if math.Abs(got.Median-tc.want.Median) > 1e-12 || got.Min != tc.want.Min || got.Max != tc.want.Max || got.Count != tc.want.Count {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}
