package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestMux sends an announcement to a client through the API, with and without TLS.
func TestMux(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "tls"}[secure]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			announce(t, secure)
		})
	}
}

func announce(t *testing.T, secure bool) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	srv, err := newServer(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(ctx); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(logged(log, routes(srv)))
	if secure {
		web.StartTLS()
	} else {
		web.Start()
	}
	t.Cleanup(func() {
		web.Close()
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})

	c, _, err := websocket.Dial(ctx, web.URL+"/live/socket", &websocket.DialOptions{HTTPClient: web.Client()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(ctx, websocket.MessageText, []byte(`{"event":"authenticate"}`)); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.Read(ctx); err != nil || !strings.HasPrefix(string(b), `{"event":"connected"`) {
		t.Fatalf("got %s, %v, want connected", b, err)
	}
	resp, err := web.Client().Post(web.URL+"/api/announce", "text/plain", strings.NewReader("the kettle is on"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("announce: status %d", resp.StatusCode)
	}
	_, b, err := c.Read(ctx)
	if want := `{"event":"announcement","data":"the kettle is on"}`; err != nil || string(b) != want {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
	c.Close(websocket.StatusNormalClosure, "")
}

// TestRunEnds runs the whole program on a listener until it is cancelled.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, ln, "", "", slog.New(slog.DiscardHandler)) }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRunTellsWhatItCannotServe(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "none.pem")
	err = run(t.Context(), ln, missing, missing, slog.New(slog.DiscardHandler))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("run without a certificate: %v", err)
	}
}
