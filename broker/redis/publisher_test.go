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

// TestGiveUp: whoever waits for a Redis that does not answer waits for as long as its context allows, and Close not at all for what
// nobody waits for any more.
func TestGiveUp(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for name, tt := range map[string]struct {
		addr  string
		meets bool // and falls silent then
	}{
		"never answered": {addr: serveSilence(t)},
		"fell silent":    {addr: server.Addr, meets: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			news := []protocol.Message{{ServerID: "s", Type: protocol.TypeBroadcast, Event: "e", Data: []byte("1")}}
			giveUp := func() (closing time.Duration) {
				c := quick(t, "redis://"+tt.addr)
				c.DialTimeout, c.WriteTimeout = patience, patience
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
			for range 10 { // a machine that has a lot else to do may once need longer
				if giveUp() < time.Second {
					return
				}
			}
			t.Error("close always waits")
		})
	}
}

// serveSilence is a server that takes what it is told, and says nothing.
func serveSilence(t *testing.T) (addr string) {
	return serveClients(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
}
