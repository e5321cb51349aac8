//go:build unix

package cli_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A heartbeating is a client that finds out whether its server is alive as docs/protocol.md §13
// says.
type heartbeating struct {
	conn              *websocket.Conn
	interval, timeout time.Duration // from `connected`
	answers           atomic.Int32
	dead              chan time.Time // when the client took its server for dead
}

// watchServer connects a client with the extension.
func watchServer(ctx context.Context, t *testing.T, p *process) *heartbeating {
	t.Helper()
	conn, _, err := websocket.Dial(ctx, strings.Replace(p.url, "http", "ws", 1)+"ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	if err := conn.Write(ctx, websocket.MessageText, []byte(`{"event":"authenticate","data":{"name":"ada"},"hearth":{"version":1}}`)); err != nil {
		t.Fatal(err)
	}
	_, b, err := conn.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var connected struct {
		Hearth struct {
			Heartbeat struct{ Interval, Timeout int64 }
		}
	}
	if err := json.Unmarshal(b, &connected); err != nil || connected.Hearth.Heartbeat.Interval == 0 {
		t.Fatalf("got %s (%v)", b, err)
	}
	beat := connected.Hearth.Heartbeat
	h := &heartbeating{
		conn: conn, interval: time.Duration(beat.Interval) * time.Millisecond, timeout: time.Duration(beat.Timeout) * time.Millisecond,
		dead: make(chan time.Time, 1),
	}
	go h.run(ctx) // ends with the connection, or with ctx
	return h
}

// run sends a heartbeat after each interval, as nothing else is sent, until nothing has arrived for
// the timeout after one.
func (h *heartbeating) run(ctx context.Context) {
	arrived := make(chan struct{}, 100)
	go func() { // ends with the connection
		for {
			if _, _, err := h.conn.Read(ctx); err != nil {
				return
			}
			arrived <- struct{}{}
		}
	}()
	for {
		select {
		case <-arrived:
			continue
		case <-time.After(h.interval):
		case <-ctx.Done():
			return
		}
		if err := h.conn.Write(ctx, websocket.MessageText, []byte(`{"event":"heartbeat"}`)); err != nil {
			return
		}
		select {
		case <-arrived:
			h.answers.Add(1)
		case <-time.After(h.timeout):
			h.dead <- time.Now()
			return
		case <-ctx.Done():
			return
		}
	}
}

// TestFrozenServerIsNoticed checks that a client notices a frozen server within the interval and
// the timeout that the server has told it, and not before the server is frozen.
func TestFrozenServerIsNoticed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes eleven seconds")
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	p := start(t, "--heartbeat-timeout", "1500ms")
	h := watchServer(ctx, t, p)
	if h.interval != 500*time.Millisecond || h.timeout != 10*time.Second {
		t.Fatalf("interval %v, timeout %v", h.interval, h.timeout)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for h.answers.Load() < 4 {
		select {
		case <-tick.C:
		case <-h.dead:
			t.Fatal("a running server was taken for dead")
		case <-ctx.Done():
			t.Fatalf("%d heartbeats were answered", h.answers.Load())
		}
	}
	p.signal(syscall.SIGSTOP)
	defer p.signal(syscall.SIGCONT)
	frozen := time.Now()
	select {
	case at := <-h.dead:
		// Within 10.5 seconds, on an idle machine.
		if after := at.Sub(frozen); after < h.timeout-time.Second || after > h.interval+h.timeout+2*time.Second {
			t.Errorf("noticed after %v", after)
		}
	case <-ctx.Done():
		t.Error("the client did not notice")
	}
}
