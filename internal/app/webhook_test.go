package app_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/hearthws/hearth/internal/app"
)

const webhookSecret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// TestWebhook authenticates clients by a cookie of the handshake, and by credentials.
func TestWebhook(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var event struct {
			Data struct {
				Credentials struct{ Name string }
				Again       bool
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil || r.Header.Get("Webhook-Signature") == "" {
			t.Errorf("%v, %v", err, r.Header)
		}
		name := event.Data.Credentials.Name
		if cookie, err := r.Cookie("session"); err == nil {
			name = cookie.Value
		}
		switch {
		case r.Header.Get("X-Other") != "":
			t.Error("a header was forwarded that is not listed")
		case name == "eve":
			w.WriteHeader(http.StatusForbidden)
		case name == "fail":
			w.WriteHeader(http.StatusInternalServerError)
		case event.Data.Again:
			io.WriteString(w, `{"user":"ada","claims":{"team":"blue"}}`)
		default:
			io.WriteString(w, `{"user":"`+name+`","rooms":["r"],"claims":{"team":"red"}}`)
		}
	}))
	t.Cleanup(backend.Close)
	s := serve(t, map[string]string{
		"auth": "webhook", "webhook-url": backend.URL, "webhook-secret": webhookSecret, "webhook-headers": "cookie",
		"allow-join": "team:{claim:team}",
	})
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, s.ws(), &websocket.DialOptions{HTTPHeader: http.Header{"Cookie": {"session=ada"}, "X-Other": {"1"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	c := &client{t: t, c: ws}
	c.authenticate(nil)
	var connected struct{ UserID string }
	if c.want("connected", &connected); connected.UserID != "ada" {
		t.Errorf("connected as %q", connected.UserID)
	}
	joined, rejected := c.joinRooms("team:red", "team:blue", "r")
	if d := cmp.Diff([][]string{{"team:red", "r"}, {"team:blue"}}, [][]string{joined, rejected}); d != "" {
		t.Error(d)
	}
	c.authenticate(map[string]string{"name": "ada"})
	c.want("authenticate", nil)
	if joined, _ := c.joinRooms("team:red", "team:blue", "r"); !cmp.Equal(joined, []string{"team:blue"}) {
		t.Errorf("after new credentials joined %v", joined)
	}

	s.open(map[string]string{"name": "bob"}).want("connected", nil)
	for name, want := range map[string]string{"eve": "Authentication failed", "fail": "Authentication error"} {
		c := s.open(map[string]string{"name": name})
		var e struct{ Message string }
		if c.want("error", &e); e.Message != want {
			t.Errorf("%s: %q", name, e.Message)
		}
		c.wantClosed(4003)
	}
}

func TestWebhookErrors(t *testing.T) {
	t.Parallel()
	good := map[string]string{"auth": "webhook", "webhook-url": "https://app.example", "webhook-secret": webhookSecret}
	for _, tt := range []struct {
		name    string
		options map[string]string
		want    string // empty: no error
	}{
		{"good", nil, ""},
		{"no URL", map[string]string{"webhook-url": ""}, "--webhook-url https"},
		{"no secret", map[string]string{"webhook-secret": ""}, "webhook-secret-file"},
		{"short secret", map[string]string{"webhook-secret": "c2hvcnQ="}, "openssl"},
		{"http", map[string]string{"webhook-url": "http://app:3000"}, "webhook-allow-http"},
		{"http allowed", map[string]string{"webhook-url": "http://app:3000", "webhook-allow-http": "true"}, ""},
		{"http here", map[string]string{"webhook-url": "http://localhost:3000"}, ""},
		{"not a URL", map[string]string{"webhook-url": "app.example"}, "takes a URL"},
		{"header", map[string]string{"webhook-headers": "cookie,host"}, "cannot be forwarded"},
		{"cookies of any page", map[string]string{"webhook-headers": "Cookie", "origins": "*"}, "any web page"},
		{"any page without cookies", map[string]string{"origins": "*"}, ""},
		{"timeout", map[string]string{"webhook-timeout": "16s"}, "three times auth-timeout"},
		{"another auth", map[string]string{"auth": "anonymous"}, "--auth webhook"},
	} {
		flags := map[string][]string{}
		for name, value := range good {
			flags[name] = []string{value}
		}
		for name, value := range tt.options {
			flags[name] = []string{value}
		}
		_, settings, err := app.Load(app.Sources{Flags: flags})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if strings.Contains(app.WriteYAML(settings), webhookSecret) {
			t.Errorf("%s: the secret is printed", tt.name)
		}
	}
}
