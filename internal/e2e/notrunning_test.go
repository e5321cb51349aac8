package e2e_test

import (
	"context"
	"errors"
	"testing"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/memory"
)

// sends returns all ways to send.
func sends(ctx context.Context, s *server) map[string]error {
	return map[string]error{
		"local client": s.Local().Send(ctx, hearth.ToClient("c"), "e", 1), "local user": s.Local().Send(ctx, hearth.ToUser("u"), "e", 1),
		"local room": s.Local().Send(ctx, hearth.ToRoom("r"), "e", 1), "local all": s.Local().Send(ctx, hearth.ToAll(), "e", 1),
		"all": s.Send(ctx, hearth.ToAll(), "e", 1), "room": s.Send(ctx, hearth.ToRoom("r"), "e", 1), "user": s.Send(ctx, hearth.ToUser("u"), "e", 1),
	}
}

// TestSendNotRunning checks that sends by a server that is not running return an error.
func TestSendNotRunning(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]config{"alone": {}, "with a broker": {Broker: memory.New()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			cfg.Authenticate = accept
			s, err := hearth.New(cfg)
			must(t, err)
			check := func(when string, want error) {
				t.Helper()
				for what, err := range sends(ctx, s) {
					if !errors.Is(err, want) {
						t.Errorf("%s: %s: %v, want %v", when, what, err, want)
					}
				}
			}
			check("before Start", hearth.ErrNotRunning)
			if cfg.Broker != nil {
				done, cancel := context.WithCancel(ctx)
				cancel()
				if err := s.Start(done); !errors.Is(err, context.Canceled) {
					t.Errorf("start: %v", err)
				}
				check("after a Start that failed", hearth.ErrNotRunning)
			}
			must(t, s.Start(ctx))
			check("running", nil)
			must(t, s.Shutdown(ctx))
			check("after Shutdown", hearth.ErrNotRunning)
		})
	}
}

// TestDisconnectedMaySend checks that callbacks that run during a shutdown may still send to the
// clients of other servers.
func TestDisconnectedMaySend(t *testing.T) {
	t.Parallel()
	bus := memory.NewBus(memory.Config{})
	other := start(t, config{Broker: bus.Broker()})
	p := other.member("there")
	var one *rig
	one = start(t, config{Broker: bus.Broker(), Disconnected: func(ctx context.Context, c *client, _ int, _ string) {
		if err := one.Send(ctx, hearth.ToAll(), "left", c.UserID()); err != nil {
			t.Errorf("publish: %v", err)
		}
	}})
	one.member("here")
	must(t, one.Shutdown(t.Context()))
	p.wants(`{"event":"left","data":"here"}`)
}
