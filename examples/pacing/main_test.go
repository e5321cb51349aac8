package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/hearthws/hearth"
)

// TestExport requests far more rows than any buffer holds, starts to read late, and checks that
// none is missing.
func TestExport(t *testing.T) {
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
	read := func() string {
		_, b, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write := func(text string) {
		if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"event":"authenticate"}`)
	if got := read(); !strings.HasPrefix(got, `{"event":"connected"`) {
		t.Fatalf("got %s, want connected", got)
	}
	const rows = 20_000 // about 10 MB
	write(fmt.Sprintf(`{"event":"export","data":{"rows":%d}}`, rows))
	stuck := time.NewTicker(time.Millisecond)
	defer stuck.Stop()
	for srv.Local().Pending(hearth.ToAll()) <= pace { // read nothing until all buffers are full
		<-stuck.C
	}
	for i := range rows {
		if got, want := read(), fmt.Sprintf(`{"event":"row","data":{"number":%d,"text":%q}}`, i, text); got != want {
			t.Fatalf("got %s\nwant %s", got, want)
		}
	}
	if got, want := read(), fmt.Sprintf(`{"event":"end","data":{"rows":%d}}`, rows); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n := srv.Stats().Dropped; n != 0 {
		t.Errorf("%d messages were dropped", n)
	}
	c.Close(websocket.StatusNormalClosure, "")
}
