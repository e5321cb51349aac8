package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestChat(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := newChat(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.srv.Start(ctx); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(c.srv)
	t.Cleanup(func() {
		web.Close()
		if err := c.srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})

	ada := join(ctx, t, web.URL, "Ada")
	ada.expect(`{"event":"history","data":[]}`)
	ada.send(`{"event":"who","data":"lobby"}`) // answered after the callback that announces ada
	ada.expect(`{"event":"here","data":["Ada"]}`)
	bob := join(ctx, t, web.URL, "Bob")
	bob.expect(`{"event":"history","data":[]}`)
	ada.expect(`{"event":"came","data":{"from":"Bob","room":"lobby"}}`)

	for _, p := range []*peer{ada, bob} {
		p.send(`{"event":"join","data":{"rooms":["tea","staff-only"]}}`)
		p.expect(`{"event":"history","data":[]}`)
		if p == bob {
			ada.expect(`{"event":"came","data":{"from":"Bob","room":"tea"}}`)
		}
		p.send(`{"event":"say","data":{"room":"staff-only","text":"?"}}`)
		p.expect(`{"event":"sorry","data":"rejected: you are not in \"staff-only\""}`)
	}
	ada.send(`{"event":"say","data":{"room":"tea","text":"hi <all>"}}`)
	for _, p := range []*peer{ada, bob} {
		p.expect(`{"event":"said","data":{"no":1,"from":"Ada","room":"tea","text":"hi <all>"}}`)
	}
	bob.send(`{"event":"leave","data":{"rooms":["tea"]}}`)
	ada.expect(`{"event":"left","data":{"from":"Bob","room":"tea"}}`)
	ada.send(`{"event":"say","data":{"room":"tea","text":"gone?"}}`)
	ada.expect(`{"event":"said","data":{"no":2,"from":"Ada","room":"tea","text":"gone?"}}`)
	bob.send(`{"event":"join","data":{"rooms":["tea"]}}`)
	bob.expect(`{"event":"history","data":[{"no":1,"from":"Ada","room":"tea","text":"hi <all>"},` +
		`{"no":2,"from":"Ada","room":"tea","text":"gone?"}]}`)
	ada.expect(`{"event":"came","data":{"from":"Bob","room":"tea"}}`)
	bob.send(`{"event":"whisper","data":{"to":"Ada","text":"psst"}}`)
	ada.expect(`{"event":"whispered","data":{"from":"Bob","text":"psst"}}`)
	ada.send(`{"event":"who","data":"tea"}`)
	ada.expect(`{"event":"here","data":["Ada","Bob"]}`)
	ada.send(`{"event":"dance"}`)
	ada.expect(`{"event":"sorry","data":"rejected: there is no event \"dance\""}`)

	bob.c.Close(websocket.StatusNormalClosure, "")
	ada.expect(`{"event":"left","data":{"from":"Bob","room":"lobby"}}`)
	ada.expect(`{"event":"left","data":{"from":"Bob","room":"tea"}}`)
	ada.c.Close(websocket.StatusNormalClosure, "")
}

// TestRun runs the whole program until it is cancelled.
func TestRun(t *testing.T) {
	t.Parallel()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := probe.Addr().String()
	defer probe.Close()
	if err := run(t.Context(), taken, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("run on a port in use: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	ready := make(chan struct{}, 1)
	go func() { ended <- run(ctx, "127.0.0.1:0", slog.New(slog.NewTextHandler(writes(ready), nil))) }()
	<-ready
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// writes is a writer that signals each write.
type writes chan struct{}

func (w writes) Write(p []byte) (int, error) {
	select {
	case w <- struct{}{}:
	default:
	}
	return len(p), nil
}

// A peer is a client under test.
type peer struct {
	ctx context.Context
	t   *testing.T
	c   *websocket.Conn
}

func join(ctx context.Context, t *testing.T, url, name string) *peer {
	t.Helper()
	c, _, err := websocket.Dial(ctx, url+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	p := &peer{ctx, t, c}
	p.send(fmt.Sprintf(`{"event":"authenticate","data":{"name":%q}}`, name))
	if got := p.read(); !strings.HasPrefix(got, `{"event":"connected"`) {
		t.Fatalf("got %s, want connected", got)
	}
	return p
}

func (p *peer) send(text string) {
	p.t.Helper()
	if err := p.c.Write(p.ctx, websocket.MessageText, []byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) read() string {
	p.t.Helper()
	_, b, err := p.c.Read(p.ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func (p *peer) expect(want string) {
	p.t.Helper()
	if got := p.read(); got != want {
		p.t.Fatalf("got  %s\nwant %s", got, want)
	}
}
