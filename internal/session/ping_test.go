package session_test

import (
	"bytes"
	"testing"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
)

// TestPingFlood: what a single read may make the server queue is bounded; who does not overdo it gets every answer.
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
			t.Errorf("%d answers to %d pings", got, n)
		}
	}
	if n := pongs(10_000); n < 10 || n > 100 {
		t.Errorf("%d answers to a flood", n)
	}
	if n := pongs(1); n != 1 {
		t.Errorf("%d answers after a flood", n)
	}
}
