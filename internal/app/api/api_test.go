package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/emitter"
	"github.com/hearthws/hearth/internal/app/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	limit   = 20 * time.Second
	allKey  = "all-scopes-0123456789abcdef0123456789"
	readKey = "read-only-0123456789abcdef0123456789"
	keys    = "all=" + allKey + "\nmonitor:read=" + readKey
)

// A fixture is a server with an API, on a bus that several may share.
type fixture struct {
	t      *testing.T
	srv    *hearth.Server[string, string]
	ws     string
	url    string
	server *httptest.Server

	mu       sync.Mutex // guards observed
	observed map[string]int

	document map[string]any
	schemas  *jsonschema.Compiler
}

var history = broker.HistoryRules{{Rooms: "log:*", Size: 10, Age: time.Minute}}

func newBus() *memory.Bus { return memory.NewBus(memory.Config{History: history}) }

// start starts a server. confirmed makes the API publish through the broker, as with Redis.
func start(t *testing.T, bus *memory.Bus, confirmed bool) *fixture {
	t.Helper()
	f := &fixture{t: t, observed: map[string]int{}}
	b := bus.Broker()
	srv, err := hearth.New(hearth.Config[string, string]{
		Broker: b, Logger: slog.New(slog.DiscardHandler),
		Authenticate: func(_ context.Context, r hearth.AuthRequest[string]) (hearth.Identity[string], error) {
			return hearth.Identity[string]{UserID: r.Credentials}, nil
		},
		ValidateRooms: func(_ context.Context, _ *hearth.Client[string], rooms []string) ([]string, error) { return rooms, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	e, err := emitter.New(b)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := api.ParseKeys(keys)
	if err != nil {
		t.Fatal(err)
	}
	c := api.Config{
		Server: srv, Emitter: e, HasHistory: b.HasHistory, Members: api.MembersOf(srv), Keys: func() *api.Keys { return parsed },
		Log: slog.New(slog.DiscardHandler), Observe: func(operation string, status int, _ time.Duration) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.observed[fmt.Sprint(operation, " ", status)]++
		},
	}
	if confirmed {
		c.Broker = "Redis"
	}
	clients := httptest.NewServer(srv)
	f.server = httptest.NewServer(api.New(c))
	f.srv, f.ws, f.url = srv, strings.Replace(clients.URL, "http", "ws", 1), f.server.URL
	t.Cleanup(func() {
		f.server.Close()
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		clients.Close()
	})
	f.loadDocument()
	return f
}

// loadDocument gets the OpenAPI document, against which do checks all responses.
func (f *fixture) loadDocument() {
	f.t.Helper()
	status, header, body := f.request("GET", "/openapi.json", "", "")
	if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), "application/openapi+json") {
		f.t.Fatalf("the document: %d %v", status, header)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	f.document = document.(map[string]any)
	if v := f.document["openapi"]; v != "3.1.0" {
		f.t.Errorf("the document has version %v", v)
	}
	f.schemas = jsonschema.NewCompiler()
	f.schemas.DefaultDraft(jsonschema.Draft2020)
	f.schemas.AssertFormat()
	if err := f.schemas.AddResource("openapi.json", document); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) request(method, path, key, body string) (int, http.Header, []byte) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := f.server.Client().Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, b
}

// do makes a request, checks the response against the document, and decodes it.
func (f *fixture) do(method, path, key, body string) (int, map[string]any) {
	f.t.Helper()
	status, header, b := f.request(method, path, key, body)
	route, _, _ := strings.Cut(path, "?")
	if status == http.StatusNoContent {
		return status, nil
	}
	media, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	pointer := fmt.Sprintf("openapi.json#/paths/%s/%s/responses/%d/content/%s/schema", escape(route), strings.ToLower(method), status, escape(media))
	schema, err := f.schemas.Compile(pointer)
	if err != nil {
		f.t.Fatalf("%s %s: %d is not in the document: %v\n%s", method, path, status, err, b)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		f.t.Fatal(err)
	}
	if err := schema.Validate(value); err != nil {
		f.t.Errorf("%s %s: the response does not match the document: %v\n%s", method, path, err, b)
	}
	var decoded map[string]any
	if err := json.Unmarshal(b, &decoded); err != nil {
		f.t.Fatal(err)
	}
	if status >= 400 && (media != "application/problem+json" || decoded["status"] != float64(status) || decoded["detail"] == "") {
		f.t.Errorf("%s %s: not a problem: %s %s", method, path, media, b)
	}
	return status, decoded
}

// escape escapes one part of a JSON pointer.
func escape(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1") }

// want makes a request and compares the response.
func (f *fixture) want(method, path, body string, status int, want map[string]any) {
	f.t.Helper()
	got, decoded := f.do(method, path, allKey, body)
	if d := cmp.Diff(want, decoded); got != status || d != "" {
		f.t.Errorf("%s %s %s: %d, want %d: %s", method, path, body, got, status, d)
	}
}

// A client is a WebSocket client.
type client struct {
	t    *testing.T
	conn *websocket.Conn
	id   string
}

func (f *fixture) dial(user string, rooms ...string) *client {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, f.ws, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.CloseNow() })
	c := &client{t: f.t, conn: conn}
	c.write(fmt.Sprintf(`{"event":"authenticate","data":%q}`, user))
	var connected struct{ Data struct{ ID string } }
	if err := json.Unmarshal([]byte(c.read()), &connected); err != nil || connected.Data.ID == "" {
		f.t.Fatalf("not connected: %v", err)
	}
	c.id = connected.Data.ID
	if len(rooms) > 0 {
		here, ok := f.srv.Local().Client(c.id)
		if !ok {
			f.t.Fatal("the client is not there")
		}
		if err := here.Join(ctx, rooms...); err != nil {
			f.t.Fatal(err)
		}
	}
	return c
}

func (c *client) write(text string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := c.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read() string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_, b, err := c.conn.Read(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}

// reads expects these messages, in this order.
func (c *client) reads(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.read(); got != w {
			c.t.Errorf("got %s, want %s", got, w)
		}
	}
}

func ok(extra ...any) map[string]any {
	m := map[string]any{"sent": true, "confirmed": "server", "servers": 1.0}
	for i := 0; i < len(extra); i += 2 {
		m[extra[i].(string)] = extra[i+1]
	}
	return m
}

// TestPublish sends to each kind of target, on both ways.
func TestPublish(t *testing.T) {
	for _, confirmed := range []bool{false, true} {
		t.Run(fmt.Sprintf("confirmed=%v", confirmed), func(t *testing.T) {
			t.Parallel()
			f := start(t, newBus(), confirmed)
			ada, bob := f.dial("ada", "tea"), f.dial("bob", "tea")
			want := ok()
			if confirmed {
				want = ok("confirmed", "broker")
			}
			f.want("POST", "/v1/publish", `{"client":"`+ada.id+`","event":"n","data":{"b": 1,"a":1.50}}`, 200, want)
			f.want("POST", "/v1/publish", `{"user":"ada","event":"n","data":null}`, 200, want)
			f.want("POST", "/v1/publish", `{"room":"tea","event":"n","except":["`+bob.id+`"]}`, 200, want)
			f.want("POST", "/v1/publish", `{"all":true,"event":"end","data":"x"}`, 200, want)
			ada.reads(`{"event":"n","data":{"b": 1,"a":1.50}}`, `{"event":"n","data":null}`, `{"event":"n"}`, `{"event":"end","data":"x"}`)
			bob.reads(`{"event":"end","data":"x"}`)
			f.want("POST", "/v1/publish", `{"user":"no such user","event":"n"}`, 200, want)
		})
	}
}

func TestBatch(t *testing.T) {
	for _, confirmed := range []bool{false, true} {
		t.Run(fmt.Sprintf("confirmed=%v", confirmed), func(t *testing.T) {
			t.Parallel()
			f := start(t, newBus(), confirmed)
			ada := f.dial("ada")
			status, got := f.do("POST", "/v1/batch", allKey, `{"messages":[
				{"user":"ada","event":"n","data":1},
				{"event":"n"},
				{"user":"ada","event":"heartbeat"},
				{"user":"ada","event":"n","except":["x"]},
				{"user":"ada","event":"n","data":2}]}`)
			if status != 200 || got["sent"] != 2.0 || got["failed"] != 3.0 {
				t.Errorf("%d %v", status, got)
			}
			var indexes []float64
			for _, e := range got["errors"].([]any) {
				indexes = append(indexes, e.(map[string]any)["index"].(float64))
				if s := e.(map[string]any)["status"]; s != 422.0 {
					t.Errorf("status %v", s)
				}
			}
			if d := cmp.Diff([]float64{1, 2, 3}, indexes); d != "" {
				t.Error(d)
			}
			ada.reads(`{"event":"n","data":1}`, `{"event":"n","data":2}`)
		})
	}
}

// TestKeysOfMessages repeats messages with a key: they are delivered once.
func TestKeysOfMessages(t *testing.T) {
	for _, confirmed := range []bool{false, true} {
		t.Run(fmt.Sprintf("confirmed=%v", confirmed), func(t *testing.T) {
			t.Parallel()
			f := start(t, newBus(), confirmed)
			ada := f.dial("ada", "log:1")
			for i := range 3 {
				if status, got := f.do("POST", "/v1/publish", allKey, `{"user":"ada","event":"n","data":1,"key":"k"}`); status != 200 || (got["repeated"] == true) != (i > 0) {
					t.Errorf("%d: %d %v", i, status, got)
				}
				if status, got := f.do("POST", "/v1/publish", allKey, `{"room":"log:1","event":"kept","data":1,"key":"k"}`); status != 200 {
					t.Errorf("%d: %d %v", i, status, got)
				}
			}
			if status, got := f.do("POST", "/v1/publish", allKey, `{"user":"ada","event":"n","data":2,"key":"k"}`); status != 422 || !strings.Contains(got["detail"].(string), "another message") {
				t.Errorf("another message: %d %v", status, got)
			}
			// A failed message does not use up its key.
			if status, _ := f.do("POST", "/v1/publish", allKey, `{"user":"ada","event":"","key":"l"}`); status != 422 {
				t.Errorf("status %d", status)
			}
			f.do("POST", "/v1/publish", allKey, `{"user":"ada","event":"end","key":"l"}`)
			seen := map[string]int{}
			for seen[`{"event":"end"}`] == 0 || seen[`{"event":"kept","data":1}`] == 0 {
				seen[ada.read()]++
			}
			if d := cmp.Diff(map[string]int{`{"event":"n","data":1}`: 1, `{"event":"kept","data":1}`: 1, `{"event":"end"}`: 1}, seen); d != "" {
				t.Error(d)
			}
			status, got := f.do("GET", "/v1/history?room=log:1", allKey, "")
			if messages := got["messages"].([]any); status != 200 || len(messages) != 1 {
				t.Errorf("history: %d %v", status, got)
			}
		})
	}
}

// TestTwoServers counts, joins, leaves and disconnects the clients of a user on two servers.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	bus := newBus()
	one, two := start(t, bus, false), start(t, bus, false)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	// Until the servers have found each other.
	for one.srv.Stats().Nodes != 2 || two.srv.Stats().Nodes != 2 {
		<-tick.C
	}
	a, b := one.dial("ada"), two.dial("ada", "tea")
	counted := func(n float64) map[string]any { return map[string]any{"clients": n, "complete": true} }
	one.want("GET", "/v1/count?user=ada", "", 200, counted(2))
	one.want("GET", "/v1/count?room=tea", "", 200, counted(1))
	one.want("GET", "/v1/count?all=true", "", 200, counted(2))
	one.want("GET", "/v1/count?client="+b.id, "", 200, counted(1))
	one.want("POST", "/v1/join", `{"user":"ada","rooms":["x","tea"]}`, 200, counted(2))
	one.want("GET", "/v1/count?room=x", "", 200, counted(2))
	one.want("POST", "/v1/leave", `{"client":"`+b.id+`","rooms":["x"]}`, 200, counted(1))
	one.want("GET", "/v1/count?room=x", "", 200, counted(1))
	one.want("GET", "/v1/members?room=x", "", 200, map[string]any{"server": one.srv.ID(), "total": 1.0, "members": []any{
		map[string]any{"client": a.id, "user": "ada"}}})
	two.want("GET", "/v1/members?room=x", "", 200, map[string]any{"server": two.srv.ID(), "total": 0.0, "members": []any{}})
	one.want("POST", "/v1/publish", `{"room":"tea","event":"n"}`, 200, ok("servers", 2.0))
	a.reads(`{"event":"n"}`)
	b.reads(`{"event":"n"}`)
	status, servers := one.do("GET", "/v1/servers", readKey, "")
	if list := servers["servers"].([]any); status != 200 || len(list) != 2 || list[0].(map[string]any)["id"] != one.srv.ID() {
		t.Errorf("servers: %v", servers)
	}
	one.want("POST", "/v1/disconnect", `{"user":"ada","code":4100,"reason":"bye"}`, 200, counted(2))
	for _, c := range []*client{a, b} {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if _, _, err := c.conn.Read(ctx); websocket.CloseStatus(err) != 4100 {
			t.Errorf("closed with %v", err)
		}
	}
}

func TestHistory(t *testing.T) {
	t.Parallel()
	f := start(t, newBus(), false)
	for i := range 12 {
		f.do("POST", "/v1/publish", allKey, fmt.Sprintf(`{"room":"log:1","event":"n","data":%d}`, i))
	}
	_, all := f.do("GET", "/v1/history?room=log:1", readKey, "")
	position := all["position"].(map[string]any)
	if messages := all["messages"].([]any); len(messages) != 10 || position["offset"] != 12.0 || all["recovered"] != true {
		t.Fatalf("%v", all)
	}
	epoch := position["epoch"].(string)
	_, after := f.do("GET", "/v1/history?room=log:1&offset=10&epoch="+epoch, readKey, "")
	want := map[string]any{"position": position, "recovered": true, "messages": []any{
		map[string]any{"offset": 11.0, "event": "n", "data": 10.0}, map[string]any{"offset": 12.0, "event": "n", "data": 11.0}}}
	if d := cmp.Diff(want, after); d != "" {
		t.Error(d)
	}
	f.want("GET", "/v1/history?room=log:1&offset=1&epoch="+epoch, "", 200, map[string]any{"position": position, "recovered": false, "messages": []any{}})
	if status, got := f.do("GET", "/v1/history?room=tea", readKey, ""); status != 404 || !strings.Contains(got["detail"].(string), "history") {
		t.Errorf("a room without history: %d %v", status, got)
	}
	if status, _ := f.do("DELETE", "/v1/history?room=log:1", allKey, ""); status != 204 {
		t.Errorf("remove: %d", status)
	}
	if _, got := f.do("GET", "/v1/history?room=log:1", readKey, ""); len(got["messages"].([]any)) != 0 {
		t.Errorf("after the removal: %v", got)
	}
}

// TestRejects makes requests that are wrong, each with a text that the answer must have.
func TestRejects(t *testing.T) {
	t.Parallel()
	f := start(t, newBus(), false)
	for _, tt := range []struct {
		method, path, key, body string
		status                  int
		text                    string
	}{
		{"POST", "/v1/publish", "", `{"all":true,"event":"n"}`, 401, "Authorization: Bearer"},
		{"POST", "/v1/publish", allKey + "x", `{"all":true,"event":"n"}`, 401, "Authorization: Bearer"},
		{"POST", "/v1/publish", readKey, `{"all":true,"event":"n"}`, 403, "scope publish"},
		{"POST", "/v1/disconnect", readKey, `{"user":"ada"}`, 403, "scope manage"},
		{"DELETE", "/v1/history?room=log:1", readKey, "", 403, "scope manage"},
		{"POST", "/v1/publish", allKey, `{"event":"n"}`, 422, "exactly one of"},
		{"POST", "/v1/publish", allKey, `{"user":"a","room":"b","event":"n"}`, 422, "exactly one of"},
		{"POST", "/v1/publish", allKey, `{"all":true}`, 422, "event"},
		{"POST", "/v1/publish", allKey, `{"all":true,"event":"connected"}`, 422, "reserved"},
		{"POST", "/v1/publish", allKey, `{"all":true,"event":"n","to":1}`, 422, "to"},
		{"POST", "/v1/publish", allKey, `{"all":"yes","event":"n"}`, 422, "all"},
		{"POST", "/v1/publish", allKey, `{"all":true,"event":"n","data":}`, 400, "invalid character"},
		{"POST", "/v1/publish", allKey, `{"all":true,"event":"n","data":"` + strings.Repeat("x", 4<<20) + `"}`, 413, "too large"},
		{"POST", "/v1/publish", allKey, `{"room":"a","event":"n","key":"` + strings.Repeat("x", 257) + `"}`, 422, "key"},
		{"POST", "/v1/publish", allKey, strings.Repeat("[", 100_000), 400, ""},
		{"POST", "/v1/batch", allKey, `{"messages":[]}`, 422, "messages"},
		{"POST", "/v1/batch", allKey, `{"messages":null}`, 422, "messages"},
		{"POST", "/v1/join", allKey, `{"user":"ada","rooms":null}`, 422, "rooms"},
		{"POST", "/v1/batch", allKey, `{"messages":[` + strings.Repeat(`{"event":"n"},`, 1000) + `{"event":"n"}]}`, 422, "messages"},
		{"POST", "/v1/disconnect", allKey, `{"user":"ada","code":1006}`, 422, "close code"},
		{"POST", "/v1/disconnect", allKey, `{}`, 422, "exactly one of"},
		{"POST", "/v1/join", allKey, `{"user":"ada","rooms":[]}`, 422, "rooms"},
		{"GET", "/v1/count", allKey, "", 422, "exactly one of"},
		{"GET", "/v1/members", allKey, "", 422, "room"},
		{"GET", "/v1/members?room=a&limit=0", allKey, "", 422, "limit"},
		{"GET", "/v1/history?room=log:1&limit=1001", allKey, "", 422, "limit"},
		{"GET", "/v1/history?room=log:1&offset=-1", allKey, "", 422, "offset"},
	} {
		status, got := f.do(tt.method, tt.path, tt.key, tt.body)
		if b, err := json.Marshal(got); err != nil || status != tt.status || !strings.Contains(string(b), tt.text) {
			t.Errorf("%s %s %.80s: %d %s", tt.method, tt.path, tt.body, status, b)
		}
	}
	for _, request := range []string{"GET /v1/publish", "POST /v1/nothing", "GET /"} {
		method, path, _ := strings.Cut(request, " ")
		if status, header, body := f.request(method, path, allKey, ""); status != 404 || header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", request, status, body)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.observed["publish 401"] != 2 || f.observed["none 404"] != 3 {
		t.Errorf("observed %v", f.observed)
	}
}

// TestDocument checks that each operation is described and needs a key.
func TestDocument(t *testing.T) {
	t.Parallel()
	f := start(t, newBus(), false)
	n := 0
	for path, item := range f.document["paths"].(map[string]any) {
		for method, operation := range item.(map[string]any) {
			n++
			o := operation.(map[string]any)
			if o["security"] == nil || o["summary"] == nil || o["description"] == nil || o["operationId"] == nil {
				t.Errorf("%s %s is incomplete", method, path)
			}
		}
	}
	if n != 10 {
		t.Errorf("%d operations", n)
	}
}

// TestStopped expects a clear answer from a server that is not running.
func TestStopped(t *testing.T) {
	t.Parallel()
	srv, err := hearth.New(hearth.Config[string, string]{Logger: slog.New(slog.DiscardHandler), Authenticate: func(context.Context, hearth.AuthRequest[string]) (hearth.Identity[string], error) {
		return hearth.Identity[string]{}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := api.ParseKeys(keys)
	if err != nil {
		t.Fatal(err)
	}
	h := api.New(api.Config{
		Server: srv, HasHistory: func(string) bool { return false }, Members: api.MembersOf(srv), Keys: func() *api.Keys { return parsed }, Log: slog.New(slog.DiscardHandler),
	})
	req := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/publish", strings.NewReader(`{"all":true,"event":"n"}`))
	req.Header.Set("Authorization", "bearer "+allKey)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	if rec.Code != 503 || rec.Header().Get("Retry-After") != "1" || !strings.Contains(rec.Body.String(), "not started") {
		t.Errorf("%d %v %s", rec.Code, rec.Header(), rec.Body)
	}
}
