package session_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
)

// TestReportedChangesAreFreed checks that a session whose changes have been reported is as small as
// one without such callbacks, and that without the callbacks no changes are kept.
func TestReportedChangesAreFreed(t *testing.T) {
	t.Parallel()
	for _, reports := range []bool{false, true} {
		t.Run(fmt.Sprint("reports ", reports), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				calls, n := session.Callbacks{}, 0
				gate := make(chan struct{})
				if reports {
					calls.Joined = func(context.Context, *session.Session, string) { <-gate; n++ }
					calls.Left = func(context.Context, *session.Session, string) { n++ }
				}
				b := newFixture(session.LobbyConfig{}, calls)
				b.env.DefaultRooms = []string{"a", "b"}
				p := b.open("10.0.0.1")
				p.authenticated()
				if p.HasTransient() != reports {
					t.Errorf("the session has transient state: %v", p.HasTransient())
				}
				close(gate)
				p.Leave("a")
				synctest.Wait()
				if want := map[bool]int{true: 3}[reports]; p.HasTransient() || n != want {
					t.Errorf("%d calls, want %d; the session has transient state: %v, want none", n, want, p.HasTransient())
				}
				b.close()
			})
		})
	}
}

// TestChangesAreBounded checks that no more changes wait than the rooms that the client was in
// and the rooms that it is in, however often it joins and leaves while a callback runs.
func TestChangesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate, calls := make(chan struct{}), []string(nil)
		note := func(what string) func(context.Context, *session.Session, string) {
			return func(_ context.Context, _ *session.Session, room string) { calls = append(calls, what+room) }
		}
		b := newFixture(session.LobbyConfig{}, session.Callbacks{
			Joined: note("+"), Left: note("-"),
			Message: func(context.Context, *session.Session, protocol.Envelope, *session.Request) error { <-gate; return nil },
		})
		p := b.open("10.0.0.1")
		p.authenticated()
		if err := p.Join(t.Context(), "a", "b"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		p.sendEvent("wait", nil)
		synctest.Wait() // the callback is running
		for i := range 1000 {
			p.Leave("a", "b")
			if err := p.Join(t.Context(), "a", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			p.Leave(fmt.Sprint(i))
		}
		close(gate)
		synctest.Wait()
		if got, want := fmt.Sprint(calls), "[+a +b -a -b +a]"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		b.close()
	})
}

// TestMessageTakenBeforeAuthentication checks that a message which a worker takes before the
// client is authenticated is rejected, even if the client is authenticated while the message is
// inflated. Otherwise it would be handled while the connected callback runs.
func TestMessageTakenBeforeAuthentication(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls []string
		decide, connect := make(chan struct{}), make(chan struct{})
		b := newFixture(session.LobbyConfig{}, session.Callbacks{
			Authenticate: func(context.Context, *session.Session, session.AuthRequest) (session.Identity, error) {
				<-decide
				return session.Identity{}, nil
			},
			Connected: func(context.Context, *session.Session) {
				calls = append(calls, "connected")
				<-connect
				calls = append(calls, "back")
			},
			Joined: func(_ context.Context, _ *session.Session, room string) { calls = append(calls, "joined "+room) },
			Message: func(_ context.Context, _ *session.Session, e protocol.Envelope, _ *session.Request) error {
				calls = append(calls, e.Event)
				return nil
			},
		})
		b.env.DefaultRooms = []string{"a"}
		p := b.openWith("10.0.0.1", true)
		free := b.env.HoldInflating()
		p.sendEvent("authenticate", nil)
		p.Data(compressed(deflated(`{"event":"early"}`)), 0) // a worker takes it, waits to inflate
		synctest.Wait()
		close(decide)
		synctest.Wait()
		p.sendEvent("later", nil)
		free()
		synctest.Wait()
		close(connect)
		synctest.Wait()
		if got, want := fmt.Sprint(calls), "[connected back joined a later]"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		b.close()
	})
}
