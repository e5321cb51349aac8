package session_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
)

func sleep(d time.Duration) { <-time.After(d) }

// member opens a session and authenticates it.
func (b *fixture) member() *peer {
	p := b.open("10.0.0.1")
	p.sendEvent("authenticate", nil)
	for p.State() != protocol.StateAuthenticated { // the callbacks of other clients may delay it
		sleep(time.Millisecond)
	}
	return p
}

// TestPoolGrows checks that callbacks which block, however many, delay others by a few
// milliseconds at most.
func TestPoolGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const clients = 500
		release := make(chan struct{})
		var at atomic.Int32
		b := newFixture(session.LobbyConfig{}, session.Callbacks{
			Message: func(context.Context, *session.Session, protocol.Envelope, *session.Request) error {
				at.Add(1)
				<-release
				return nil
			},
		})
		defer b.close()
		defer close(release)
		for range clients {
			b.member()
		}
		for _, p := range b.all {
			p.sendEvent("block", 1)
		}
		sleep(50 * time.Millisecond)
		if n := at.Load(); n != clients {
			t.Errorf("%d of %d callbacks run", n, clients)
		}
		late := b.member()
		late.sendEvent("block", 1)
		sleep(10 * time.Millisecond)
		if n := at.Load(); n != clients+1 {
			t.Error("the callback of the last client waits")
		}
	})
}

// TestPoolEnds checks that there is no goroutine and no timer without work; otherwise the clock
// of the bubble would go on.
func TestPoolEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var done atomic.Int32
		b := newFixture(session.LobbyConfig{}, session.Callbacks{
			Message: func(context.Context, *session.Session, protocol.Envelope, *session.Request) error {
				sleep(3 * time.Millisecond)
				done.Add(1)
				return nil
			},
		})
		for range 20 {
			b.member().sendEvent("work", 1)
		}
		sleep(time.Second)
		if n := done.Load(); n != 20 {
			t.Fatalf("%d callbacks ran", n)
		}
		b.env.Pool.Wait() // no worker is left
		b.close()
	})
}

// TestPoolOrder checks that the messages of a session are handled in order and one at a time, while
// callbacks of many sessions run and take time.
func TestPoolOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const clients, messages = 50, 200
		var mu sync.Mutex
		handled := make(map[*session.Session]int)
		busy := make(map[*session.Session]bool)
		b := newFixture(session.LobbyConfig{}, session.Callbacks{
			Message: func(_ context.Context, s *session.Session, e protocol.Envelope, _ *session.Request) error {
				mu.Lock()
				n := handled[s]
				if busy[s] || string(e.Data) != fmt.Sprint(n) {
					t.Errorf("message %s, want %d; busy %v", e.Data, n, busy[s])
				}
				busy[s] = true
				mu.Unlock()
				if n%37 == 0 {
					sleep(time.Duration(n%5) * time.Millisecond)
				}
				mu.Lock()
				handled[s], busy[s] = n+1, false
				mu.Unlock()
				return nil
			},
		})
		for range clients {
			b.member()
		}
		for n := range messages {
			for _, p := range b.all {
				p.sendEvent("m", n)
			}
		}
		sleep(10 * time.Second)
		b.close()
		for _, p := range b.all {
			if n := handled[p.Session]; n != messages {
				t.Errorf("%d of %d messages handled", n, messages)
			}
		}
	})
}

// TestPoolIsFair checks that a session with many messages does not delay others until it has
// handled all of them.
func TestPoolIsFair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Int32
		var waited int32
		b := newFixture(session.LobbyConfig{}, session.Callbacks{
			Message: func(_ context.Context, s *session.Session, e protocol.Envelope, _ *session.Request) error {
				if e.Event == "little" {
					waited = busy.Load()
				} else {
					busy.Add(1)
					sleep(50 * time.Microsecond)
				}
				return nil
			},
		})
		greedy, modest := b.member(), b.member()
		for range 2000 {
			greedy.sendEvent("much", 1)
		}
		modest.sendEvent("little", 1)
		sleep(time.Second)
		b.close()
		if n := busy.Load(); n != 2000 || waited > 200 {
			t.Errorf("the message waited for %d of %d messages of another client", waited, n)
		}
	})
}

// TestInboxBounded checks that the connection is paused above Limits.ClientQueue and resumed at
// half of it.
func TestInboxBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		step := make(chan struct{})
		b := newFixture(session.LobbyConfig{}, session.Callbacks{
			Message: func(context.Context, *session.Session, protocol.Envelope, *session.Request) error {
				<-step
				return nil
			},
		})
		b.env.Limits.ClientQueue = 4000
		p := b.member()
		sent := 0
		for ; !p.isPaused(); sent++ {
			p.sendEvent("m", sent)
			synctest.Wait()
		}
		if sent < 20 || sent > 60 {
			t.Errorf("paused after %d messages", sent)
		}
		if !p.Paused() {
			t.Error("the session is not paused")
		}
		handled := 0
		for ; p.isPaused(); handled++ {
			step <- struct{}{}
			synctest.Wait()
		}
		if handled < sent/3 || handled > sent*2/3 {
			t.Errorf("resumed after %d of %d", handled, sent)
		}
		for p.sendEvent("last", 1); !p.isPaused(); sent++ {
			p.sendEvent("m", 1)
		}
		p.Close(4000, "enough") // the server must read the peer's close
		if p.isPaused() {
			t.Error("still paused after the end")
		}
		close(step)
		b.close()
	})
}
