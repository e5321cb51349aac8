package main

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestHello(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	srv, err := newServer()
	if err != nil {
		t.Fatal(err)
	}
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
	defer c.CloseNow()
	for _, line := range []string{
		`{"event":"authenticate","data":{"name":"ada"}}`,
		"",
		`{"event":"join","data":{"rooms":["tea"]}}`,
		`{"event":"say","data":"hello, tea room"}`,
	} {
		if line == "" { // the earlier lines are answered first
			if _, b, err := c.Read(ctx); err != nil || !strings.HasPrefix(string(b), `{"event":"connected"`) {
				t.Fatalf("got %s, %v, want connected", b, err)
			}
			continue
		}
		if err := c.Write(ctx, websocket.MessageText, []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	_, b, err := c.Read(ctx)
	if want := `{"event":"say","data":{"from":"ada","text":"hello, tea room"}}`; err != nil || string(b) != want {
		t.Fatalf("got %s, %v, want %s", b, err, want)
	}
	c.Close(websocket.StatusNormalClosure, "")
}
