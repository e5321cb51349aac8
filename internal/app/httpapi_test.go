package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hearthws/hearth/internal/app"
	"github.com/hearthws/hearth/internal/test/redistest"
)

const testKey = "0123456789abcdef0123456789abcdef"

// TestAPIExamples runs the curl commands of docs/api.md, in their order, and compares the output of
// those that have it in the document.
func TestAPIExamples(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl")
	}
	b, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, map[string]string{"api": "localhost:0", "api-keys": "shop=" + testKey, "history": "log:*=10/1m", "default-rooms": "lobby"})
	s.dialFor(t, "ada")
	lines := strings.Split(string(b), "\n")
	ran, compared := 0, 0
	for i := 0; i < len(lines); i++ {
		command, found := strings.CutPrefix(lines[i], "    curl ")
		if !found {
			continue
		}
		for strings.HasSuffix(command, `\`) {
			i++
			command = strings.TrimSuffix(command, `\`) + strings.TrimSpace(lines[i])
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "curl "+command)
		cmd.Env = append(os.Environ(), "API="+strings.TrimSuffix(s.api, "/"), "KEY="+testKey, "no_proxy=*")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("curl %s: %v %s", command, err, stderr.Bytes())
		}
		ran++
		if want, ok := strings.CutPrefix(lines[i+1], "    {"); ok {
			compared++
			if got := strings.TrimSpace(string(out)); got != "{"+want {
				t.Errorf("curl %s: got %s", command, got)
			}
		}
	}
	if ran < 11 || compared < 8 {
		t.Errorf("only %d commands ran, and %d were compared", ran, compared)
	}
}

// post makes a request of the API.
func (s *server) post(path, key, body string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.api+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := plainClient(s.t).Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}

// TestAPIKeys replaces the keys while the server runs, and looks for the requests in the metrics.
func TestAPIKeys(t *testing.T) {
	t.Parallel()
	const other = "fedcba9876543210fedcba9876543210"
	load := func(keys string) (app.Config, []app.Setting) {
		t.Helper()
		cfg, settings, err := app.Load(app.Sources{Flags: map[string][]string{
			"listen": {"localhost:0"}, "api": {"localhost:0"}, "admin": {"localhost:0"}, "api-keys-file": {writeFile(t, "keys", keys)}}})
		if err != nil {
			t.Fatal(err)
		}
		return cfg, settings
	}
	cfg, settings := load("a:publish=" + testKey + "\n")
	srv, err := app.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }() // ends after cancel
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	s := &server{t: t, url: srv.URL(), api: srv.APIURL(), admin: srv.AdminURL()}
	fetch(t, s.url+"readyz") // until it serves
	expect := func(key, path, body string, status int) {
		t.Helper()
		if got, text := s.post(path, key, body); got != status {
			t.Errorf("%s: %d, want %d: %s", path, got, status, text)
		}
	}
	const publish = `{"all":true,"event":"n"}`
	expect(testKey, "v1/publish", publish, 200)
	expect(testKey, "v1/disconnect", `{"user":"ada"}`, 403)
	expect(other, "v1/publish", publish, 401)
	_, next := load("b=" + other)
	reloaded, err := srv.Reload(t.Context(), settings, next)
	if err != nil {
		t.Fatal(err)
	}
	if len(reloaded.Applied) == 0 || len(reloaded.Restart) != 0 {
		t.Errorf("reloaded %v, restart %v", reloaded.Applied, reloaded.Restart)
	}
	expect(testKey, "v1/publish", publish, 401)
	expect(other, "v1/disconnect", `{"user":"ada"}`, 200)
	_, body := fetch(t, s.admin+"metrics")
	for _, line := range []string{
		`hearth_api_requests_total{code="200",operation="publish"} 1`, `hearth_api_requests_total{code="401",operation="publish"} 2`,
		`hearth_api_request_duration_seconds_count{operation="disconnect"} 2`,
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("no %s", line)
		}
	}
}

// TestAPIOptions checks the errors for options that do not fit together. None shows a key.
func TestAPIOptions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		flags map[string][]string
		want  string
	}{
		{map[string][]string{"api": {"localhost:0"}}, "--api-keys-file"},
		{map[string][]string{"api-keys": {"a=" + testKey}}, "has no effect without api"},
		{map[string][]string{"api": {"localhost:0"}, "api-keys": {testKey}}, "takes NAME=KEY"},
		{map[string][]string{"api": {"localhost"}, "api-keys": {"a=" + testKey}}, "takes host:port"},
	} {
		_, _, err := app.Load(app.Sources{Flags: tt.flags})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), testKey) {
			t.Errorf("%v: %v", tt.flags, err)
		}
	}
	cfg, settings, err := app.Load(app.Sources{Flags: map[string][]string{"api": {"localhost:0"}, "api-keys": {"a=" + testKey}}})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(app.WriteYAML(settings), testKey) {
		t.Error("the settings show a key")
	}
	if b, err := json.Marshal(cfg); err != nil || strings.Contains(string(b), testKey) {
		t.Errorf("the configuration shows a key: %v", err)
	}
}

// TestAPIOnRedis sends through the API of one server to clients of two. While Redis is down, the
// API says so, and afterwards the same key sends once.
func TestAPIOnRedis(t *testing.T) {
	t.Parallel()
	db := redistest.Start(t)
	log, other := &logs{}, &logs{}
	options := map[string]string{"redis": db.URL(), "history": "log:*=10/1m", "default-rooms": "tea,log:1"}
	two := serveLogging(t, options, other)
	options["api"], options["api-keys"] = "localhost:0", "shop="+testKey
	one := serveLogging(t, options, log)
	met(t, log, other)
	ada, grace := one.dial("ada"), two.dial("grace")
	publish := func(body string) (int, string) { return one.post("v1/publish", testKey, body) }
	const want = `{"sent":true,"confirmed":"broker","servers":2}` + "\n"
	for _, body := range []string{
		`{"room":"tea","event":"first","data":1}`, `{"room":"log:1","event":"kept","key":"k"}`, `{"room":"log:1","event":"kept","key":"k"}`,
		`{"room":"log:1","event":"last"}`,
	} {
		if status, text := publish(body); status != http.StatusOK || text != want {
			t.Fatalf("%s: %d %s", body, status, text)
		}
	}
	for _, c := range []*client{ada, grace} {
		kept := 0
		for _, event := range []string{"first", "last"} {
			for {
				e, err := c.next()
				if err != nil {
					t.Fatal(err)
				}
				if e.Event == "kept" {
					kept++
				}
				if e.Event == event {
					break
				}
			}
		}
		if kept != 1 {
			t.Errorf("a message was delivered %d times", kept)
		}
	}
	db.Kill()
	const later = `{"room":"tea","event":"later","key":"later"}`
	eventually(t, "an error without Redis", func() bool {
		status, text := publish(later)
		return status == http.StatusServiceUnavailable && strings.Contains(text, "no connection to Redis")
	})
	db.Restart()
	// Before that, Redis would take the message, and pass it on to no server.
	eventually(t, "subscribed again", func() bool {
		_, text := fetch(t, one.url+"readyz")
		return text == "ok\n"
	})
	eventually(t, "sent", func() bool {
		status, _ := publish(later)
		return status == http.StatusOK
	})
	if status, text := publish(later); status != http.StatusOK || !strings.Contains(text, `"repeated":true`) {
		t.Errorf("repeated: %d %s", status, text)
	}
	ada.until("later", nil)
}
