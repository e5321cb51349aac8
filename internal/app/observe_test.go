package app_test

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/hearthws/hearth/internal/app"
	"github.com/hearthws/hearth/internal/app/admin"
)

// fetch returns the status and the body of a URL.
func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	base, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	s := &server{t: t, url: "http://" + base + "/"}
	resp, body := s.get(plainClient(t), http.MethodGet, "/"+path, nil)
	return resp.StatusCode, body
}

// serveAdmin starts a server with a listener for operators, and waits until it serves clients: the
// listener for operators serves earlier.
func serveAdmin(t *testing.T, options map[string]string) *server {
	t.Helper()
	options["admin"] = "localhost:0"
	s := serve(t, options)
	if code, body := fetch(t, s.url+"readyz"); code != http.StatusOK {
		t.Fatalf("not ready: %d %s", code, body)
	}
	return s
}

// TestMetrics reads the metrics of a server with one client.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := serveAdmin(t, map[string]string{})
	s.dialFor(t, "ada")
	code, body := fetch(t, s.admin+"metrics")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	for _, line := range []string{
		"hearth_clients 1", "hearth_nodes 1", `hearth_authentications_total{result="accepted"} 1`, `hearth_broker_state{state="ok"} 1`,
		`hearth_callback_duration_seconds_count{callback="authenticate"} 1`, "go_goroutines ", "go_build_info{", "process_open_fds ",
	} {
		if !strings.Contains(body, "\n"+line) {
			t.Errorf("no %s", line)
		}
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestAdminStatus checks the other paths, and that the listener ends with the server.
func TestAdminStatus(t *testing.T) {
	t.Parallel()
	s := serveAdmin(t, map[string]string{"name": "one"})
	for path, want := range map[string]string{"healthz": "ok\n", "readyz": "ok\n"} {
		if code, body := fetch(t, s.admin+path); code != http.StatusOK || body != want {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	_, body := fetch(t, s.admin+"figures")
	var f admin.Figures
	if err := json.Unmarshal([]byte(body), &f); err != nil {
		t.Fatal(err)
	}
	if f.Name != "one" || !f.Ready || f.Status.Status != "ok" || len(f.Node) != 36 || f.Figures["hearth_nodes"] != 1 {
		t.Errorf("figures: %s", body)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(s.admin, "http://"), "/")); err == nil {
		t.Error("the listener is still open")
	}
}

// TestAdminIsOff checks that there is no second listener unless it is configured, and that the
// address for clients does not serve metrics.
func TestAdminIsOff(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	if s.admin != "" {
		t.Errorf("there is a listener at %s", s.admin)
	}
	for _, path := range []string{"metrics", "figures"} {
		if code, _ := fetch(t, s.url+path); code != http.StatusNotFound {
			t.Errorf("%s: %d", path, code)
		}
	}
}

// TestAdminPortInUse expects an error that names the option, and the first listener to be closed.
func TestAdminPortInUse(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg, _, err := app.Load(app.Sources{Flags: map[string][]string{"listen": {"127.0.0.1:0"}, "admin": {ln.Addr().String()}}})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := app.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Listen(); err == nil || !strings.Contains(err.Error(), "--admin") {
		t.Errorf("listen: %v", err)
	}
	if conn, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(srv.URL(), "http://"), "/")); err == nil {
		conn.Close()
		t.Error("the listener for clients is still open")
	}
}
