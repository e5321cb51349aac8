package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
	"pgregory.net/rapid"
)

const (
	lobbyTimeout = time.Second
	lobbyMax     = 6
	lobbyPerAddr = 3
)

// TestLobby lets clients come, ask, be decided upon and go at random, and compares who is closed, and when, with a
// list that is searched.
func TestLobby(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var script []step
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			script = append(script, step{
				what: rapid.SampledFrom([]string{"come", "come", "come", "ask", "accept", "refuse", "go", "pass"}).Draw(rt, "what"),
				who:  rapid.IntRange(0, 20).Draw(rt, "who"),
				addr: rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"}).Draw(rt, "addr"),
				time: time.Duration(rapid.IntRange(0, 12).Draw(rt, "time")) * 100 * time.Millisecond,
			})
		}
		var err error
		synctest.Test(t, func(*testing.T) { err = playLobby(script) })
		if err != nil {
			rt.Fatalf("%v\n%v", script, err)
		}
	})
}

type step struct {
	what string
	who  int
	addr string
	time time.Duration
}

// guest is one client in the model.
type guest struct {
	p        *peer
	network  string
	deadline time.Time
	asked    bool
	decide   chan error
	here     bool // in the lobby
	ended    bool
}

func playLobby(script []step) error {
	decisions := make(map[string]chan error)
	b := newBench(session.LobbyConfig{Timeout: lobbyTimeout, Max: lobbyMax, PerAddr: lobbyPerAddr}, session.Callbacks{
		Authenticate: func(ctx context.Context, s *session.Session, _ []byte) (session.Identity, error) {
			select {
			case err := <-decisions[s.ID()]:
				return session.Identity{}, err
			case <-ctx.Done():
				return session.Identity{}, ctx.Err()
			}
		},
	})
	defer b.close()
	var all []*guest
	for i, st := range script {
		g := new(guest)
		if len(all) > 0 {
			g = all[st.who%len(all)]
		}
		switch {
		case st.what == "come":
			g = &guest{network: st.addr, deadline: time.Now().Add(lobbyTimeout), here: true, decide: make(chan error, 1)}
			if st.addr == "2001:db8::2" {
				g.network = "2001:db8::1" // the same /64
			}
			decisions[idOf(len(all)+1).String()] = g.decide
			all = append(all, g)
			evict(all, g)
			g.p = b.open(st.addr)
		case st.what == "pass":
			pass(st.time)
		case !g.here:
			continue
		case st.what == "ask" && !g.asked:
			g.asked, g.deadline = true, time.Now().Add(3*lobbyTimeout)
			g.p.say("authenticate", nil)
		case st.what == "accept" && g.asked:
			g.here = false
			g.decide <- nil
		case st.what == "refuse" && g.asked:
			g.here, g.ended = false, true
			g.decide <- errors.New("no")
		case st.what == "go":
			g.here, g.ended = false, true
			g.p.Close(1000, "")
		}
		synctest.Wait()
		if err := compare(b, all); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	pass(5 * lobbyTimeout)
	synctest.Wait()
	if n := b.env.Lobby.Count(); n != 0 {
		return fmt.Errorf("%d are left after all deadlines", n)
	}
	return nil
}

// evict makes room for the newest: the one of its address that came first, if those are too many; if all are, the first
// of those that have not asked, or, when all others have, the first who did.
func evict(all []*guest, newest *guest) {
	var same, silent, asked []*guest
	count := 0
	for _, g := range all {
		if !g.here {
			continue
		}
		count++
		if g.network == newest.network {
			same = append(same, g)
		}
		if g.asked {
			asked = append(asked, g)
		} else if g != newest {
			silent = append(silent, g)
		}
	}
	slices.SortStableFunc(asked, func(a, b *guest) int { return a.deadline.Compare(b.deadline) })
	switch {
	case len(same) > lobbyPerAddr:
		same[0].here, same[0].ended = false, true
	case count > lobbyMax:
		out := append(silent, asked...)[0]
		out.here, out.ended = false, true
	}
}

func compare(b *bench, all []*guest) error {
	count := 0
	for i, g := range all {
		if g.here && !g.deadline.After(time.Now()) {
			g.here, g.ended = false, true
		}
		if g.here {
			count++
		}
		if ended := g.p.State() == protocol.StateDisconnected; ended != g.ended {
			return fmt.Errorf("client %d: ended %v, want %v", i, ended, g.ended)
		}
	}
	if n := b.env.Lobby.Count(); n != count || len(b.env.Lobby.Sessions()) != count {
		return fmt.Errorf("%d in the lobby, want %d", n, count)
	}
	return nil
}

// TestEvictedGuestsAreForgotten: a crowd that keeps coming costs no more than the limit, and the last to come stay.
func TestEvictedGuestsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(session.LobbyConfig{Max: 100, PerAddr: 2}, session.Callbacks{})
		for i := range 1000 {
			b.open(fmt.Sprintf("10.0.%d.%d", i/256, i%256))
		}
		if n, evicted := b.env.Lobby.Count(), b.env.Stats.Evicted.Load(); n != 100 || evicted != 900 {
			t.Errorf("%d in the lobby, %d evicted", n, evicted)
		}
		for i, p := range b.all {
			if ended := p.State() == protocol.StateDisconnected; ended != (i < 900) {
				t.Errorf("client %d: ended %v", i, ended)
			}
		}
		pass(5 * time.Second)
		synctest.Wait()
		if n := b.env.Lobby.Count(); n != 0 || b.env.Stats.AuthTimeouts.Load() != 100 {
			t.Errorf("%d left", n)
		}
		b.close()
	})
}
