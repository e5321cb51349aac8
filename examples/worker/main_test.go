package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/emitter"
	"github.com/hearthws/hearth/internal/test/redistest"
)

const limit = time.Minute

// connect starts a server on the Redis at url and returns a connection of the client ada, which
// follows reports. Both end with the test.
func connect(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	b, err := redis.New(redis.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	type login struct{ Name string }
	srv, err := hearth.New(hearth.Config[login, struct{}]{
		Broker:       b,
		DefaultRooms: []string{"reports"},
		Authenticate: func(_ context.Context, r hearth.AuthRequest[login]) (hearth.Identity[struct{}], error) {
			return hearth.Identity[struct{}]{UserID: r.Credentials.Name}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := srv.Start(ctx); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(srv)
	t.Cleanup(func() {
		web.Close()
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	c, _, err := websocket.Dial(ctx, web.URL+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	if err := c.Write(ctx, websocket.MessageText, []byte(`{"event":"authenticate","data":{"name":"ada"}}`)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c); !strings.HasPrefix(got, `{"event":"connected"`) {
		t.Fatalf("got %s, want connected", got)
	}
	return c
}

func read(t *testing.T, c *websocket.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, b, err := c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestWorker checks that the user gets the events on every server.
func TestWorker(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t)
	clients := []*websocket.Conn{connect(t, store.URL()), connect(t, store.URL())}
	b, err := redis.New(redis.Config{URL: store.URL()})
	if err != nil {
		t.Fatal(err)
	}
	e, err := emitter.New(b)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	w := &worker{emitter: e, log: slog.New(slog.DiscardHandler), pause: time.Millisecond}
	if err := w.work(t.Context(), job{Report: "q3", User: "ada", Pages: 2}); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		for _, want := range []string{
			`{"event":"progress","data":{"done":1,"of":2,"report":"q3"}}`,
			`{"event":"progress","data":{"done":2,"of":2,"report":"q3"}}`,
			`{"event":"ready","data":{"report":"q3","pages":2}}`,
			`{"event":"published","data":{"report":"q3","pages":2}}`,
		} {
			if got := read(t, c); got != want {
				t.Errorf("got %s\nwant %s", got, want)
			}
		}
	}
}

// heard is a log that signals when it gets a line with a text.
type heard struct {
	text string
	tell chan struct{} // room for one
}

func (h heard) Write(b []byte) (int, error) {
	if strings.Contains(string(b), h.text) {
		select {
		case h.tell <- struct{}{}:
		default:
		}
	}
	return len(b), nil
}

// TestRetry checks that the worker retries while Redis is down, and then sends the event.
func TestRetry(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t)
	store.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	again := heard{"sending failed, retrying", make(chan struct{}, 1)}
	ended := make(chan error, 1)
	// Ends with the job; read below.
	go func() {
		log := slog.New(slog.NewTextHandler(again, nil))
		ended <- run(ctx, store.URL(), job{Report: "q3", User: "ada", Pages: 1}, log)
	}()
	select {
	case <-again.tell:
	case err := <-ended:
		t.Fatalf("ended without Redis: %v", err)
	}
	store.Restart()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestEnd checks that a cancelled worker stops retrying.
func TestEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := run(ctx, "redis://127.0.0.1:1", job{Report: "q3", User: "ada", Pages: 1}, slog.New(slog.DiscardHandler))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := run(ctx, "nonsense", job{}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("an address that is none was taken")
	}
}
