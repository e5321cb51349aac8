package redis_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// TestPublishTimeout checks that a caller waits for a silent Redis only as long as its context
// allows, and that Close does not wait for messages whose callers have stopped waiting.
func TestPublishTimeout(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for name, tt := range map[string]struct {
		addr  string
		meets bool // answers at first
	}{
		"never answered": {addr: serveSilence(t)},
		"fell silent":    {addr: server.Addr, meets: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			news := []protocol.Message{{ServerID: "s", Type: protocol.TypeBroadcast, Event: "e", Data: []byte("1")}}
			giveUp := func() (closing time.Duration) {
				c := quick(t, "redis://"+tt.addr)
				c.DialTimeout, c.WriteTimeout = testTimeout, testTimeout
				b := newBroker(t, c)
				if tt.meets {
					if errs := b.PublishAll(ctx(t), news); errs != nil {
						t.Fatal(errs)
					}
					server.Freeze()
					defer server.Thaw()
				}
				short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				defer cancel()
				errs := b.PublishAll(short, news)
				for errs == nil { // it was not frozen yet
					errs = b.PublishAll(short, news)
				}
				if len(errs) != 1 || !errors.Is(errs[0], context.DeadlineExceeded) {
					t.Errorf("errors %v, want DeadlineExceeded", errs)
				}
				began := time.Now()
				if err := b.Close(); err != nil {
					t.Error(err)
				}
				return time.Since(began)
			}
			for range 10 { // a busy machine may need longer once
				if giveUp() < time.Second {
					return
				}
			}
			t.Error("Close always waits")
		})
	}
}

// serveSilence starts a server that reads and never answers.
func serveSilence(t *testing.T) (addr string) {
	return serveClients(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
}
