package e2e_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"

	"github.com/hearthws/hearth"
)

// TestResetIsNotSlow resets the connections of clients during broadcasts. The clients have read
// everything, so they count as disconnected and not as slow: the code is 1006, and no message
// counts as dropped.
func TestResetIsNotSlow(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		for name, closes := range map[string]bool{"close": true, "drop": false} {
			t.Run(name, func(t *testing.T) { testResetIsNotSlow(t, transport, closes) })
		}
	})
}

func testResetIsNotSlow(t *testing.T, transport hearth.Transport, closes bool) {
	const rounds, clients = 5, 40
	var (
		mu    sync.Mutex
		log   bytes.Buffer
		codes = make(map[int]int)
	)
	r := start(t, config{
		Transport: transport, Limits: hearth.Limits{CloseOnBackpressure: closes},
		Logger: slog.New(slog.NewTextHandler(locked{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Disconnected: func(_ context.Context, _ *client, code int, _ string) {
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
		},
	})
	for round := range rounds {
		var peers []*peer
		for range clients {
			peers = append(peers, r.member("u"))
		}
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() { // ends with stop
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := r.Local().Send(t.Context(), hearth.ToAll(), "n", 1); err != nil {
					t.Errorf("broadcast: %v", err)
					return
				}
				if err := r.Local().WaitPending(t.Context(), hearth.ToAll(), 32<<10); err != nil {
					t.Errorf("wait: %v", err)
					return
				}
			}
		}()
		for _, p := range peers {
			conn := p.wire.(*rawWire).conn.(*net.TCPConn)
			must(t, conn.SetLinger(0))
			conn.Close()
		}
		r.counts(func(s hearth.Stats) bool { return s.Connections == 0 })
		close(stop)
		<-stopped
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	must(t, r.Shutdown(t.Context()))
	mu.Lock()
	defer mu.Unlock()
	if n := codes[1006]; n != rounds*clients {
		t.Errorf("close codes %v, want 1006 for all of %d clients", codes, rounds*clients)
	}
	if s := r.Stats(); s.SlowClosed != 0 || s.Dropped != 0 {
		t.Errorf("%d clients were closed as slow, %d messages counted as dropped", s.SlowClosed, s.Dropped)
	}
	if log.Len() > 0 {
		t.Errorf("log:\n%.1000s", log.Bytes())
	}
}

// locked is a writer for concurrent use.
type locked struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
