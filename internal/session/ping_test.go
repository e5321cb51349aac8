package session_test

import (
	"bytes"
	"testing"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
)

// TestPingFlood checks that the pongs for one read are bounded, and that a few pings are all
// answered.
func TestPingFlood(t *testing.T) {
	t.Parallel()
	b := newFixture(session.LobbyConfig{}, session.Callbacks{})
	defer b.close()
	p := b.open("10.0.0.1")
	ping := ws.AppendMaskedFrame(nil, ws.OpPing, false, nil)
	pongs := func(pings int) int {
		p.out = nil
		p.Data(bytes.Repeat(ping, pings), 0)
		b.env.Hub.Lane(0).Tick()
		return len(p.out) / 2
	}
	for _, n := range []int{1, 10, 1} {
		if got := pongs(n); got != n {
			t.Errorf("%d pongs for %d pings", got, n)
		}
	}
	if n := pongs(10_000); n < 10 || n > 100 {
		t.Errorf("%d pongs for a flood", n)
	}
	if n := pongs(1); n != 1 {
		t.Errorf("%d pongs after a flood", n)
	}
}
