package e2e_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/hearthws/hearth"
)

// TestCallbackGoexit checks that runtime.Goexit, which t.FailNow calls, ends a callback as a panic
// does, and has no other effect.
func TestCallbackGoexit(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		var ended atomic.Int32
		exit := func(wanted string, as string) {
			if wanted == as {
				runtime.Goexit()
			}
		}
		r := start(t, config{
			Transport: transport,
			Authenticate: func(ctx context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
				exit("authenticate", req.Credentials.As)
				return accept(ctx, req)
			},
			ValidateRooms: func(_ context.Context, c *client, rooms []string) ([]string, error) {
				exit("rooms", c.UserID())
				return rooms, nil
			},
			Connected: func(_ context.Context, c *client) { exit("connected", c.UserID()) },
			Message: func(_ context.Context, c *client, m hearth.Message) error {
				exit("message", m.Event)
				return c.Send("echo", m.ID)
			},
			Disconnected: func(_ context.Context, c *client, _ int, _ string) {
				ended.Add(1)
				exit("disconnected", c.UserID())
			},
		})
		p := r.peer()
		p.say("authenticate", `{"as":"authenticate"}`)
		p.wantsError("Authentication error")
		p.wantsClose(4003, "Authentication failed")
		for _, user := range []string{"rooms", "connected", "disconnected", "none"} {
			p := r.member(user)
			for range 3 {
				p.say("join", `{"rooms":["r"]}`)
				p.say("message", `1`)
				p.text(`{"event":"m","id":1}`)
				p.wants(`{"event":"echo","data":1}`)
			}
			p.bye(1000, "")
			p.wantsClose(1000, "")
		}
		must(t, r.Shutdown(context.Background()))
		if s := r.Stats(); ended.Load() != 4 || s.CallbackErrors < 4*3+3+1+1 {
			t.Errorf("Disconnected was called %d times, stats %+v", ended.Load(), s)
		}
	})
}
