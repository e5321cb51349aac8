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

// TestLobby makes clients connect, authenticate and close at random. It compares which clients are
// closed, and when, with a simple model.
func TestLobby(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var script []step
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			script = append(script, step{
				action: rapid.SampledFrom([]string{"connect", "connect", "connect", "authenticate", "accept", "reject", "close", "wait"}).Draw(rt, "action"),
				client: rapid.IntRange(0, 20).Draw(rt, "client"),
				addr:   rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"}).Draw(rt, "addr"),
				time:   time.Duration(rapid.IntRange(0, 12).Draw(rt, "time")) * 100 * time.Millisecond,
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
	action string
	client int
	addr   string
	time   time.Duration
}

// A modelClient is a client in the model.
type modelClient struct {
	p               *peer
	network         string
	deadline        time.Time
	authenticating  bool
	authenticatedAt int // the step of its authenticate
	decide          chan error
	inLobby         bool
	ended           bool
}

func playLobby(script []step) error {
	decisions := make(map[string]chan error)
	b := newFixture(session.LobbyConfig{AuthTimeout: lobbyTimeout, MaxUnauthenticated: lobbyMax, MaxUnauthenticatedPerAddr: lobbyPerAddr}, session.Callbacks{
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
	var all []*modelClient
	for i, st := range script {
		c := new(modelClient)
		if len(all) > 0 {
			c = all[st.client%len(all)]
		}
		switch {
		case st.action == "connect":
			c = &modelClient{network: st.addr, deadline: time.Now().Add(lobbyTimeout), inLobby: true, decide: make(chan error, 1)}
			if st.addr == "2001:db8::2" {
				c.network = "2001:db8::1" // the same /64
			}
			decisions[idOf(len(all)+1).String()] = c.decide
			all = append(all, c)
			modelEvict(all, c)
			c.p = b.open(st.addr)
		case st.action == "wait":
			sleep(st.time)
		case !c.inLobby:
			continue
		case st.action == "authenticate" && !c.authenticating:
			c.authenticating, c.authenticatedAt, c.deadline = true, i, time.Now().Add(3*lobbyTimeout)
			c.p.sendEvent("authenticate", nil)
		case st.action == "accept" && c.authenticating:
			c.inLobby = false
			c.decide <- nil
		case st.action == "reject" && c.authenticating:
			c.inLobby, c.ended = false, true
			c.decide <- errors.New("no")
		case st.action == "close":
			c.inLobby, c.ended = false, true
			c.p.Close(1000, "")
		}
		synctest.Wait()
		if err := compare(b, all); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	sleep(5 * lobbyTimeout)
	synctest.Wait()
	if n := b.env.Lobby.Count(); n != 0 {
		return fmt.Errorf("%d clients are left after all deadlines", n)
	}
	return nil
}

// modelEvict makes room for newest: among the clients of its address if there are too many of
// them, otherwise among all. The oldest client that has not sent authenticate is closed, or else
// the client that sent it first.
func modelEvict(all []*modelClient, newest *modelClient) {
	var inLobby, same []*modelClient
	for _, c := range all {
		if c.inLobby {
			inLobby = append(inLobby, c)
			if c.network == newest.network {
				same = append(same, c)
			}
		}
	}
	oldest := func(among []*modelClient) *modelClient {
		var waiting, authenticating []*modelClient
		for _, c := range among {
			if c.authenticating {
				authenticating = append(authenticating, c)
			} else if c != newest {
				waiting = append(waiting, c)
			}
		}
		slices.SortFunc(authenticating, func(a, b *modelClient) int { return a.authenticatedAt - b.authenticatedAt })
		return append(waiting, authenticating...)[0]
	}
	var out *modelClient
	switch {
	case len(same) > lobbyPerAddr:
		out = oldest(same)
	case len(inLobby) > lobbyMax:
		out = oldest(inLobby)
	default:
		return
	}
	out.inLobby, out.ended = false, true
}

func compare(b *fixture, all []*modelClient) error {
	count := 0
	for i, c := range all {
		if c.inLobby && !c.deadline.After(time.Now()) {
			c.inLobby, c.ended = false, true
		}
		if c.inLobby {
			count++
		}
		if ended := c.p.State() == protocol.StateDisconnected; ended != c.ended {
			return fmt.Errorf("client %d: ended %v, want %v", i, ended, c.ended)
		}
	}
	if n := b.env.Lobby.Count(); n != count || len(b.env.Lobby.Sessions()) != count {
		return fmt.Errorf("%d clients in the lobby, want %d", n, count)
	}
	return nil
}

// TestEvict checks that the lobby never has more clients than the limit, and that the newest stay.
func TestEvict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(session.LobbyConfig{MaxUnauthenticated: 100, MaxUnauthenticatedPerAddr: 2}, session.Callbacks{})
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
		sleep(5 * time.Second)
		synctest.Wait()
		if n := b.env.Lobby.Count(); n != 0 || b.env.Stats.AuthTimeouts.Load() != 100 {
			t.Errorf("%d clients left, %d timeouts, want 100", n, b.env.Stats.AuthTimeouts.Load())
		}
		b.close()
	})
}

// TestClosingClientsBounded checks that the lobby cuts the connections of closed clients that keep
// their sockets open, oldest first, if there are too many.
func TestClosingClientsBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		cfg           session.LobbyConfig
		addresses     int
		open, inLobby int // of 1000 sockets, at the end
	}{
		{"one address", session.LobbyConfig{MaxUnauthenticated: 500, MaxUnauthenticatedPerAddr: 8}, 1, 8 + 18, 8},
		{"all", session.LobbyConfig{MaxUnauthenticated: 40, MaxUnauthenticatedPerAddr: 8}, 250, 40 + 26, 40},
		{"no bound for addresses", session.LobbyConfig{MaxUnauthenticated: 40}, 1, 40 + 26, 40},
		{"no bound", session.LobbyConfig{}, 1, 1000, 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(tt.cfg, session.Callbacks{})
			defer b.close()
			for i := range 1000 {
				b.open(fmt.Sprintf("10.0.0.%d", i%tt.addresses))
			}
			open, inLobby := 0, 0
			for _, p := range b.all {
				if !p.isAborted() {
					open++
				}
				if p.State() != protocol.StateDisconnected {
					inLobby++
				}
			}
			if open != tt.open || inLobby != tt.inLobby {
				t.Errorf("%d sockets, %d clients; want %d, %d", open, inLobby, tt.open, tt.inLobby)
			}
		})
	}
}

// TestMakeRoom checks that MakeRoom cuts clients that are closing first, then closes those that
// have not sent authenticate, and none that is being authenticated.
func TestMakeRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(session.LobbyConfig{MaxUnauthenticated: 100}, session.Callbacks{
			Authenticate: func(ctx context.Context, _ *session.Session, _ session.AuthRequest) (session.Identity, error) {
				<-ctx.Done()
				return session.Identity{}, ctx.Err()
			},
		})
		defer b.close()
		asking, old, young, ended := b.open("10.0.0.1"), b.open("10.0.0.1"), b.open("10.0.0.2"), b.open("10.0.0.3")
		asking.sendEvent("authenticate", nil)
		ended.Close(1000, "")
		synctest.Wait()
		want := func(step string, excess int, ok bool, aborted ...bool) {
			t.Helper()
			if got := b.env.Lobby.MakeRoom(excess); got != ok {
				t.Errorf("%s: %v", step, got)
			}
			for i, p := range []*peer{asking, old, young, ended} {
				if p.isAborted() != aborted[i] {
					t.Errorf("%s: client %d is cut: %v", step, i, !aborted[i])
				}
			}
		}
		want("one is closing", 1, true, false, false, false, true)
		want("its socket is still open", 1, true, false, false, false, true)
		want("the oldest is closed", 2, true, false, false, false, true)
		if old.State() != protocol.StateDisconnected || young.State() == protocol.StateDisconnected {
			t.Error("the wrong client was closed")
		}
		ended.Closed(nil)
		want("it is cut, and the next one is closed", 2, true, false, true, false, true)
		old.Closed(nil)
		want("the next one is cut", 1, true, false, true, true, true)
		want("no client is left", 2, false, false, true, true, true)
		if n := b.env.Stats.Evicted.Load(); n != 2 || asking.State() != protocol.StateAuthenticating {
			t.Errorf("%d evicted", n)
		}
		b.all = []*peer{asking, young}
	})
}
