package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/memory"
)

// TestShutdownInCallback calls Shutdown in callbacks that Shutdown waits for. It must return an
// error with any context, and the server must continue.
func TestShutdownInCallback(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		var r *rig
		rejected := make(chan error, 10)
		started := make(chan struct{}) // r is set
		shutdown := func(ctx context.Context) {
			<-started
			for _, ctx := range []context.Context{ctx, context.Background()} {
				rejected <- r.Shutdown(ctx)
			}
		}
		r = start(t, config{
			Transport: transport,
			Upgrade: hearth.Upgrade{CheckOrigin: func(req *http.Request) bool {
				shutdown(req.Context())
				return true
			}},
			Authenticate: func(ctx context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
				shutdown(ctx)
				return accept(ctx, req)
			},
			Connected:    func(ctx context.Context, _ *client) { shutdown(ctx) },
			DefaultRooms: []string{},
			Joined:       func(ctx context.Context, _ *client, _ string) { shutdown(ctx) },
			Left:         func(ctx context.Context, _ *client, _ string) { shutdown(ctx) },
			ValidateRooms: func(ctx context.Context, _ *client, rooms []string) ([]string, error) {
				shutdown(ctx)
				return rooms, nil
			},
			Message: func(ctx context.Context, c *client, m hearth.Message) error {
				shutdown(ctx)
				return c.Send(m.Event, m.Data)
			},
			Disconnected: func(ctx context.Context, _ *client, _ int, _ string) { shutdown(ctx) },
		})
		close(started)
		wants := func(in string) {
			t.Helper()
			for range 2 {
				if err := <-rejected; !errors.Is(err, hearth.ErrInCallback) {
					t.Errorf("%s: %v", in, err)
				}
			}
		}
		p := r.peer()
		wants("CheckOrigin")
		p.login("u")
		wants("Authenticate")
		wants("Connected")
		p.say("join", `{"rooms":["a"]}`)
		wants("ValidateRooms")
		wants("Joined")
		p.say("hello", "1")
		wants("Message")
		p.wants(`{"event":"hello","data":1}`)
		p.wire.close()
		wants("Left")
		wants("Disconnected")
		if err := r.Shutdown(t.Context()); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
}

// TestShutdownInHandler calls Shutdown in an HTTP handler of Serve, whose requests Shutdown waits
// for.
func TestShutdownInHandler(t *testing.T) {
	t.Parallel()
	s, err := hearth.New(config{Authenticate: accept})
	must(t, err)
	must(t, s.Start(t.Context()))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { // ends with Shutdown
		served <- s.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, errors.Is(s.Shutdown(r.Context()), hearth.ErrInCallback), errors.Is(s.Shutdown(context.Background()), hearth.ErrInCallback))
		}))
	}()
	resp, err := http.Get("http://" + ln.Addr().String() + "/stop")
	must(t, err)
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "true true" {
		t.Errorf("answered with %s", body)
	}
	http.DefaultClient.CloseIdleConnections()
	must(t, s.Shutdown(t.Context()))
	<-served
}

// TestShutdownInBrokerLost calls Shutdown in the callback for losses.
func TestShutdownInBrokerLost(t *testing.T) {
	t.Parallel()
	rejected := make(chan error, 1)
	leaky := &lossBroker{Broker: memory.New()}
	var r *rig
	started := make(chan struct{}) // r is set
	r = start(t, config{Broker: leaky, BrokerLost: func(context.Context, broker.Loss) {
		<-started
		rejected <- r.Shutdown(context.Background())
	}})
	close(started)
	leaky.lose(broker.Loss{Cause: errors.New("lost")})
	if err := <-rejected; !errors.Is(err, hearth.ErrInCallback) {
		t.Errorf("shutdown: %v", err)
	}
}
