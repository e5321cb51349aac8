package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hearthws/hearth"
)

// TestConnectedFirst connects clients while other goroutines send to all clients, to rooms, to the
// user and to the id as fast as they can. A client receives nothing before connected, and every
// message that is sent after it.
func TestConnectedFirst(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		ids := make(chan string, 100)
		r := start(t, config{
			Transport: transport, Limits: hearth.Limits{BackpressureLimit: 64 << 20},
			Authenticate: func(ctx context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
				ids <- req.ClientID
				return accept(ctx, req)
			},
		})
		stop := make(chan struct{})
		var noise sync.WaitGroup
		defer noise.Wait()
		defer close(stop)
		var last atomic.Value
		last.Store("none")
		sends := []func() error{
			func() error { return r.Local().Send(t.Context(), hearth.ToAll(), "noise", 1) },
			func() error { return r.Local().Send(t.Context(), hearth.ToUser("u"), "noise", 2) },
			func() error { return r.Local().Send(t.Context(), hearth.ToRoom("ws-default"), "noise", 3) },
			func() error { return r.Local().Send(t.Context(), hearth.ToClient(last.Load().(string)), "noise", 4) },
			func() error { return r.Local().Send(t.Context(), hearth.ToRoom(last.Load().(string)), "noise", 5) },
		}
		for range 2 {
			noise.Go(func() { // ends with stop
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					case id := <-ids:
						last.Store(id)
					default:
					}
					if err := sends[i%len(sends)](); err != nil {
						t.Error(err)
					}
					_ = r.Local().WaitPending(t.Context(), hearth.ToAll(), 4<<10)
				}
			})
		}
		for i := range 20 {
			p := r.member("u") // fails if another message precedes connected
			for path, send := range []func(event string) error{
				func(event string) error { return r.Local().Send(t.Context(), hearth.ToClient(p.id), event, i) },
				func(event string) error { return r.Local().Send(t.Context(), hearth.ToRoom(p.id), event, i) },
				func(event string) error { return r.Local().Send(t.Context(), hearth.ToUser("u"), event, i) },
				func(event string) error {
					return r.Local().Send(t.Context(), hearth.ToRoom("ws-notification"), event, i)
				},
				func(event string) error { return r.Local().Send(t.Context(), hearth.ToAll(), event, i) },
			} {
				must(t, send(fmt.Sprint("mine", path)))
			}
			for path := 0; path < 5; {
				event, data := p.event()
				if event == "noise" || string(data) != fmt.Sprint(i) {
					continue
				}
				if event != fmt.Sprint("mine", path) {
					t.Fatalf("got %s, want that of path %d", event, path)
				}
				path++
			}
			p.hangUp()
		}
	})
}

// TestOrderAcrossPaths checks that messages from one goroutine to one client arrive in order,
// whatever their targets are.
func TestOrderAcrossPaths(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		const senders, messages = 3, 600
		r := start(t, config{Transport: transport, Limits: hearth.Limits{BackpressureLimit: 64 << 20}})
		peers := []*peer{r.member("u"), r.member("u"), r.member("u")}
		for _, p := range peers {
			must(t, joinRoom(t.Context(), r, p.id, "r"))
		}
		var sending sync.WaitGroup
		for g := range senders {
			sending.Go(func() {
				for i := range messages {
					data := [2]int{g, i}
					var err error
					switch i % 5 {
					case 0:
						err = r.Local().Send(t.Context(), hearth.ToAll(), "m", data)
					case 1:
						err = r.Local().Send(t.Context(), hearth.ToUser("u"), "m", data)
					case 2:
						err = r.Local().Send(t.Context(), hearth.ToRoom("r").Except("none"), "m", data)
					case 3:
						for _, p := range peers {
							err = r.Send(t.Context(), hearth.ToClient(p.id), "m", data)
						}
					case 4:
						for _, p := range peers {
							err = r.Local().Send(t.Context(), hearth.ToRoom(p.id), "m", data)
						}
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		sending.Wait()
		for n, p := range peers {
			next := [senders]int{}
			for range senders * messages {
				_, data := p.event()
				var m [2]int
				must(t, json.Unmarshal(data, &m))
				if m[1] != next[m[0]] {
					t.Fatalf("client %d got message %d of sender %d, want %d", n, m[1], m[0], next[m[0]])
				}
				next[m[0]]++
			}
		}
	})
}

// TestCallbackOrder checks that a client's callbacks run one at a time in the order of its
// messages, with Connected first and Disconnected last. Messages that the client sent before it
// disconnected are handled.
func TestCallbackOrder(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		const clients, messages = 20, 200
		var running [clients]atomic.Int32
		var calls [clients][]string
		var closed sync.WaitGroup
		closed.Add(clients)
		call := func(c *client, what string) {
			var i int
			_, err := fmt.Sscan(c.UserID(), &i)
			if err != nil || running[i].Add(1) != 1 {
				t.Errorf("callbacks of client %d overlap", i)
			}
			calls[i] = append(calls[i], what)
			running[i].Add(-1)
		}
		r := start(t, config{
			Transport: transport,
			Connected: func(_ context.Context, c *client) { call(c, "connected") },
			Message: func(_ context.Context, c *client, m hearth.Message) error {
				call(c, string(m.Data))
				return nil
			},
			Disconnected: func(_ context.Context, c *client, code int, _ string) {
				call(c, fmt.Sprint("disconnected ", code))
				closed.Done()
			},
		})
		for i := range clients {
			p := r.member(fmt.Sprint(i))
			for n := range messages {
				p.say("m", fmt.Sprint(n))
			}
			p.bye(4000, "")
		}
		closed.Wait()
		want := []string{"connected"}
		for n := range messages {
			want = append(want, fmt.Sprint(n))
		}
		want = append(want, "disconnected 4000")
		for i := range clients {
			if fmt.Sprint(calls[i]) != fmt.Sprint(want) {
				t.Errorf("client %d: %v", i, calls[i])
			}
		}
	})
}

// TestMessagesWaitForConnected checks that Message is not called before Connected has returned.
func TestMessagesWaitForConnected(t *testing.T) {
	t.Parallel()
	release, connected := make(chan struct{}), atomic.Bool{}
	r := start(t, config{
		Connected: func(_ context.Context, c *client) {
			_ = c.Send("first", 1)
			<-release
			connected.Store(true)
		},
		Message: func(_ context.Context, c *client, m hearth.Message) error {
			if !connected.Load() {
				t.Error("Message was called while Connected was running")
			}
			return c.Send(m.Event, m.Data)
		},
	})
	p := r.member("u")
	p.wants(`{"event":"first","data":1}`)
	p.say("echo", "1")
	must(t, p.wire.send(opPing, []byte("behind"))) // answered while callbacks wait
	if pong, ok := p.pongs.take(answer); !ok || pong != "behind" {
		t.Errorf("pong: %q", pong)
	}
	close(release)
	p.wants(`{"event":"echo","data":1}`)
}

// TestBlockedCallbacks checks that 1,000 clients whose callbacks block do not delay another client.
func TestBlockedCallbacks(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		const clients = 1000
		release := make(chan struct{})
		var blocked sync.WaitGroup
		blocked.Add(clients)
		r := start(t, config{
			Transport: transport,
			Limits:    hearth.Limits{MaxUnauthenticatedPerAddr: hearth.Unlimited},
			Message: func(_ context.Context, c *client, m hearth.Message) error {
				if m.Event == "block" {
					blocked.Done()
					<-release
				}
				return c.Send("done", c.UserID())
			},
		})
		peers := make([]*peer, clients)
		for i := range peers {
			peers[i] = r.member(fmt.Sprint(i))
		}
		for _, p := range peers {
			p.text(`{"event":"block"}`)
		}
		last := r.member("last")
		last.text(`{"event":"echo"}`)
		last.wants(`{"event":"done","data":"last"}`)
		blocked.Wait()
		last.text(`{"event":"echo"}`)
		last.wants(`{"event":"done","data":"last"}`)
		close(release)
		for i, p := range peers {
			p.wants(fmt.Sprintf(`{"event":"done","data":"%d"}`, i))
		}
	})
}

// TestMessageBeforeClose checks that a message sent to a client before it is closed, or removed
// from a room, reaches it.
func TestMessageBeforeClose(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport})
		for range 50 {
			p := r.member("u")
			must(t, r.Local().Send(t.Context(), hearth.ToAll(), "all", 1))
			must(t, r.Local().Send(t.Context(), hearth.ToRoom("ws-default"), "room", 2))
			must(t, leaveRoom(r, p.id, "ws-default"))
			must(t, r.Local().Send(t.Context(), hearth.ToRoom("ws-default"), "not for it", 3))
			must(t, r.Local().Send(t.Context(), hearth.ToUser("u"), "user", 4))
			must(t, disconnect(r, p.id, 4000, "bye"))
			must(t, r.Local().Send(t.Context(), hearth.ToAll(), "not for it", 5))
			p.wants(`{"event":"all","data":1}`)
			p.wants(`{"event":"room","data":2}`)
			p.wants(`{"event":"user","data":4}`)
			p.wantsClose(4000, "bye")
		}
	})
}

// TestDisconnectedClientNotFound checks that a client is no longer found when Disconnected runs, so
// the callback can count the remaining clients.
func TestDisconnectedClientNotFound(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		var r *rig
		var closed sync.WaitGroup
		started := make(chan struct{})
		r = start(t, config{
			Transport: transport,
			Disconnected: func(_ context.Context, c *client, _ int, _ string) {
				<-started // r is set
				if _, ok := r.Local().Client(c.ID()); ok || r.Local().Count(hearth.ToUser(c.UserID())) != 0 || !c.In("ws-default") {
					t.Errorf("client %s is still found", c.UserID())
				}
				closed.Done()
			},
		})
		close(started)
		for i := range 60 {
			closed.Add(1)
			p := r.member(fmt.Sprint("u", i))
			switch i % 3 {
			case 0:
				p.bye(1000, "")
			case 1:
				p.hangUp()
			case 2:
				must(t, disconnect(r, p.id, 1000, ""))
			}
		}
		closed.Wait()
	})
}
