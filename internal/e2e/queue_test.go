package e2e_test

import (
	"testing"

	"github.com/hearthws/hearth"
)

// TestLargerThanTheQueue checks that a single message may be larger than the limit of the queue.
func TestLargerThanTheQueue(t *testing.T) {
	t.Parallel()
	r := start(t, config{Limits: hearth.Limits{SendQueue: 64 << 10}})
	p := r.member("u")
	must(t, r.Local().Send(t.Context(), hearth.ToAll(), "big", repeat("x", 100<<10)))
	if e, data := p.event(); e != "big" || len(data) != 100<<10+2 {
		t.Errorf("got %s of %d bytes", e, len(data))
	}
}
