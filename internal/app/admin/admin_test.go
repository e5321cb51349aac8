package admin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/app/admin"
	"github.com/hearthws/hearth/internal/app/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fixture is an admin server whose figures the test sets.
type fixture struct {
	url     string
	clients atomic.Int64
	stop    context.CancelFunc // ends the context of the HTTP server
}

func serve(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{}
	c := metrics.NewCollector(metrics.Source{
		Stats:  func() hearth.Stats { return hearth.Stats{Clients: int(f.clients.Load())} },
		Health: func() broker.Health { return broker.Health{State: broker.StateOK} }, Pending: func() int { return 0 },
	})
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	h := admin.New(admin.Config{
		Metrics: c, Registry: reg, Log: slog.New(slog.DiscardHandler),
		Health: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "alive") },
		Ready: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, "draining")
		},
		Status: func() admin.Status { return admin.Status{Node: "n1", Name: "one", Status: "draining"} },
	})
	ctx, stop := context.WithCancel(context.Background())
	srv := httptest.NewUnstartedServer(h)
	srv.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	srv.Start()
	f.url, f.stop = srv.URL, stop
	t.Cleanup(func() { stop(); srv.Close() })
	return f
}

func get(t *testing.T, url string) *http.Response {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPaths(t *testing.T) {
	t.Parallel()
	f := serve(t)
	f.clients.Store(3)
	for _, tt := range []struct {
		path, contentType, body string
		code                    int
	}{
		{"/", "text/plain; charset=utf-8", "/metrics", 200},
		{"/metrics", "text/plain", "\nhearth_clients 3\n", 200},
		{"/healthz", "", "alive", 200},
		{"/readyz", "", "draining", 503},
		{"/figures", "application/json", `"hearth_clients":3`, 200},
		{"/figures/stream?interval=1ms", "text/plain", "interval takes 100ms to 1m0s", 400},
		{"/figures/stream?interval=x", "text/plain", "interval takes", 400},
		{"/debug/pprof/", "", "", 404},
	} {
		resp := get(t, f.url+tt.path)
		if text := body(t, resp); resp.StatusCode != tt.code || !strings.Contains(text, tt.body) || !strings.HasPrefix(resp.Header.Get("Content-Type"), tt.contentType) {
			t.Errorf("%s: %d %s: %.200s", tt.path, resp.StatusCode, resp.Header.Get("Content-Type"), text)
		}
	}
}

// TestStream reads two events with different figures, and expects the end of the stream when the
// server ends.
func TestStream(t *testing.T) {
	t.Parallel()
	f := serve(t)
	f.clients.Store(1)
	resp := get(t, f.url+"/figures/stream?interval=100ms")
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Fatalf("content type %s", ct)
	}
	lines := bufio.NewScanner(resp.Body)
	next := func() admin.Figures {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var got admin.Figures
				if err := json.Unmarshal([]byte(data), &got); err != nil {
					t.Fatal(err)
				}
				return got
			}
		}
		t.Fatalf("the stream ended: %v", lines.Err())
		return admin.Figures{}
	}
	got := next()
	if got.Figures["hearth_clients"] != 1 || got.Node != "n1" || got.Ready || got.Status.Status != "draining" || got.Time.IsZero() {
		t.Errorf("the first event is %+v", got)
	}
	f.clients.Store(2)
	for next().Figures["hearth_clients"] != 2 {
	}
	f.stop()
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream did not end cleanly: %v", err)
	}
}

// TestStreamsAreBounded opens as many streams as are allowed, one more, and another one when one
// was closed.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	f := serve(t)
	var open []*http.Response
	for range 16 {
		resp := get(t, f.url+"/figures/stream")
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("stream %d: %d", len(open), resp.StatusCode)
		}
		open = append(open, resp)
	}
	resp := get(t, f.url+"/figures/stream")
	if text := body(t, resp); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(text, "16 streams are open") {
		t.Errorf("one stream more: %d %s", resp.StatusCode, text)
	}
	open[0].Body.Close()
	for { // until the server has noticed
		resp := get(t, f.url+"/figures/stream")
		if resp.StatusCode == http.StatusOK {
			break
		}
		resp.Body.Close()
	}
}
