package e2e_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/memory"
	goclient "github.com/hearthws/hearth/client"
)

// TestGoClient follows a room with the client for Go while one server replaces another, with each
// transport, unencrypted and encrypted.
func TestGoClient(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		for _, encrypted := range []bool{false, true} {
			followAcrossRestart(t, transport, encrypted)
		}
	})
}

func followAcrossRestart(t *testing.T, transport hearth.Transport, encrypted bool) {
	bus := memory.NewBus(memory.Config{History: []hearth.HistoryRule{{Rooms: "h:*", Size: 1000, Age: time.Hour}}})
	var addr atomic.Value // of the server that clients reach
	serve := func() *rig {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		addr.Store(ln.Addr().String())
		cfg := unhurried(config{Transport: transport, Broker: bus.Broker(), Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional},
			ValidateRooms: func(_ context.Context, _ *client, rooms []string) ([]string, error) { return rooms, nil }})
		return startOn(t, cfg, ln, nil)
	}
	first := serve()
	got, waiting := make(chan int, 1000), make(chan goclient.State, 1000)
	tcp := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr.Load().(string))
	}}
	t.Cleanup(tcp.CloseIdleConnections)
	c, err := goclient.New(goclient.Config{
		URL: "ws://server/ws", Credentials: credentials{As: "ada"}, Encryption: encrypted, HTTPClient: &http.Client{Transport: tcp},
		RetryMin: 10 * time.Millisecond, OnState: func(s goclient.State) {
			if s.Phase == goclient.Waiting {
				waiting <- s
			}
		},
	})
	must(t, err)
	t.Cleanup(func() {
		c.Close()
		<-c.Done()
	})
	goclient.On(c, "n", func(n int) { got <- n })
	room, err := c.Join("h:tea", goclient.RoomConfig{})
	must(t, err)
	must(t, c.Connect(t.Context()))
	must(t, room.Wait(t.Context()))
	send := func(s *rig, from, to int) {
		for n := from; n < to; n++ {
			must(t, s.Send(t.Context(), hearth.ToRoom("h:tea"), "n", n))
		}
	}
	wants := func(from, to int) {
		t.Helper()
		for n := from; n < to; n++ {
			select {
			case m := <-got:
				if m != n {
					t.Fatalf("encrypted %v: got %d, want %d", encrypted, m, n)
				}
			case <-time.After(answer):
				t.Fatalf("encrypted %v: %d has not arrived: %+v, %+v", encrypted, n, c.State(), room.Status())
			}
		}
	}
	send(first, 0, 50)
	wants(0, 50)
	send(first, 50, 100)
	must(t, first.Shutdown(t.Context()))
	if e, ok := errors.AsType[*goclient.CloseError]((<-waiting).Err); !ok || e.Code != 1012 {
		t.Errorf("encrypted %v: %v", encrypted, e)
	}
	second := serve()
	send(second, 100, 200)
	wants(50, 200)
}
