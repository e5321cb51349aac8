package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/hearthws/hearth/internal/app"
)

const grantSecret = "grant-grant-grant-grant-grant-gr"

// signIn returns a client with a token.
func (s *server) signIn(claims jwt.MapClaims) *client {
	s.t.Helper()
	c := s.open(map[string]string{"token": token(s.t, claims)})
	var connected struct{ ID string }
	c.want("connected", &connected)
	c.id = connected.ID
	return c
}

// request sends an event with an id. It returns the data of the answer, or the code of the error.
func (c *client) request(event string, data any) (answer json.RawMessage, code string) {
	c.t.Helper()
	b, err := json.Marshal(map[string]any{"event": event, "data": data, "id": "r"})
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(string(b))
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if _, b, err = c.c.Read(ctx); err != nil { // not next, which skips presence
		c.t.Fatal(err)
	}
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		c.t.Fatal(err)
	}
	switch e.Event {
	case event:
		return e.Data, ""
	case "error":
		var told struct{ Code string }
		if err := json.Unmarshal(e.Data, &told); err != nil {
			c.t.Fatal(err)
		}
		return nil, told.Code
	}
	c.t.Fatalf("the answer to %s is %s %s", event, e.Event, e.Data)
	return nil, ""
}

func TestRoomRules(t *testing.T) {
	t.Parallel()
	s := serveJWT(t, map[string]string{
		"allow-join": "chat:*,user:{user},team:{claim:team}:*", "allow-publish": "chat:*", "allow-presence": "chat:*,user:{user}",
		"allow-history": "chat:*,plain", "history": "chat:*=10/1m",
	}, slog.New(slog.DiscardHandler))
	ada := s.signIn(jwt.MapClaims{"sub": "ada", "team": "red", "rooms": []string{"granted"}})
	bob := s.signIn(jwt.MapClaims{"sub": "bob"})

	joined, rejected := ada.joinRooms("chat:1", "user:ada", "user:bob", "team:red:x", "team:blue:x", "granted", "other")
	if d := cmp.Diff([][]string{{"chat:1", "user:ada", "team:red:x", "granted"}, {"user:bob", "team:blue:x", "other"}}, [][]string{joined, rejected}); d != "" {
		t.Error(d)
	}
	if joined, _ := bob.joinRooms("team::x", "team:red:x", "chat:1"); !cmp.Equal(joined, []string{"chat:1"}) {
		t.Errorf("bob joined %v", joined)
	}

	// A client publishes: all members get the event, with the sender.
	if _, code := bob.request("publish", map[string]any{"room": "team:red:x", "data": 1}); code != "forbidden" {
		t.Errorf("publish to a room without a rule: %q", code)
	}
	if _, code := bob.request("publish", map[string]any{"room": "ws:x"}); code != "invalid" {
		t.Errorf("publish to an invalid room: %q", code)
	}
	if _, code := bob.request("publish", []int{1}); code != "invalid_data" {
		t.Errorf("publish of no object: %q", code)
	}
	bob.send(`{"event":"publish","data":{"room":"chat:1","data":{"n":1.50}}}`)
	var got struct {
		Room string
		From struct{ User, Client string }
		Data json.RawMessage
	}
	ada.want("published", &got)
	if got.Room != "chat:1" || got.From.User != "bob" || got.From.Client != bob.id || string(got.Data) != `{"n":1.50}` {
		t.Errorf("got %+v", got)
	}
	bob.want("published", nil)

	for _, tt := range []struct {
		event string
		data  any
		want  string // the answer, without spaces; * stands for anything
		code  string
	}{
		{"presence", map[string]any{"room": "chat:1"}, `{"room":"chat:1","clients":2,"more":false}`, ""},
		{"presence", map[string]any{"room": "user:ada"}, `{"room":"user:ada","clients":1,"more":false}`, ""},
		{"presence", map[string]any{"room": "user:bob"}, "", "forbidden"},
		{"history", map[string]any{"room": "chat:1"}, `{"room":"chat:1","offset":1,"epoch":"*","messages":[{"offset":1,"epoch":"*","event":"published","data":*}]}`, ""},
		{"history", map[string]any{"room": "chat:1", "after": map[string]any{"offset": 1, "epoch": "other"}}, `{"room":"chat:1",*"messages":[],"unrecovered":true}`, ""},
		{"history", map[string]any{"room": "chat:1", "limit": 0}, "", "invalid"},
		{"history", map[string]any{"room": "chat:1", "limit": 101}, "", "invalid"},
		{"history", map[string]any{"room": "chat:1", "after": map[string]any{"offset": -1}}, "", "invalid_data"},
		{"history", map[string]any{"room": "plain"}, "", "no_history"},
		{"history", map[string]any{"room": "user:ada"}, "", "forbidden"},
		{"grant", map[string]any{"grant": "x"}, "", "forbidden"},
		{"say", map[string]any{}, "", "unknown_event"},
	} {
		answer, code := ada.request(tt.event, tt.data)
		if code != tt.code || !like(string(answer), tt.want) {
			t.Errorf("%s %v: %s %q, want %s %q", tt.event, tt.data, answer, code, tt.want, tt.code)
		}
	}
}

// like compares a text with one in which * stands for anything.
func like(got, want string) bool {
	for i, part := range strings.Split(want, "*") {
		_, rest, ok := strings.Cut(got, part)
		if !ok || i == 0 && !strings.HasPrefix(got, part) {
			return false
		}
		got = rest
	}
	return got == ""
}

// TestHistoryAnswerIsBounded publishes more than fits into an answer.
func TestHistoryAnswerIsBounded(t *testing.T) {
	t.Parallel()
	s := serveJWT(t, map[string]string{"allow-publish": "chat", "allow-history": "chat", "history": "chat=10/1m"}, slog.New(slog.DiscardHandler))
	c := s.signIn(jwt.MapClaims{"sub": "ada"})
	for n := range 4 {
		if _, code := c.request("publish", map[string]any{"room": "chat", "data": fmt.Sprint(n, strings.Repeat("x", 100<<10))}); code != "" {
			t.Fatal(code)
		}
	}
	for _, tt := range []struct {
		after map[string]any
		want  []uint64
	}{{nil, []uint64{3, 4}}, {map[string]any{"offset": 1}, []uint64{2, 3}}} {
		request := map[string]any{"room": "chat"}
		if tt.after != nil {
			answer, _ := c.request("history", map[string]any{"room": "chat", "limit": 1})
			var first struct{ Epoch string }
			if err := json.Unmarshal(answer, &first); err != nil {
				t.Fatal(err)
			}
			tt.after["epoch"] = first.Epoch
			request["after"] = tt.after
		}
		answer, code := c.request("history", request)
		var reply struct{ Messages []struct{ Offset uint64 } }
		if err := json.Unmarshal(answer, &reply); err != nil {
			t.Fatal(err, code)
		}
		var got []uint64
		for _, m := range reply.Messages {
			got = append(got, m.Offset)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("after %v: %s", tt.after, d)
		}
	}
}

func grant(t *testing.T, secret string, claims jwt.MapClaims) string {
	t.Helper()
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestGrantEvent(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"auth": "anonymous", "grant-secret": grantSecret, "allow-presence": "order:7"})
	c := s.open(nil)
	c.want("connected", nil)
	soon := time.Now().Add(time.Minute).Unix()
	for _, bad := range []string{
		"", "rubbish", grant(t, jwtSecret, jwt.MapClaims{"room": "order:7", "exp": soon}),
		grant(t, grantSecret, jwt.MapClaims{"room": "order:7", "exp": time.Now().Add(-time.Hour).Unix()}),
		grant(t, grantSecret, jwt.MapClaims{"room": "order:7", "exp": soon, "sub": "ada"}),
	} {
		if _, code := c.request("grant", map[string]string{"grant": bad}); code != "forbidden" {
			t.Errorf("a bad grant: %q", code)
		}
	}
	answer, code := c.request("grant", map[string]string{"grant": grant(t, grantSecret, jwt.MapClaims{"room": "order:7", "exp": soon})})
	if code != "" || string(answer) != `{"room":"order:7"}` {
		t.Errorf("%s %s", answer, code)
	}
	if answer, _ := c.request("presence", map[string]string{"room": "order:7"}); !strings.Contains(string(answer), `"clients":1`) {
		t.Errorf("the client is not in the room: %s", answer)
	}
}

// TestAgainLosesRooms checks that a client leaves the rooms that only its old claims allow.
func TestAgainLosesRooms(t *testing.T) {
	t.Parallel()
	s := serveJWT(t, map[string]string{"allow-join": "team:{claim:team},lobby"}, slog.New(slog.DiscardHandler))
	c := s.signIn(jwt.MapClaims{"sub": "ada", "team": "red"})
	c.joinRooms("team:red", "lobby")
	c.authenticate(map[string]string{"token": token(t, jwt.MapClaims{"sub": "ada", "team": "blue"})})
	c.want("authenticate", nil)
	c.send(`{"event":"leave","data":{"rooms":["team:red","lobby"]}}`)
	var left struct{ Left []string }
	c.want("leave", &left)
	if d := cmp.Diff([]string{"lobby"}, left.Left); d != "" {
		t.Error(d)
	}
	if joined, _ := c.joinRooms("team:red", "team:blue"); !cmp.Equal(joined, []string{"team:blue"}) {
		t.Errorf("joined %v", joined)
	}
}

func TestRuleErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		flags map[string][]string
		want  []string
	}{
		{map[string][]string{"allow-join": {"chat:*"}}, []string{"--allow-join", "development"}},
		{map[string][]string{"grant-secret": {grantSecret}}, []string{"--grant-secret", "development"}},
		{map[string][]string{"auth": {"anonymous"}, "allow-join": {"{usr}"}}, []string{"--allow-join", "{user}"}},
		{map[string][]string{"auth": {"anonymous"}, "allow-publish": {"a,**"}}, []string{"--allow-publish", `"**"`, "between two variables"}},
		{map[string][]string{"auth": {"anonymous"}, "grant-secret": {"short"}}, []string{"--grant-secret", "at least 32"}},
		{map[string][]string{"auth": {"anonymous"}, "grant-previous-secret": {grantSecret}}, []string{"--grant-previous-secret", "grant-secret"}},
		{map[string][]string{"auth": {"jwt"}, "jwt-secret": {jwtSecret}, "grant-secret": {jwtSecret}}, []string{"--grant-secret", "another one"}},
	} {
		_, settings, err := app.Load(app.Sources{Flags: tt.flags})
		if err == nil {
			t.Errorf("%v is accepted", tt.flags)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %v, want %q", tt.flags, err, want)
			}
		}
		if strings.Contains(err.Error()+app.WriteYAML(settings), grantSecret) {
			t.Errorf("%v: the secret is shown", tt.flags)
		}
	}
}
