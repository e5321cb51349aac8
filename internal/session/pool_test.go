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

func pass(d time.Duration) { <-time.After(d) }

func (b *bench) member() *peer {
	p := b.open("10.0.0.1")
	p.say("authenticate", nil)
	for p.State() != protocol.StateAuthenticated { // it may wait for others' callbacks
		pass(time.Millisecond)
	}
	return p
}

// TestPoolGrows: callbacks that block do not keep others waiting for more than a few milliseconds, however many they are.
func TestPoolGrows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const clients = 500
		release := make(chan struct{})
		var at atomic.Int32
		b := newBench(session.LobbyConfig{}, session.Callbacks{
			Message: func(context.Context, *session.Session, protocol.Envelope) error {
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
			p.say("block", 1)
		}
		pass(50 * time.Millisecond)
		if n := at.Load(); n != clients {
			t.Errorf("%d of %d callbacks run", n, clients)
		}
		late := b.member()
		late.say("block", 1)
		pass(10 * time.Millisecond)
		if n := at.Load(); n != clients+1 {
			t.Error("the last one waits")
		}
	})
}

// TestPoolEnds: with nothing to do there is no goroutine and no timer, else the bubble's clock would run on.
func TestPoolEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var done atomic.Int32
		b := newBench(session.LobbyConfig{}, session.Callbacks{
			Message: func(context.Context, *session.Session, protocol.Envelope) error {
				pass(3 * time.Millisecond)
				done.Add(1)
				return nil
			},
		})
		for range 20 {
			b.member().say("work", 1)
		}
		pass(time.Second)
		if n := done.Load(); n != 20 {
			t.Fatalf("%d callbacks ran", n)
		}
		b.env.Pool.Wait() // no worker is left
		b.close()
	})
}

// TestPoolOrder: each session's messages in order and one at a time, while many are handled at once and take their time.
func TestPoolOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const clients, messages = 50, 200
		var mu sync.Mutex
		heard := make(map[*session.Session]int)
		busy := make(map[*session.Session]bool)
		b := newBench(session.LobbyConfig{}, session.Callbacks{
			Message: func(_ context.Context, s *session.Session, e protocol.Envelope) error {
				mu.Lock()
				n := heard[s]
				if busy[s] || string(e.Data) != fmt.Sprint(n) {
					t.Errorf("message %s, want %d; busy %v", e.Data, n, busy[s])
				}
				busy[s] = true
				mu.Unlock()
				if n%37 == 0 {
					pass(time.Duration(n%5) * time.Millisecond)
				}
				mu.Lock()
				heard[s], busy[s] = n+1, false
				mu.Unlock()
				return nil
			},
		})
		for range clients {
			b.member()
		}
		for n := range messages {
			for _, p := range b.all {
				p.say("m", n)
			}
		}
		pass(10 * time.Second)
		b.close()
		for _, p := range b.all {
			if n := heard[p.Session]; n != messages {
				t.Errorf("%d of %d messages handled", n, messages)
			}
		}
	})
}

// TestPoolIsFair: one session with much to do does not keep others waiting until all is done.
func TestPoolIsFair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Int32
		var waited int32
		b := newBench(session.LobbyConfig{}, session.Callbacks{
			Message: func(_ context.Context, s *session.Session, e protocol.Envelope) error {
				if e.Event == "little" {
					waited = busy.Load()
				} else {
					busy.Add(1)
					pass(50 * time.Microsecond)
				}
				return nil
			},
		})
		greedy, modest := b.member(), b.member()
		for range 2000 {
			greedy.say("much", 1)
		}
		modest.say("little", 1)
		pass(time.Second)
		b.close()
		if n := busy.Load(); n != 2000 || waited > 200 {
			t.Errorf("waited for %d of %d messages of another client", waited, n)
		}
	})
}

// TestQueueIsBounded: past Limits.ClientQueue the connection is paused, at half of it resumed.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		step := make(chan struct{})
		b := newBench(session.LobbyConfig{}, session.Callbacks{
			Message: func(context.Context, *session.Session, protocol.Envelope) error {
				<-step
				return nil
			},
		})
		b.env.Limits.ClientQueue = 4000
		p := b.member()
		sent := 0
		for ; !p.isPaused(); sent++ {
			p.say("m", sent)
			synctest.Wait()
		}
		if sent < 20 || sent > 60 {
			t.Errorf("paused after %d messages", sent)
		}
		if !p.Paused() {
			t.Error("the session does not know")
		}
		handled := 0
		for ; p.isPaused(); handled++ {
			step <- struct{}{}
			synctest.Wait()
		}
		if handled < sent/3 || handled > sent*2/3 {
			t.Errorf("resumed after %d of %d", handled, sent)
		}
		for p.say("last", 1); !p.isPaused(); sent++ {
			p.say("m", 1)
		}
		p.Close(4000, "enough") // a session that has ended is read on: the peer's close must be seen
		if p.isPaused() {
			t.Error("still paused after the end")
		}
		close(step)
		b.close()
	})
}
