package e2e_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/seal"
)

// bubble runs f with a fake clock, which advances only while every goroutine waits.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Parallel()
	synctest.Test(t, f)
}

// pass lets time pass.
func pass(d time.Duration) { <-time.After(d) }

// wantsAfter checks that exactly d has passed since start.
func wantsAfter(t *testing.T, start time.Time, d time.Duration) {
	t.Helper()
	if passed := time.Since(start); passed != d {
		t.Errorf("after %v, want %v", passed, d)
	}
}

// patient takes the next message, and waits for a day.
func (p *peer) patient() received {
	p.t.Helper()
	r, ok := p.in.take(24 * time.Hour)
	if !ok {
		p.t.Fatal("nothing arrived within a day")
	}
	return r
}

func TestAuthTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, config{})
		began := time.Now()
		p := r.peer()
		for range 4 { // messages do not extend the deadline
			pass(time.Second)
			p.say("hello", "1")
			p.wantsError("Not authenticated")
			p.text(`{"event":"heartbeat"}`)
			must(t, p.wire.send(opPing, nil))
		}
		if got := p.patient(); got.code != 4001 || got.reason != "Authentication timeout" {
			t.Fatalf("got %v", got)
		}
		wantsAfter(t, began, 5*time.Second)
		p.wantsEnd()
		synctest.Wait()
		if s := r.Stats(); s.AuthTimeouts != 1 || s.Connections != 0 || s.Unauthenticated != 0 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// TestAuthCallbackTimeout checks that the callback has three times the timeout, from `authenticate`
// on.
func TestAuthCallbackTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var cancelled time.Time
		entered, done := make(chan struct{}), make(chan struct{})
		r := startPiped(t, config{Authenticate: func(ctx context.Context, _ hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
			close(entered)
			<-ctx.Done()
			cancelled = time.Now()
			if !errors.Is(ctx.Err(), context.Canceled) {
				t.Errorf("context: %v", ctx.Err())
			}
			pass(time.Minute)
			close(done)
			return hearth.Identity[profile]{UserID: "u"}, nil // too late
		}})
		p := r.peer()
		pass(4 * time.Second)
		asked := time.Now()
		p.say("authenticate", "{}")
		<-entered
		pass(10 * time.Second)
		p.say("authenticate", "{}")
		p.wantsError("Already authenticated")
		if got := p.patient(); got.code != 4001 || got.reason != "Authentication timeout" {
			t.Fatalf("got %v", got)
		}
		wantsAfter(t, asked, 15*time.Second)
		<-done
		if d := cancelled.Sub(asked); d != 15*time.Second {
			t.Errorf("the context was cancelled after %v", d)
		}
		synctest.Wait()
		if n := r.Local().Count(hearth.ToUser("u")); n != 0 || r.Stats().Authenticated != 0 {
			t.Error("a closed client is still found")
		}
	})
}

func TestSlowAuthCallback(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, config{Authenticate: func(ctx context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
			pass(15*time.Second - 1)
			return accept(ctx, req)
		}, Timeouts: hearth.Timeouts{Heartbeat: time.Hour}})
		p := r.peer()
		pass(5*time.Second - 1)
		p.login("u")
		pass(time.Minute) // no deadline is left
		must(t, r.client(p).Send("hello", 1))
		p.wants(`{"event":"hello","data":1}`)
	})
}

// TestDeadlines checks the timer of the lobby with many clients in different states.
func TestDeadlines(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, config{Timeouts: hearth.Timeouts{Auth: 2 * time.Second}, Authenticate: func(ctx context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
			if req.Credentials.Do == "wait" {
				<-ctx.Done()
			}
			return accept(ctx, req)
		}})
		due := make(map[*peer]time.Time)
		for i := range 30 {
			p := r.peer()
			due[p] = time.Now().Add(2 * time.Second)
			pass(time.Duration(i%7) * 100 * time.Millisecond)
			switch i % 3 {
			case 1:
				p.say("authenticate", `{"do":"wait"}`)
				due[p] = time.Now().Add(6 * time.Second)
			case 2:
				p.login("u")
				delete(due, p)
			}
		}
		pass(20 * time.Second)
		for p, at := range due {
			if got := p.next(); got.code != 4001 || !got.at.Equal(at) {
				t.Errorf("got %v at %v, want close 4001 at %v", got, got.at, at)
			}
		}
		if n := r.Local().Count(hearth.ToUser("u")); n != 10 {
			t.Errorf("%d authenticated clients are left", n)
		}
		if s := r.Stats(); s.AuthTimeouts != 20 || s.Unauthenticated != 0 {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestHeartbeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, config{})
		began := time.Now()
		silent, beating := r.member("silent"), r.member("beating")
		guest := 0
		go func() { // ends after five minutes
			for range 5 {
				pass(time.Minute)
				beating.text(`{"event":"heartbeat"}`)
				guest++
			}
		}()
		if got := silent.patient(); got.code != 4002 || got.reason != "Heartbeat timeout" {
			t.Fatalf("got %v", got)
		}
		// 90 s is not longer than 90 s: the next check is at 120 s. Pings and pongs are no
		// messages.
		wantsAfter(t, began, 2*time.Minute)
		if silent.pings.Load() == 0 {
			t.Error("no ping was sent")
		}
		pass(4*time.Minute - time.Second)
		must(t, r.client(beating).Send("hello", 1))
		beating.wants(`{"event":"hello","data":1}`)
		if s := r.Stats(); s.HeartbeatTimeouts != 1 || s.IdleTimeouts != 0 || s.Clients != 1 {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestHeartbeatDisabled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, config{Timeouts: hearth.Timeouts{HeartbeatInterval: hearth.Disabled, Idle: hearth.Disabled}})
		p := r.member("u")
		p.mute.Store(true)
		pass(24 * time.Hour)
		must(t, r.client(p).Send("hello", 1))
		p.wants(`{"event":"hello","data":1}`)
		if p.pings.Load() != 0 {
			t.Error("a ping was sent")
		}
	})
}

func TestIdleTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		closed := make(chan int, 1)
		r := startPiped(t, config{
			Timeouts: hearth.Timeouts{HeartbeatInterval: hearth.Disabled, Idle: time.Minute},
			Disconnected: func(_ context.Context, c *client, code int, _ string) {
				if c.UserID() == "mute" {
					closed <- code
				}
			},
		})
		began := time.Now()
		mute, there := r.member("mute"), r.member("there")
		mute.mute.Store(true)
		mute.patient() // no close frame, since the client does not read
		wantsAfter(t, began, time.Minute)
		if code := <-closed; code != 1006 {
			t.Errorf("disconnected with %d", code)
		}
		if n := mute.pings.Load(); n != 2 {
			t.Errorf("%d pings before the end", n)
		}
		pass(time.Hour)
		if n := there.pings.Load(); n < 60 || n > 130 {
			t.Errorf("%d pings in an hour", n)
		}
		must(t, r.client(there).Send("hello", 1))
		there.wants(`{"event":"hello","data":1}`)
		if s := r.Stats(); s.IdleTimeouts != 1 || s.Connections != 1 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// TestPingInterval checks when a client that only answers pings gets them: after a silence of half
// of IdleTimeout, or up to a sixteenth of IdleTimeout earlier. Proxies that cut silent connections
// are configured with this figure.
func TestPingInterval(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const idle = 2 * time.Second
		r := startPiped(t, config{Timeouts: hearth.Timeouts{Idle: idle}})
		for _, phase := range []time.Duration{0, 3 * time.Millisecond, 124 * time.Millisecond, 777 * time.Millisecond} {
			pass(phase)
			p := r.member("u")
			lastReceived := time.Now() // when the server last received a frame of the client
			for n := range 10 {
				for int(p.pings.Load()) == n && time.Since(lastReceived) < idle {
					pass(time.Millisecond)
				}
				if d := time.Since(lastReceived); d < idle*7/16 || d > idle/2+time.Millisecond {
					t.Errorf("ping %d came after %v of silence, want half of %v", n, d, idle)
				}
				lastReceived = time.Now() // a pong
			}
		}
	})
}

// TestNoPingDuringTraffic checks that a client that sends messages gets no ping.
func TestNoPingDuringTraffic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, config{Timeouts: hearth.Timeouts{Idle: time.Minute}})
		p := r.member("u")
		for range 100 {
			pass(20 * time.Second)
			p.text(`{"event":"heartbeat"}`)
		}
		if n := p.pings.Load(); n != 0 {
			t.Errorf("%d pings were sent, want none", n)
		}
	})
}

// TestBlockedCallback checks that a client that the server does not read from, because its callback
// blocks, is not closed for its silence, neither meanwhile nor right after.
func TestBlockedCallback(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		r := startPiped(t, config{
			Limits: hearth.Limits{ClientQueue: 1024},
			Message: func(_ context.Context, c *client, m hearth.Message) error {
				<-release
				return nil
			},
		})
		p := r.member("u")
		go func() { // ends when everything is read
			for range 40 {
				p.say("work", `"`+repeat("x", 100)+`"`)
			}
			p.text(`{"event":"heartbeat"}`)
		}()
		pass(time.Hour)
		close(release)
		pass(80 * time.Second)
		must(t, r.client(p).Send("hello", 1))
		p.wants(`{"event":"hello","data":1}`)
		if s := r.Stats(); s.IdleTimeouts+s.HeartbeatTimeouts != 0 || s.MessagesIn != 42 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// TestCloseTimeout checks that a client that does not answer a close frame is cut.
func TestCloseTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		closed := make(chan time.Time, 1)
		r := startPiped(t, config{Disconnected: func(_ context.Context, _ *client, code int, reason string) {
			if code != 4567 || reason != "enough" {
				t.Errorf("disconnected with %d %q", code, reason)
			}
			closed <- time.Now()
		}})
		p := r.member("u")
		p.mute.Store(true)
		began := time.Now()
		must(t, disconnect(r, p.id, 4567, "enough"))
		p.wantsClose(4567, "enough")
		p.text(`{"event":"ignored"}`) // data after the close frame is ignored
		if at := <-closed; at != began {
			t.Errorf("the callback was called %v later", at.Sub(began))
		}
		p.wantsEnd()
		wantsAfter(t, began, 5*time.Second)
		synctest.Wait()
		if n := r.Stats().Connections; n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

func TestShutdown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var closed int
		finished := false
		r := startPiped(t, config{
			Message: func(context.Context, *client, hearth.Message) error {
				pass(3 * time.Second)
				finished = true
				return nil
			},
			Disconnected: func(_ context.Context, c *client, code int, reason string) {
				if code != 1001 || reason != "Server shutting down" {
					t.Errorf("disconnected with %d %q", code, reason)
				}
				if c.UserID() == "busy" {
					closed++
				}
			},
		})
		guest, idle, busy := r.peer(), r.member("idle"), r.member("busy")
		busy.say("work", "1")
		synctest.Wait()
		must(t, r.Local().Send(t.Context(), hearth.ToAll(), "last", 1))
		began := time.Now()
		must(t, r.Shutdown(t.Context()))
		wantsAfter(t, began, 3*time.Second)
		if !finished || closed != 1 {
			t.Errorf("Shutdown did not wait for callbacks: finished %v, gone %d", finished, closed)
		}
		for _, p := range []*peer{idle, busy} {
			p.wants(`{"event":"last","data":1}`)
			p.wantsClose(1001, "Server shutting down")
		}
		guest.wantsClose(1001, "Server shutting down")
		if s := r.Stats(); s.Connections != 0 || s.Clients != 0 || s.Unauthenticated != 0 || s.Rooms != 0 {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestShutdownOfSlowClients(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, config{})
		w := r.raw() // reads nothing more
		must(t, w.send(opText, []byte(`{"event":"authenticate"}`)))
		synctest.Wait()
		began := time.Now()
		must(t, r.Shutdown(t.Context()))
		wantsAfter(t, began, 5*time.Second)
		w.close()
	})
}

func TestShutdownWithStuckCallbacks(t *testing.T) {
	for name, obeys := range map[string]bool{"obeys its context": true, "obeys nothing": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				release, ended := make(chan struct{}), make(chan struct{})
				r := startPiped(t, config{Message: func(ctx context.Context, _ *client, _ hearth.Message) error {
					defer close(ended)
					if obeys {
						<-ctx.Done()
					} else {
						<-release
					}
					return nil
				}})
				p := r.member("u")
				p.say("work", "1")
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				began := time.Now()
				err := r.Shutdown(ctx)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("shutdown: %v", err)
				}
				if d := time.Since(began); d < 10*time.Second || d > 11*time.Second {
					t.Errorf("shutdown took %v", d)
				}
				close(release)
				<-ended
			})
		})
	}
}

// TestShutdownWithStuckTransformer checks that Shutdown waits for a transformer as for other
// callbacks, even if its client disconnected long before.
func TestShutdownWithStuckTransformer(t *testing.T) {
	for name, obeys := range map[string]bool{"obeys its context": true, "obeys nothing": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				release, ended := make(chan struct{}), make(chan struct{})
				r := startPiped(t, config{
					Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional},
					Handshake: func(context.Context, hearth.HandshakeRequest[profile]) (*seal.Keys, error) {
						return &seal.Keys{}, nil
					},
					Transform: func(ctx context.Context, _ *client, _ hearth.Message) (*hearth.Message, error) {
						defer close(ended)
						if obeys {
							<-ctx.Done()
						} else {
							<-release
						}
						return nil, nil
					},
				})
				p := r.member("u")
				must(t, r.Local().Send(t.Context(), hearth.ToUser("u"), "work", 1))
				synctest.Wait()
				p.hangUp()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				began := time.Now()
				err := r.Shutdown(ctx)
				if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "still running") == obeys {
					t.Errorf("shutdown: %v", err)
				}
				if d := time.Since(began); d < 10*time.Second || d > 11*time.Second {
					t.Errorf("shutdown took %v", d)
				}
				close(release)
				<-ended
			})
		})
	}
}
