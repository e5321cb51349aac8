package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// lifetimes is an authenticate callback whose clients choose the result: {"user", "lifetime" in
// milliseconds, "fail", "wait" in milliseconds}.
func lifetimes(ctx context.Context, _ *session.Session, r session.AuthRequest) (session.Identity, error) {
	var data struct {
		User           string
		Lifetime, Wait int
		Fail           string
	}
	if err := json.Unmarshal(r.Data, &data); err != nil {
		return session.Identity{}, err
	}
	if data.Wait > 0 {
		select {
		case <-time.After(time.Duration(data.Wait) * time.Millisecond):
		case <-ctx.Done():
			return session.Identity{}, ctx.Err()
		}
	}
	switch data.Fail {
	case "rejected":
		return session.Identity{}, session.ErrRejected
	case "error":
		return session.Identity{}, errors.New("no database")
	case "panic":
		panic("in authenticate")
	}
	id := session.Identity{User: data.User}
	if data.Lifetime != 0 {
		id.Expires = time.Now().Add(time.Duration(data.Lifetime) * time.Millisecond)
	}
	return id, nil
}

// A timed is a message or a close, at a time after the start of a test.
type timed struct {
	at   time.Duration
	what string
}

// watch collects what is sent to the client until the end of d, with the time. Times in messages
// become durations.
func (p *peer) watch(start time.Time, d time.Duration) (all []timed) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		synctest.Wait()
		p.lane.Tick()
		p.mu.Lock()
		out := p.out
		p.out = nil
		p.mu.Unlock()
		var texts []string
		e := ws.NewEndpoint(ws.Client, 1<<30, false)
		if err := e.Feed(out, collector{&texts}); err != nil {
			texts = append(texts, err.Error())
		}
		for _, text := range texts {
			all = append(all, timed{time.Since(start), text})
		}
		if i := strings.Index(string(out), "\x0f\xa5Credentials expired"); i >= 0 {
			all = append(all, timed{time.Since(start), "4005"})
		}
	}
	return all
}

func isoAt(start time.Time, d time.Duration) string {
	return start.Add(d).UTC().Format("2006-01-02T15:04:05.000Z")
}

// TestExpiry checks when clients are told that their credentials expire, and when they are closed.
func TestExpiry(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lifetime time.Duration
		notice   time.Duration // Timeouts.ExpiryNotice
		told     time.Duration // 0: never
		with     bool          // the extension
	}{
		"long":              {lifetime: 10 * time.Minute, notice: time.Minute, told: 9 * time.Minute, with: true},
		"short":             {lifetime: 20 * time.Second, notice: time.Minute, told: 10 * time.Second, with: true},
		"no notice":         {lifetime: 20 * time.Second, with: true},
		"without extension": {lifetime: 10 * time.Minute, notice: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newFixture(session.LobbyConfig{}, session.Callbacks{Authenticate: lifetimes})
				defer b.close()
				b.env.Timeouts.ExpiryNotice = tt.notice
				p, start := b.open("10.0.0.1"), time.Now()
				hearth := ""
				if tt.with {
					hearth = `,"hearth":{"version":1}`
				}
				p.say(fmt.Sprintf(`{"event":"authenticate","data":{"lifetime":%d}%s}`, tt.lifetime.Milliseconds(), hearth))
				synctest.Wait()
				if got := session.ExpiresAt(p.Session); !got.Equal(start.Add(tt.lifetime)) {
					t.Errorf("expires at %v", got)
				}
				got := p.messages()
				if len(got) != 1 || strings.Contains(got[0], `"expires":"`+isoAt(start, tt.lifetime)+`"`) != tt.with {
					t.Errorf("got %q", got)
				}
				var want []timed
				if tt.told > 0 {
					want = append(want, timed{tt.told, `{"event":"hearth:expiring","data":{"expires":"` + isoAt(start, tt.lifetime) + `"}}`})
				}
				want = append(want, timed{tt.lifetime, "4005"})
				if got := p.watch(start, tt.lifetime+time.Minute); !slices.Equal(got, want) {
					t.Errorf("got %v\nwant %v", got, want)
				}
				if n := b.env.Stats.Expired.Load(); n != 1 {
					t.Errorf("%d clients expired", n)
				}
				if got := session.ExpiresAt(p.Session); !got.Equal(start.Add(tt.lifetime)) {
					t.Errorf("after the end: expires at %v", got)
				}
			})
		})
	}
}

// TestExpiredCredentials checks that a client whose credentials have expired is rejected.
func TestExpiredCredentials(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(session.LobbyConfig{}, session.Callbacks{Authenticate: lifetimes})
		defer b.close()
		p := b.open("10.0.0.1")
		p.say(`{"event":"authenticate","data":{"lifetime":-1}}`)
		synctest.Wait()
		if p.State() != protocol.StateDisconnected || b.env.Stats.AuthRejected.Load() != 1 {
			t.Errorf("the client is %v", p.State())
		}
	})
}

// TestExpiryOrder checks that many clients are closed, each at its time, by one timer, and that
// clients that have disconnected, and those that do not expire, are left alone.
func TestExpiryOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(session.LobbyConfig{}, session.Callbacks{Authenticate: lifetimes})
		defer b.close()
		const clients = 1000
		var peers []*peer
		for i := range clients {
			p := b.open("10.0.0.1")
			// Half of them expire at the same time, in an order that is not that of their connects.
			lifetime := 5000 + i*7919%1000
			if i%2 == 0 {
				lifetime = 5000
			}
			if i%10 == 9 {
				lifetime = 0
			}
			p.say(fmt.Sprintf(`{"event":"authenticate","data":{"lifetime":%d}}`, lifetime))
			peers = append(peers, p)
		}
		synctest.Wait()
		for i := range 100 {
			peers[i*10+1].Close(4000, "")
		}
		time.Sleep(4999 * time.Millisecond)
		synctest.Wait()
		if n := b.env.Stats.Expired.Load(); n != 0 {
			t.Errorf("%d expired early", n)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if n := b.env.Stats.Expired.Load(); n < clients/2 || n > clients/2+10 {
			t.Errorf("%d expired at once", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := b.env.Stats.Expired.Load(); n != clients*8/10 {
			t.Errorf("%d expired in all", n)
		}
		for i, p := range peers {
			if alive := p.State() == protocol.StateAuthenticated; alive != (i%10 == 9) {
				t.Fatalf("client %d is %v", i, p.State())
			}
			if i%10 == 9 && p.HasTransient() {
				t.Fatal("a client without expiry has transient state")
			}
		}
	})
}

// TestReauthentication checks the answers to new credentials, and which credentials the client has
// then.
func TestReauthentication(t *testing.T) {
	t.Parallel()
	const failed = `{"event":"error","data":{"message":"Authentication failed"},"id":9}`
	for name, tt := range map[string]struct {
		data string
		want string
		kept bool // the old credentials
	}{
		"accepted":       {data: `{"user":"u","lifetime":1800000}`, want: `{"event":"authenticate","data":{"expires":"EXPIRES"},"id":9}`},
		"for ever":       {data: `{"user":"u"}`, want: `{"event":"authenticate","id":9}`},
		"rejected":       {data: `{"fail":"rejected"}`, want: failed, kept: true},
		"another user":   {data: `{"user":"v"}`, want: failed, kept: true},
		"anonymous":      {data: `{}`, want: failed, kept: true},
		"expired":        {data: `{"user":"u","lifetime":-1}`, want: failed, kept: true},
		"error":          {data: `{"fail":"error"}`, want: `{"event":"error","data":{"message":"Authentication error"},"id":9}`, kept: true},
		"panic":          {data: `{"fail":"panic"}`, want: `{"event":"error","data":{"message":"Authentication error"},"id":9}`, kept: true},
		"takes too long": {data: `{"user":"u","wait":60000}`, want: `{"event":"error","data":{"message":"Authentication error"},"id":9}`, kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var requests []session.AuthRequest
				replaced := 0
				b := newFixture(session.LobbyConfig{}, session.Callbacks{
					Authenticate: func(ctx context.Context, s *session.Session, r session.AuthRequest) (session.Identity, error) {
						requests = append(requests, r)
						id, err := lifetimes(ctx, s, r)
						id.Replace = func() { replaced++ }
						return id, err
					},
				})
				defer b.close()
				p, start := b.open("10.0.0.1"), time.Now()
				p.say(`{"event":"authenticate","data":{"user":"u","lifetime":600000},"hearth":{"version":1}}`)
				p.watch(start, time.Minute)
				sent := time.Now()
				p.say(`{"event":"authenticate","data":` + tt.data + `,"id":9}`)
				got := p.watch(start, 30*time.Second)
				want := strings.Replace(tt.want, "EXPIRES", isoAt(sent, 30*time.Minute), 1)
				if len(got) != 1 || got[0].what != want {
					t.Errorf("got %v, want %s", got, want)
				}
				if p.State() != protocol.StateAuthenticated {
					t.Fatalf("the client is %v", p.State())
				}
				expires := start.Add(10 * time.Minute)
				switch {
				case tt.kept:
				case strings.Contains(tt.want, "EXPIRES"):
					expires = sent.Add(30 * time.Minute)
				default:
					expires = time.Time{}
				}
				if got := session.ExpiresAt(p.Session); !got.Equal(expires) {
					t.Errorf("expires at %v, want %v", got, expires)
				}
				if (replaced == 0) != tt.kept || len(requests) != 2 || requests[0].Again || !requests[1].Again || requests[1].User != "u" {
					t.Errorf("replaced %d times; requests %+v", replaced, requests)
				}
				got = p.watch(start, 2*time.Hour)
				switch {
				case expires.IsZero():
					if len(got) != 0 {
						t.Errorf("a client without expiry got %v", got)
					}
				case len(got) != 2 || got[0].at != expires.Sub(start)-time.Minute || got[1] != timed{expires.Sub(start), "4005"}:
					t.Errorf("then it got %v", got)
				}
			})
		})
	}
}

// TestReauthenticationIsBounded checks that a client cannot make the server call the callback twice
// at a time, or often.
func TestReauthenticationIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		b := newFixture(session.LobbyConfig{}, session.Callbacks{
			Authenticate: func(ctx context.Context, s *session.Session, r session.AuthRequest) (session.Identity, error) {
				calls.Add(1)
				return lifetimes(ctx, s, r)
			},
		})
		defer b.close()
		p := b.extended("")
		calls.Store(0)
		ask := func(wait int, want ...string) {
			t.Helper()
			p.say(fmt.Sprintf(`{"event":"authenticate","data":{"wait":%d},"id":1}`, wait))
			synctest.Wait()
			if got := p.messages(); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		const done, busy = `{"event":"authenticate","id":1}`, `{"event":"error","data":{"message":"Try again later","code":"busy"},"id":1}`
		ask(10_000)
		time.Sleep(9 * time.Second)
		ask(0, busy) // the first call runs
		time.Sleep(2 * time.Second)
		ask(0, done, done)
		ask(0, busy)
		time.Sleep(4 * time.Second)
		ask(0, busy)
		time.Sleep(time.Second)
		ask(0, done)
		if n := calls.Load(); n != 3 {
			t.Errorf("%d calls", n)
		}
	})
}

// TestReauthenticationEnds checks that the callback for new credentials is cancelled when the
// client disconnects, and when its old credentials expire.
func TestReauthenticationEnds(t *testing.T) {
	t.Parallel()
	for _, expires := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ended := make(chan error, 2)
			b := newFixture(session.LobbyConfig{}, session.Callbacks{
				Authenticate: func(ctx context.Context, s *session.Session, r session.AuthRequest) (session.Identity, error) {
					id, err := lifetimes(ctx, s, r)
					ended <- err
					return id, err
				},
			})
			defer b.close()
			p := b.open("10.0.0.1")
			p.say(`{"event":"authenticate","data":{"lifetime":3000},"hearth":{"version":1}}`)
			synctest.Wait()
			<-ended
			p.say(`{"event":"authenticate","data":{"wait":14000}}`)
			synctest.Wait()
			start := time.Now()
			if !expires {
				p.Closed(nil)
				b.all = nil
			}
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("the callback ended with %v", err)
			}
			if waited := time.Since(start); (waited > 0) != expires || waited > 3*time.Second {
				t.Errorf("it ended after %v", waited)
			}
			if n := b.env.Stats.CallbackErrors.Load(); n != 0 {
				t.Errorf("%d callback errors", n)
			}
		})
	}
}
