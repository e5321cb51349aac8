package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestEcho connects an independent client to every kind of server.
func TestEcho(t *testing.T) {
	t.Parallel()
	for _, o := range []options{
		{transport: "epoll"},
		{transport: "epoll", compression: true},
		{transport: "netconn"},
		{transport: "netconn", compression: true},
	} {
		name := o.transport
		if o.compression {
			name += "/compression"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.listen, o.max = "127.0.0.1:0", 1<<20
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			addr, done := make(chan net.Addr, 1), make(chan error, 1)
			// Ended by cancel, waited for below.
			go func() { done <- run(ctx, o, func(a net.Addr) { addr <- a }) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			select {
			case a := <-addr:
				talk(ctx, t, a.String(), o.compression)
			case err := <-done:
				done <- err
			}
		})
	}
}

func talk(ctx context.Context, t *testing.T, addr string, compression bool) {
	opts := &websocket.DialOptions{CompressionMode: websocket.CompressionDisabled}
	if compression {
		opts.CompressionMode = websocket.CompressionNoContextTakeover
	}
	c, _, err := websocket.Dial(ctx, "ws://"+addr+"/any/path", opts)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(2 << 20)
	for _, size := range []int{0, 1, 125, 126, 300, 65535, 65536, 1 << 20} {
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			sent := bytes.Repeat([]byte{byte('a' + rand.IntN(26))}, size)
			if err := c.Write(ctx, kind, sent); err != nil {
				t.Errorf("write %d bytes: %v", size, err)
				return
			}
			got, back, err := c.Read(ctx)
			if err != nil || got != kind || !bytes.Equal(back, sent) {
				t.Errorf("%d bytes came back as %v, %d bytes, %v", size, got, len(back), err)
				return
			}
		}
	}
	if err := c.Write(ctx, websocket.MessageText, make([]byte, 1<<20+1)); err != nil {
		t.Error(err)
	}
	if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("a message over the limit: %v", err)
	}

	c, _, err = websocket.Dial(ctx, "ws://"+addr, opts)
	if err != nil {
		t.Error(err)
		return
	}
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("close: %v", err)
	}
}
