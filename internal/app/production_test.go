package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/hearthws/hearth/internal/app"
)

// script connects from a page, joins a room and publishes to it. The page shows what it receives.
const script = `<!doctype html><title>another origin</title><pre id="log"></pre><script>
const log = (line) => (document.querySelector("#log").textContent += line + "\n");
const ws = new WebSocket(%q);
const send = (m) => ws.send(JSON.stringify(m));
ws.onopen = () => send({ event: "authenticate", data: { token: %q } });
ws.onmessage = ({ data }) => {
  const m = JSON.parse(data);
  log(m.event + " " + JSON.stringify(m.data));
  if (m.event === "connected") {
    send({ event: "join", data: { rooms: ["chat:1"] } });
    send({ event: "publish", data: { room: "chat:1", data: { text: "hello" } } });
  }
};
ws.onclose = (e) => log("closed " + e.code);
</script>`

// TestBrowserFromAnotherOrigin uses a server with tokens and rules as an application does: by a
// page that another server serves.
func TestBrowserFromAnotherOrigin(t *testing.T) {
	t.Parallel()
	b := browser(t)
	var page string // set before the first request
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, page)
	}))
	t.Cleanup(application.Close)
	for name, tt := range map[string]struct{ origins, want string }{
		"listed":     {application.URL, `"from":{"user":"ada"`},
		"not listed": {"https://app.example", "closed 1006"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveJWT(t, map[string]string{"origins": tt.origins, "allow-join": "chat:*", "allow-publish": "chat:*"}, slog.New(slog.DiscardHandler))
			page = fmt.Sprintf(script, s.ws(), token(t, jwt.MapClaims{"sub": "ada"}))
			ctx, cancel := chromedp.NewContext(b)
			defer cancel()
			tab := &tab{t: t, ctx: ctx}
			tab.do(chromedp.Navigate(application.URL))
			tab.until(fmt.Sprintf(`document.querySelector("#log").textContent.includes(%q)`, tt.want))
		})
	}
}

// TestResumeWithToken checks that a client that resumes keeps what its token says.
func TestResumeWithToken(t *testing.T) {
	t.Parallel()
	s := serveJWT(t, map[string]string{"resume": "true", "allow-join": "team:{claim:team}"}, slog.New(slog.DiscardHandler))
	dial := func(authenticate string) *client {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		ws, _, err := websocket.Dial(ctx, s.ws(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ws.CloseNow() })
		c := &client{t: t, c: ws}
		c.send(authenticate)
		return c
	}
	const extension = `"hearth":{"version":1,"features":["resume"]`
	first := dial(fmt.Sprintf(`{"event":"authenticate","data":{"token":%q},%s}}`, token(t, jwt.MapClaims{"sub": "ada", "team": "red", "rooms": []string{"mine"}}), extension))
	first.want("connected", nil)
	var ticket struct{ Ticket string }
	first.want("hearth:ticket", &ticket)
	first.c.CloseNow()

	second := dial(fmt.Sprintf(`{"event":"authenticate",%s,"ticket":%q}}`, extension, ticket.Ticket))
	var connected struct{ UserID string }
	if second.want("connected", &connected); connected.UserID != "ada" {
		t.Errorf("resumed as %q", connected.UserID)
	}
	second.want("hearth:ticket", nil)
	joined, rejected := second.joinRooms("team:red", "team:blue", "mine")
	if d := cmp.Diff([][]string{{"team:red", "mine"}, {"team:blue"}}, [][]string{joined, rejected}); d != "" {
		t.Error(d)
	}
}

// TestReloadKeepsOnError changes rules and the URL of a key set while clients are connected.
func TestReloadKeepsOnError(t *testing.T) {
	t.Parallel()
	key := `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
	issuer := func(answer string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) }))
		t.Cleanup(server.Close)
		return server.URL
	}
	load := func(jwks, publish string) []app.Setting {
		t.Helper()
		_, settings, err := app.Load(app.Sources{Flags: map[string][]string{
			"listen": {"localhost:0"}, "auth": {"jwt"}, "jwt-jwks-url": {jwks}, "allow-publish": {publish},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return settings
	}
	good, better, bad := issuer(key), issuer(key), issuer("<html>")
	s := serveTo(t, map[string]string{"auth": "jwt", "jwt-jwks-url": good, "allow-publish": "a"}, slog.New(slog.DiscardHandler))
	current := load(good, "a")
	for _, tt := range []struct {
		name          string
		jwks, publish string
		want          []string // changed; nil: an error
	}{
		{"nothing", good, "a", []string{}},
		{"rules", good, "b", []string{"allow-publish"}},
		{"a key set that cannot be loaded", bad, "c", nil},
		{"another key set", better, "d", []string{"jwt-jwks-url", "allow-publish"}},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		if tt.want == nil {
			ctx, cancel = context.WithCancel(t.Context())
			cancel() // do not wait for the key set
		}
		got, err := s.srv.Reload(ctx, current, load(tt.jwks, tt.publish))
		cancel()
		if tt.want == nil {
			if err == nil || !strings.Contains(err.Error(), bad) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if d := cmp.Diff(tt.want, append([]string{}, got.Applied...)); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
		current = got.Settings
	}
}

// TestReloadRules checks that changed rules apply to clients that are connected, and that a mistake
// leaves the old ones.
func TestReloadRules(t *testing.T) {
	t.Parallel()
	load := func(publish string) []app.Setting {
		t.Helper()
		_, settings, err := app.Load(app.Sources{Flags: map[string][]string{
			"listen": {"localhost:0"}, "auth": {"jwt"}, "jwt-secret": {jwtSecret}, "allow-publish": {publish},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return settings
	}
	s := serveJWT(t, map[string]string{"allow-publish": "a"}, slog.New(slog.DiscardHandler))
	c := s.signIn(jwt.MapClaims{"sub": "ada"})
	publish := func(room string) string {
		t.Helper()
		_, code := c.request("publish", map[string]any{"room": room, "data": json.RawMessage("1")})
		return code
	}
	if publish("a") != "" || publish("b") != "forbidden" {
		t.Error("the first rules are not in effect")
	}
	if _, err := s.srv.Reload(t.Context(), load("a"), load("b")); err != nil {
		t.Fatal(err)
	}
	if publish("a") != "forbidden" || publish("b") != "" {
		t.Error("the second rules are not in effect")
	}
}
