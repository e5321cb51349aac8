package e2e_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
)

// extended authenticates as user and requests the extension with these features.
func (p *peer) extended(user, features string) string {
	p.t.Helper()
	p.text(`{"event":"authenticate","data":{"as":"` + user + `","name":"` + user + `"},"hearth":{"version":1,"features":[` + features + `]}}`)
	return p.welcome()
}

// TestDrain checks that Shutdown closes clients at an even rate, with a code that tells those with
// the extension to reconnect, and serves the others meanwhile.
func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const clients, period = 400, 4 * time.Second
		r := startPiped(t, config{Timeouts: hearth.Timeouts{Drain: period}, Message: func(_ context.Context, c *client, m hearth.Message) error {
			return c.Send(m.Event, m.Data)
		}})
		unauthenticated := r.peer()
		peers := make([]*peer, clients)
		for i := range peers {
			peers[i] = r.peer()
			if i%2 == 0 {
				peers[i].extended("new", "")
			} else {
				peers[i].login("old")
			}
		}
		begun := time.Now()
		ended := make(chan error, 1)
		go func() { ended <- r.Shutdown(context.Background()) }()

		synctest.Wait()
		unauthenticated.wantsClose(1001, "Server shutting down")
		if h := r.Health(); h.State != broker.StateIdle {
			t.Errorf("health is %v at the beginning", h.State)
		}
		conn, err := r.dial()
		must(t, err)
		defer conn.Close()
		if _, err := upgrade(conn); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("a handshake: %v", err)
		}
		for _, part := range []float64{0.25, 0.5, 0.75} {
			pass(time.Until(begun.Add(time.Duration(part * float64(period)))))
			synctest.Wait()
			if n, want := r.Local().Count(hearth.ToAll()), int((1-part)*clients); n < want-4 || n > want+4 {
				t.Errorf("%d clients left after %v of the time, want %d", n, part, want)
			}
			left := slices.IndexFunc(peers, func(p *peer) bool {
				_, ok := r.Local().Client(p.id)
				return ok
			})
			if left < 0 {
				t.Fatal("no client is left")
			}
			peers[left].say("echo", "1")
			peers[left].wants(`{"event":"echo","data":1}`)
			if n, err := r.Count(t.Context(), hearth.ToUser("old")); err != nil || n == 0 {
				t.Errorf("count: %d, %v", n, err)
			}
		}
		must(t, <-ended)
		if took := time.Since(begun); took < period*9/10 || took > period+time.Second {
			t.Errorf("Shutdown took %v", took)
		}
		for i, p := range peers {
			if i%2 == 0 {
				p.wantsClose(1012, "Service restart")
			} else {
				p.wantsClose(1001, "Server shutting down")
			}
		}
		if _, err := r.Count(t.Context(), hearth.ToAll()); !errors.Is(err, hearth.ErrNotRunning) {
			t.Errorf("count after Shutdown: %v", err)
		}
	})
}

// TestDrainFewClients checks that a drain ends early: few clients are closed at the least rate, and
// it does not go on without clients.
func TestDrainFewClients(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, config{Timeouts: hearth.Timeouts{Drain: time.Hour}})
		for range 10 {
			r.member("u")
		}
		begun := time.Now()
		must(t, r.Shutdown(context.Background()))
		if took := time.Since(begun); took > 200*time.Millisecond {
			t.Errorf("Shutdown took %v for 10 clients", took)
		}
	})
}

// TestDrainHandlesMessages checks that messages which arrived before the close are answered.
func TestDrainHandlesMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		entered, release := make(chan struct{}), make(chan struct{})
		r := startPiped(t, config{Timeouts: hearth.Timeouts{Drain: time.Hour}, Message: func(_ context.Context, c *client, m hearth.Message) error {
			if m.Event == "wait" {
				close(entered)
				<-release
			}
			return c.Send(m.Event, m.Data)
		}})
		p := r.peer()
		p.extended("u", "")
		p.say("wait", "1")
		p.say("next", "2")
		<-entered
		ended := make(chan error, 1)
		go func() { ended <- r.Shutdown(context.Background()) }()
		pass(time.Minute)
		close(release)
		p.wants(`{"event":"wait","data":1}`)
		p.wants(`{"event":"next","data":2}`)
		p.wantsClose(1012, "Service restart")
		must(t, <-ended)
	})
}

// TestDrainContext checks that the context of Shutdown bounds a drain.
func TestDrainContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, config{Timeouts: hearth.Timeouts{Drain: time.Hour}})
		peers := make([]*peer, 100)
		for i := range peers {
			peers[i] = r.peer()
			peers[i].extended("u", "")
		}
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		begun := time.Now()
		_ = r.Shutdown(ctx) // an error if a connection was cut
		if took := time.Since(begun); took > 400*time.Millisecond {
			t.Errorf("Shutdown took %v", took)
		}
		for _, p := range peers {
			p.wantsClose(1012, "Service restart")
		}
	})
}
