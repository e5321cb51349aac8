package callback_test

import (
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/hearthws/hearth/internal/callback"
)

// TestGoSurvivesGoexit checks that Go calls f again after runtime.Goexit, one call after the other.
func TestGoSurvivesGoexit(t *testing.T) {
	t.Parallel()
	for _, exits := range []int{0, 1, 5} {
		var done sync.WaitGroup
		var calls []bool
		callback.Go(&done, func(exited bool) {
			calls = append(calls, exited)
			if len(calls) <= exits {
				runtime.Goexit()
			}
		})
		done.Wait()
		want := append([]bool{false}, slices.Repeat([]bool{true}, exits)...)
		if !slices.Equal(calls, want) {
			t.Errorf("%d exits: f was called with exited = %v, want %v", exits, calls, want)
		}
	}
}
