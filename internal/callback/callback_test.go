package callback_test

import (
	"errors"
	"testing"

	"github.com/hearthws/hearth/internal/callback"
)

func TestWithin(t *testing.T) {
	t.Parallel()
	if callback.Within() {
		t.Error("within a callback, and there is none")
	}
	failed := errors.New("failed")
	for _, depth := range []int{0, 1, 60, 61, 62, 63, 64, 65, 66, 200, 5000} {
		within := false
		err := callback.Call(func() error {
			within = deep(depth)
			return failed
		})
		if !within || err != failed {
			t.Errorf("at depth %d: within is %v, error %v", depth, within, err)
		}
		if deep(depth) {
			t.Errorf("at depth %d: within a callback, and there is none", depth)
		}
	}
	_ = callback.Call(func() error {
		other := make(chan bool)
		go func() { other <- callback.Within() }() // ends with its answer
		if <-other {
			t.Error("another goroutine is within the callback")
		}
		return nil
	})
}

func deep(n int) bool {
	if n == 0 {
		return callback.Within()
	}
	return deep(n - 1)
}
