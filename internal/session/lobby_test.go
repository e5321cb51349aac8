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
	turn     int // the step at which it asked
	decide   chan error
	here     bool // in the lobby
	ended    bool
}

func playLobby(script []step) error {
	decisions := make(map[string]chan error)
	b := newBench(session.LobbyConfig{AuthTimeout: lobbyTimeout, MaxUnauthenticated: lobbyMax, MaxUnauthenticatedPerAddr: lobbyPerAddr}, session.Callbacks{
		Authenticate: func(ctx context.Context, s *session.Session, _ session.AuthRequest) (session.Identity, error) {
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
			g.asked, g.turn, g.deadline = true, i, time.Now().Add(3*lobbyTimeout)
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

// evict makes room for the newest: among those of its address, if they are too many, otherwise among all. The first of
// those that have not asked goes, or, when all others have, the first who did.
func evict(all []*guest, newest *guest) {
	var here, same []*guest
	for _, g := range all {
		if g.here {
			here = append(here, g)
			if g.network == newest.network {
				same = append(same, g)
			}
		}
	}
	first := func(among []*guest) *guest {
		var silent, asked []*guest
		for _, g := range among {
			if g.asked {
				asked = append(asked, g)
			} else if g != newest {
				silent = append(silent, g)
			}
		}
		slices.SortFunc(asked, func(a, b *guest) int { return a.turn - b.turn })
		return append(silent, asked...)[0]
	}
	var out *guest
	switch {
	case len(same) > lobbyPerAddr:
		out = first(same)
	case len(here) > lobbyMax:
		out = first(here)
	default:
		return
	}
	out.here, out.ended = false, true
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
		b := newBench(session.LobbyConfig{MaxUnauthenticated: 100, MaxUnauthenticatedPerAddr: 2}, session.Callbacks{})
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

// TestClosingGuestsAreBounded: a crowd that keeps its sockets open after it was closed is cut off, oldest first.
func TestClosingGuestsAreBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		cfg        session.LobbyConfig
		addresses  int
		open, here int // of 1000 sockets, at the end
	}{
		{"one address", session.LobbyConfig{MaxUnauthenticated: 500, MaxUnauthenticatedPerAddr: 8}, 1, 8 + 18, 8},
		{"all", session.LobbyConfig{MaxUnauthenticated: 40, MaxUnauthenticatedPerAddr: 8}, 250, 40 + 26, 40},
		{"no bound for addresses", session.LobbyConfig{MaxUnauthenticated: 40}, 1, 40 + 26, 40},
		{"no bound", session.LobbyConfig{}, 1, 1000, 1000},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(c.cfg, session.Callbacks{})
			defer b.close()
			for i := range 1000 {
				b.open(fmt.Sprintf("10.0.0.%d", i%c.addresses))
			}
			open, here := 0, 0
			for _, p := range b.all {
				if !p.isAborted() {
					open++
				}
				if p.State() != protocol.StateDisconnected {
					here++
				}
			}
			if open != c.open || here != c.here {
				t.Errorf("%d sockets, %d clients; want %d, %d", open, here, c.open, c.here)
			}
		})
	}
}

// TestMakeRoom: those that are closing go first, then one that is silent, and nobody who is being decided upon.
func TestMakeRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(session.LobbyConfig{MaxUnauthenticated: 100}, session.Callbacks{
			Authenticate: func(ctx context.Context, _ *session.Session, _ session.AuthRequest) (session.Identity, error) {
				<-ctx.Done()
				return session.Identity{}, ctx.Err()
			},
		})
		defer b.close()
		asking, old, young, ended := b.open("10.0.0.1"), b.open("10.0.0.1"), b.open("10.0.0.2"), b.open("10.0.0.3")
		asking.say("authenticate", nil)
		ended.Close(1000, "")
		synctest.Wait()
		want := func(step string, excess int, ok bool, aborted ...bool) {
			t.Helper()
			if got := b.env.Lobby.MakeRoom(excess); got != ok {
				t.Errorf("%s: %v", step, got)
			}
			for i, p := range []*peer{asking, old, young, ended} {
				if p.isAborted() != aborted[i] {
					t.Errorf("%s: client %d is cut off: %v", step, i, !aborted[i])
				}
			}
		}
		want("one is closing", 1, true, false, false, false, true)
		want("its socket is not gone yet", 1, true, false, false, false, true)
		want("the oldest is closed", 2, true, false, false, false, true)
		if old.State() != protocol.StateDisconnected || young.State() == protocol.StateDisconnected {
			t.Error("not the oldest")
		}
		ended.Closed(nil)
		want("and cut off, and the next one closed", 2, true, false, true, false, true)
		old.Closed(nil)
		want("and the next", 1, true, false, true, true, true)
		want("nobody is left", 2, false, false, true, true, true)
		if n := b.env.Stats.Evicted.Load(); n != 2 || asking.State() != protocol.StateAuthenticating {
			t.Errorf("%d evicted", n)
		}
		b.all = []*peer{asking, young}
	})
}
