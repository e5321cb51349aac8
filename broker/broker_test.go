package broker_test

import (
	"testing"

	"github.com/hearthws/hearth/broker"
)

func TestStates(t *testing.T) {
	t.Parallel()
	for i, want := range []string{"idle", "ok", "degraded", "down", "unknown"} {
		if got := broker.State(i).String(); got != want {
			t.Errorf("state %d is %q, want %q", i, got, want)
		}
	}
}
