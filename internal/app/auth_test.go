package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/hearthws/hearth/internal/app"
)

const jwtSecret = "0123456789abcdef0123456789abcdef"

// token returns a token with the claims. It expires in an hour unless they say otherwise.
func token(t *testing.T, claims jwt.MapClaims) string {
	t.Helper()
	if claims["exp"] == nil {
		claims["exp"] = time.Now().Add(time.Hour).Unix()
	}
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(jwtSecret))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// open opens a connection and sends authenticate with the extension.
func (s *server) open(data any) *client {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, s.ws(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { ws.CloseNow() })
	ws.SetReadLimit(1 << 20)
	c := &client{t: s.t, c: ws}
	c.authenticate(data)
	return c
}

func (c *client) authenticate(data any) {
	c.t.Helper()
	b, err := json.Marshal(map[string]any{"event": "authenticate", "data": data, "hearth": map[string]any{"version": 1}, "id": "auth"})
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(string(b))
}

// wantClosed fails unless the connection is closed with the code.
func (c *client) wantClosed(code websocket.StatusCode) {
	c.t.Helper()
	for {
		_, err := c.next()
		if err == nil {
			continue
		}
		if got := websocket.CloseStatus(err); got != code {
			c.t.Errorf("closed with %d (%v), want %d", got, err, code)
		}
		return
	}
}

// joinAnswer is the answer to a join.
type joinAnswer struct {
	Joined   []struct{ Room string }
	Rejected []struct{ Room, Code string }
}

func (c *client) joinRooms(rooms ...string) (joined, rejected []string) {
	c.t.Helper()
	b, _ := json.Marshal(map[string]any{"event": "join", "data": map[string]any{"rooms": rooms}})
	c.send(string(b))
	var a joinAnswer
	c.want("join", &a)
	for _, j := range a.Joined {
		joined = append(joined, j.Room)
	}
	for _, r := range a.Rejected {
		rejected = append(rejected, r.Room)
	}
	return joined, rejected
}

func serveJWT(t *testing.T, options map[string]string, log *slog.Logger) *server {
	t.Helper()
	all := map[string]string{"auth": "jwt", "jwt-secret": jwtSecret}
	for name, value := range options {
		all[name] = value
	}
	return serveTo(t, all, log)
}

func TestJWT(t *testing.T) {
	t.Parallel()
	s := serveJWT(t, nil, slog.New(slog.DiscardHandler))
	c := s.open(map[string]string{"token": token(t, jwt.MapClaims{"sub": "ada", "rooms": []string{"mine", "too"}})})
	var connected struct{ ID, UserID string }
	c.want("connected", &connected)
	if connected.UserID != "ada" {
		t.Errorf("connected as %q", connected.UserID)
	}
	joined, rejected := c.joinRooms("mine", "other")
	if d := cmp.Diff([][]string{{"mine"}, {"other"}}, [][]string{joined, rejected}); d != "" {
		t.Error(d)
	}
	c.send(`{"event":"leave","data":{"rooms":["mine","too"]},"id":"2"}`)
	var left struct{ Left []string }
	c.want("leave", &left)
	if d := cmp.Diff([]string{"mine", "too"}, left.Left); d != "" {
		t.Errorf("the client was not in the rooms of its token: %s", d)
	}
	c.send(`{"event":"say","data":{},"id":"3"}`)
	var e struct{ Code string }
	if c.want("error", &e); e.Code != "unknown_event" {
		t.Errorf("the demo handles messages: %q", e.Code)
	}
	if resp, _ := s.get(plainClient(t), "GET", "/", nil); resp.StatusCode != 404 {
		t.Errorf("there is a demo page: %d", resp.StatusCode)
	}
}

func TestJWTRejects(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	s := serveJWT(t, map[string]string{"admin": "localhost:0"}, slog.New(slog.NewTextHandler(&log, nil)))
	for name, data := range map[string]any{
		"expired":   map[string]string{"token": token(t, jwt.MapClaims{"sub": "ada", "exp": time.Now().Add(-time.Hour).Unix()})},
		"malformed": map[string]string{"token": "secret-looking-text"},
		"too_large": map[string]string{"token": strings.Repeat("x", 9<<10)},
		"no token":  map[string]string{"name": "ada"},
		"a text":    "token",
	} {
		c := s.open(data)
		c.wantClosed(4003)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	_, metrics := fetch(t, s.admin+"metrics")
	for _, want := range []string{"expired", "malformed", "too_large"} {
		if !strings.Contains(metrics, fmt.Sprintf("\nhearth_tokens_total{result=%q} 1\n", want)) {
			t.Errorf("a token that is %s was not counted once", want)
		}
	}
	problems, err := promlint.New(strings.NewReader(metrics)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	if err := s.stop(); err != nil { // flushes the log
		t.Fatal(err)
	}
	if text := log.String(); !strings.Contains(text, "rejected a token") || !strings.Contains(text, "reason=") || strings.Contains(text, "secret-looking") {
		t.Errorf("log: %s", text)
	}
}

func TestJWTExpires(t *testing.T) {
	t.Parallel()
	s := serveJWT(t, map[string]string{"jwt-leeway": "0"}, slog.New(slog.DiscardHandler))
	c := s.open(map[string]string{"token": token(t, jwt.MapClaims{"sub": "ada", "exp": time.Now().Add(2 * time.Second).Unix()})})
	c.want("connected", nil)
	c.wantClosed(4005)
}

// TestJWTAgain checks that new credentials replace the rooms of the old ones.
func TestJWTAgain(t *testing.T) {
	t.Parallel()
	s := serveJWT(t, map[string]string{"default-rooms": "news"}, slog.New(slog.DiscardHandler))
	c := s.open(map[string]string{"token": token(t, jwt.MapClaims{"sub": "ada", "rooms": []string{"a", "b", "news"}})})
	c.want("connected", nil)
	c.authenticate(map[string]string{"token": token(t, jwt.MapClaims{"sub": "ada", "rooms": []string{"b", "c"}})})
	c.want("authenticate", nil)
	c.send(`{"event":"leave","data":{"rooms":["a","b","c","news"]},"id":"2"}`)
	var left struct{ Left []string }
	c.want("leave", &left)
	if d := cmp.Diff([]string{"b", "c", "news"}, left.Left); d != "" {
		t.Error(d)
	}
	if joined, rejected := c.joinRooms("a", "c"); len(joined) != 1 || len(rejected) != 1 {
		t.Errorf("joined %v, rejected %v", joined, rejected)
	}
}

// TestJWTAgainOfAnother checks that credentials of another user change nothing.
func TestJWTAgainOfAnother(t *testing.T) {
	t.Parallel()
	s := serveJWT(t, nil, slog.New(slog.DiscardHandler))
	c := s.open(map[string]string{"token": token(t, jwt.MapClaims{"sub": "ada", "rooms": []string{"a"}})})
	c.want("connected", nil)
	c.authenticate(map[string]string{"token": token(t, jwt.MapClaims{"sub": "bob", "rooms": []string{"b"}})})
	c.want("error", nil)
	if joined, _ := c.joinRooms("a", "b"); len(joined) != 1 || joined[0] != "a" {
		t.Errorf("joined %v", joined)
	}
}

func TestAnonymous(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"auth": "anonymous"})
	c := s.open(nil)
	var connected struct{ ID, UserID string }
	c.want("connected", &connected)
	if connected.UserID != "" || connected.ID == "" {
		t.Errorf("connected as %+v", connected)
	}
	if joined, _ := c.joinRooms("a"); len(joined) != 0 {
		t.Errorf("joined %v without a rule", joined)
	}
}

// TestOpenAddresses checks which ways to authenticate allow other machines to connect.
func TestOpenAddresses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		flags map[string][]string
		want  string // in the error; empty: no error
	}{
		{map[string][]string{"listen": {":0"}}, "--auth jwt"},
		{map[string][]string{"listen": {":0"}, "auth": {"anonymous"}}, ""},
		{map[string][]string{"listen": {":0"}, "auth": {"jwt"}}, "jwt-secret-file"},
		{map[string][]string{"listen": {":0"}, "auth": {"jwt"}, "jwt-secret": {jwtSecret}}, ""},
		{map[string][]string{"jwt-secret": {jwtSecret}}, "--auth jwt"},
		{map[string][]string{"auth": {"jwt"}, "jwt-secret": {"short"}}, "at least 32"},
		{map[string][]string{"auth": {"jwt"}, "jwt-secret": {"HIDDEN"}}, "the secret itself"},
		{map[string][]string{"auth": {"jwt"}, "jwt-secret": {jwtSecret}, "jwt-jwks-url": {"https://a.example"}}, "only one of them"},
		{map[string][]string{"auth": {"jwt"}, "jwt-previous-secret": {jwtSecret}}, "jwt-secret"},
		{map[string][]string{"auth": {"jwt"}, "jwt-secret": {jwtSecret}, "jwt-algorithms": {"none"}}, "HS256"},
		{map[string][]string{"auth": {"jwt"}, "jwt-jwks-url": {"http://a.example"}}, "https"},
		{map[string][]string{"auth": {"jwt"}, "jwt-public-key": {"nowhere.pem"}}, "nowhere.pem"},
		{map[string][]string{"auth": {"jwt"}, "jwt-secret": {jwtSecret}, "jwt-user-claim": {""}}, "name of a claim"},
	} {
		_, settings, err := app.Load(app.Sources{Flags: tt.flags})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.flags, err, tt.want)
		}
		if out := app.WriteYAML(settings); strings.Contains(out, jwtSecret) || err != nil && strings.Contains(err.Error(), jwtSecret) {
			t.Errorf("%v: the secret is printed: %s %v", tt.flags, out, err)
		}
	}
}

// TestSecretFiles checks where a secret comes from when it, or its file, is set in several layers.
func TestSecretFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, long := file("good", jwtSecret+"\n"), file("long", strings.Repeat("x", 65<<10))
	config := file("hearth.yaml", "auth: jwt\njwt-secret: another-secret-another-secret-an\n")
	for _, tt := range []struct {
		name  string
		src   app.Sources
		value string // empty: an error
		want  string
	}{
		{"flag", app.Sources{Flags: map[string][]string{"auth": {"jwt"}, "jwt-secret-file": {good}}}, jwtSecret, ""},
		{"variable over file", app.Sources{File: &config, Environ: []string{"HEARTH_JWT_SECRET_FILE=" + good}}, jwtSecret, ""},
		{"secret over its file", app.Sources{File: &config, Environ: []string{"HEARTH_JWT_SECRET_FILE=" + good}, Flags: map[string][]string{"jwt-secret": {strings.Repeat("f", 32)}}}, strings.Repeat("f", 32), ""},
		{"both", app.Sources{Environ: []string{"HEARTH_AUTH=jwt", "HEARTH_JWT_SECRET_FILE=" + good, "HEARTH_JWT_SECRET=" + jwtSecret}}, "", "only one of them"},
		{"missing", app.Sources{Flags: map[string][]string{"auth": {"jwt"}, "jwt-secret-file": {filepath.Join(dir, "no")}}}, "", "read the secret"},
		{"large", app.Sources{Flags: map[string][]string{"auth": {"jwt"}, "jwt-secret-file": {long}}}, "", "64 KiB"},
		{"empty", app.Sources{Flags: map[string][]string{"auth": {"jwt"}, "jwt-secret-file": {file("empty", "\n")}}}, "", "empty"},
	} {
		cfg, settings, err := app.Load(tt.src)
		switch {
		case tt.value == "":
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
			if _, ok := errors.AsType[*app.OptionError](err); !ok {
				t.Errorf("%s: not an OptionError", tt.name)
			}
		case err != nil || cfg.JWT.Secret != tt.value:
			t.Errorf("%s: secret %q, %v", tt.name, cfg.JWT.Secret, err)
		case bytes.Contains([]byte(app.WriteYAML(settings)), []byte(tt.value)):
			t.Errorf("%s: the secret is printed", tt.name)
		}
	}
}
