//go:build unix

package cli_test

import (
	"context"
	"encoding/json"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/hearthws/hearth/internal/test/redistest"
)

// startTwo starts a Redis and two servers that use it, and waits until the servers know each other.
func startTwo(t *testing.T) (db *redistest.Server, one, two *process) {
	t.Helper()
	db = redistest.Start(t)
	one, two = start(t, "--redis", db.URL()), start(t, "--redis", db.URL())
	for _, p := range []*process{one, two} {
		if !p.met {
			p.until(met)
		}
	}
	return db, one, two
}

// shout sends a message to all clients and returns how many clients the server counted. more is
// true if a server did not answer in time.
func shout(t *testing.T, ctx context.Context, c *websocket.Conn) (clients int, more bool) {
	t.Helper()
	if err := c.Write(ctx, websocket.MessageText, []byte(`{"event":"shout","id":"s","data":{"text":"hello"}}`)); err != nil {
		t.Fatal(err)
	}
	for {
		_, b, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var e struct {
			Event string
			Data  struct {
				Clients int
				More    bool
			}
		}
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		if e.Event == "accepted" {
			return e.Data.Clients, e.Data.More
		}
	}
}

// shoutToAll repeats shout until both servers have answered: on a slow machine the other one may
// not answer within the second that a server waits for.
func shoutToAll(t *testing.T, ctx context.Context, c *websocket.Conn) {
	t.Helper()
	for {
		n, more := shout(t, ctx, c)
		if n > 2 || n < 2 && !more {
			t.Errorf("the servers count %d clients, want 2", n)
		}
		if !more {
			return
		}
	}
}

// TestServeOneIsKilled kills one of two servers. The other reports incomplete counts until it
// forgets the killed server.
func TestServeOneIsKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("a server forgets a killed server only after up to 23 seconds")
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	_, one, two := startTwo(t)
	a, b := one.connect(ctx), two.connect(ctx)
	shoutToAll(t, ctx, a)
	shoutToAll(t, ctx, b)
	two.signal(syscall.SIGKILL)
	if code := two.wait(); code != -1 {
		t.Errorf("exit code %d", code)
	}
	if n, more := shout(t, ctx, a); n != 1 || !more {
		t.Errorf("right after: %d, more: %v", n, more)
	}
	one.until("another node stopped responding")
	begin := time.Now()
	if n, more := shout(t, ctx, a); n != 1 || more || time.Since(begin) > limit/2 {
		t.Errorf("forgotten: %d, more: %v", n, more)
	}
	one.signal(syscall.SIGTERM)
	one.until("drained")
}
