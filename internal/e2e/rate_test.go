package e2e_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth"
)

// TestMessageRate checks that a client may send messages at its rate, with a burst of ten seconds.
// One more message closes the client, after the answers to the earlier ones.
func TestMessageRate(t *testing.T) {
	for name, excess := range map[string]func(p *peer){
		"message":   func(p *peer) { p.say("m", "1") },
		"heartbeat": func(p *peer) { p.text(`{"event":"heartbeat"}`) },
		"ping":      func(p *peer) { must(p.t, p.wire.send(opPing, nil)) },
		"pong":      func(p *peer) { must(p.t, p.wire.send(opPong, nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := startPiped(t, config{
					Limits: hearth.Limits{MessageRate: 10}, Timeouts: hearth.Timeouts{HeartbeatInterval: hearth.Disabled, Idle: hearth.Disabled},
					Message: func(_ context.Context, c *client, m hearth.Message) error { return c.Send("echo", m.ID) },
				})
				other, p := r.member("other"), r.member("u")
				pass(time.Minute) // at most ten seconds' worth is saved
				// with 2.5 s, 1 s and 10 s to save up in between
				for _, n := range []int{100, 25, 10} {
					for i := range n {
						p.text(fmt.Sprintf(`{"event":"m","id":%d}`, i))
					}
					for i := range n {
						p.wants(fmt.Sprintf(`{"event":"echo","data":%d}`, i))
					}
					pass(max(time.Second, time.Duration(n-75)*100*time.Millisecond))
				}
				pass(10 * time.Second)
				for range 100 {
					p.text(`{"event":"m","id":1}`)
				}
				excess(p)
				for range 100 {
					p.wants(`{"event":"echo","data":1}`)
				}
				p.wantsClose(1008, "Rate limit exceeded")
				other.text(`{"event":"m","id":1}`)
				other.wants(`{"event":"echo","data":1}`)
				if s := r.Stats(); s.RateLimited != 1 || s.Clients != 1 || s.ProtocolErrors != 0 {
					t.Errorf("stats: %+v", s)
				}
			})
		})
	}
}

// TestByteRate checks that compressed bytes count after inflation, and that the largest message is
// always allowed.
func TestByteRate(t *testing.T) {
	const payload = 10_000
	for name, tt := range map[string]struct {
		rate, messages int
		compressed     bool
	}{
		"plain":         {2000, 2, false},
		"compressed":    {2000, 2, true},
		"large message": {10, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := startPiped(t, config{
					Compression: true, Limits: hearth.Limits{MaxPayload: payload, ByteRate: tt.rate},
					Timeouts: hearth.Timeouts{HeartbeatInterval: hearth.Disabled, Idle: hearth.Disabled},
					Message:  func(_ context.Context, c *client, m hearth.Message) error { return c.Send("size", len(m.Data)) },
				})
				w := r.rawCompressed()
				p := newPeer(t, w)
				p.login("u")
				pass(time.Hour)
				text := `{"event":"m","data":"` + repeat("x", payload-23) + `"}`
				for range tt.messages + 1 {
					if tt.compressed {
						must(t, w.frame(0x80|opDeflated, deflated(text)))
					} else {
						p.text(text)
					}
				}
				for range tt.messages {
					p.wants(fmt.Sprintf(`{"event":"size","data":%d}`, payload-21))
				}
				p.wantsClose(1008, "Rate limit exceeded")
				if s := r.Stats(); s.RateLimited != 1 {
					t.Errorf("stats: %+v", s)
				}
			})
		})
	}
}

// TestRateWhilePaused checks that a client that keeps to its rate is not closed for messages that
// the server read late.
func TestRateWhilePaused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const messages = 600
		release := make(chan struct{})
		var handled atomic.Int32
		r := startPiped(t, config{
			Limits:   hearth.Limits{MessageRate: 10, ClientQueue: 1024},
			Timeouts: hearth.Timeouts{HeartbeatInterval: hearth.Disabled, Idle: hearth.Disabled},
			Message: func(context.Context, *client, hearth.Message) error {
				<-release
				handled.Add(1)
				return nil
			},
		})
		p := r.member("u")
		backlog := make(chan int, messages)
		go func() { // ends with the last message; the pipe blocks the writes, as TCP would
			for range backlog {
				p.text(`{"event":"m"}`)
			}
		}()
		for i := range messages {
			pass(100 * time.Millisecond)
			backlog <- i
		}
		close(backlog)
		close(release)
		synctest.Wait()
		if n, s := handled.Load(), r.Stats(); n != messages || s.RateLimited != 0 {
			t.Errorf("%d messages handled, stats %+v", n, s)
		}
	})
}
