package interop_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/hearthws/hearth"
)

// TestCallsToAllNodes checks that calls between Hearth servers do not involve the reference: it is
// not counted, and neither it nor its clients notice.
func TestCallsToAllNodes(t *testing.T) {
	t.Parallel()
	w := newDeployment(t)
	c := w.clientSet()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, n := range []*node{w.exact, w.pattern} {
		for len(n.Nodes()) < 2 { // each node learns about the other a moment after it has started
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("the nodes do not know each other: %v", n.Nodes())
			}
		}
	}
	expect := func(what string, want int) func(int, error) {
		return func(got int, err error) {
			t.Helper()
			if got != want || err != nil {
				t.Errorf("%s: %d, %v; want %d", what, got, err, want)
			}
		}
	}
	ref, exact, pattern := c.bob[0], c.bob[1], c.bob[2]

	expect("all", 6)(w.exact.Count(ctx, hearth.ToAll()))
	expect("users", 4)(w.pattern.Count(ctx, hearth.ToUser("ada")))
	expect("a client of the reference", 0)(w.exact.Count(ctx, hearth.ToClient(ref.id)))
	expect("join", 2)(w.exact.Join(ctx, hearth.ToUser("bob"), "vip"))
	expect("room", 2)(w.pattern.Count(ctx, hearth.ToRoom("vip")))

	from := w.referenceEmitter()
	from.room("vip", "bob to vip", json.RawMessage(`{"n":1}`))
	c.expectReach(w.referenceEmitter(), "bob to vip", []*peer{exact, pattern})
	expect("leave", 2)(w.pattern.Leave(ctx, hearth.ToUser("bob"), "vip"))
	from.room("vip", "nobody is vip", json.RawMessage(`{"n":1}`))
	c.expectReach(from, "nobody is vip", nil)

	expect("disconnect a client of the reference", 0)(w.exact.Disconnect(ctx, hearth.ToClient(ref.id), 4321, "gone"))
	expect("disconnect", 2)(w.exact.Disconnect(ctx, hearth.ToUser("bob"), 4321, "gone"))
	for _, p := range []*peer{exact, pattern} {
		if _, _, err := p.conn.Read(ctx); websocket.CloseStatus(err) != 4321 {
			t.Errorf("%s received %v", p.name, err)
		}
	}
	c.bob = []*peer{ref}
	from.user("bob", "still here", json.RawMessage(`{"n":1}`))
	c.expectReach(from, "still here", c.bob)
	if got := w.ref.do("clients", nil); string(got) != "3" {
		t.Errorf("the reference has %s clients, want its 3", got)
	}
}
