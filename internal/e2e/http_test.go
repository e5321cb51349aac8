package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth"
)

// tryHandshake sends a handshake with the given headers changed, and returns the answer.
func (r *rig) tryHandshake(target string, change map[string]string) *http.Response {
	r.t.Helper()
	conn, err := r.dial()
	must(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	headers := map[string]string{
		"Host": "hearth.test", "Upgrade": "websocket", "Connection": "Upgrade",
		"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	}
	for name, value := range change {
		headers[name] = value
	}
	method, path, found := strings.Cut(target, " ")
	if !found {
		method, path = "GET", target
	}
	req := method + " " + path + " HTTP/1.1\r\n"
	for name, value := range headers {
		for _, v := range strings.Split(value, "|") {
			if v != "" {
				req += name + ": " + v + "\r\n"
			}
		}
	}
	_, err = conn.Write([]byte(req + "\r\n"))
	must(r.t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(r.t, err)
	return resp
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport})
		rejected := uint64(0)
		for _, c := range []struct {
			name, target string
			change       map[string]string
			status       int
			header       string // that the answer must have
		}{
			{"valid", "/ws", nil, 101, ""},
			{"a query", "/ws?token=1", nil, 101, ""},
			{"a list of tokens", "/ws", map[string]string{"Connection": "keep-alive, upgrade", "Upgrade": "h2c, WebSocket"}, 101, ""},
			{"another path", "/", nil, 404, ""},
			{"a longer path", "/ws/", nil, 404, ""},
			{"another method", "POST /ws", nil, 405, "Allow"},
			{"no upgrade", "/ws", map[string]string{"Upgrade": ""}, 426, "Upgrade"},
			{"another upgrade", "/ws", map[string]string{"Upgrade": "h2c"}, 426, "Upgrade"},
			{"no connection header", "/ws", map[string]string{"Connection": "keep-alive"}, 400, ""},
			{"an old version", "/ws", map[string]string{"Sec-WebSocket-Version": "8"}, 426, "Sec-Websocket-Version"},
			{"no version", "/ws", map[string]string{"Sec-WebSocket-Version": ""}, 426, "Sec-Websocket-Version"},
			{"no key", "/ws", map[string]string{"Sec-WebSocket-Key": ""}, 400, ""},
			{"a short key", "/ws", map[string]string{"Sec-WebSocket-Key": "c2hvcnQ="}, 400, ""},
			{"two keys", "/ws", map[string]string{"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==|dGhlIHNhbXBsZSBub25jZQ=="}, 400, ""},
			{"a foreign origin", "/ws", map[string]string{"Origin": "https://evil.test"}, 403, ""},
		} {
			resp := r.tryHandshake(c.target, c.change)
			if resp.StatusCode != c.status || (c.header != "" && resp.Header.Get(c.header) == "") {
				t.Errorf("%s: %s %v", c.name, resp.Status, resp.Header)
			}
			otherHandler := c.status == 404 // answered by another handler
			if c.status != 101 && !otherHandler {
				rejected++
			}
		}
		if s := r.Stats(); s.HandshakesRejected != rejected {
			t.Errorf("%d handshakes were rejected, want %d", s.HandshakesRejected, rejected)
		}
	})
}

// TestMounting checks that the handler serves on any path on which it is mounted: Config.Path is
// for Serve.
func TestMounting(t *testing.T) {
	t.Parallel()
	srv, err := hearth.New(config{Authenticate: accept, Path: "/elsewhere"})
	must(t, err)
	must(t, srv.Start(t.Context()))
	mux := http.NewServeMux()
	mux.Handle("/realtime", srv)
	mux.Handle("/tenants/", http.StripPrefix("/tenants", srv))
	web := httptest.NewServer(mux)
	t.Cleanup(func() {
		must(t, srv.Shutdown(context.Background()))
		web.Close()
	})
	for path, want := range map[string]int{"/realtime": 101, "/tenants/7/ws": 101, "/realtime?x=1": 101, "/elsewhere": 404, "/ws": 404} {
		conn, resp, err := websocket.Dial(t.Context(), web.URL+path, nil)
		if err == nil {
			conn.CloseNow()
		}
		if resp == nil || resp.StatusCode != want {
			t.Errorf("%s: %v, %v, want %d", path, resp, err, want)
		}
	}
}

// TestEarlyData checks that frames in the same segment as the handshake are not lost.
func TestEarlyData(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport})
		conn, err := r.dial()
		must(t, err)
		early := frameOf(0x80|opText, []byte(`{"event":"authenticate","data":{"as":"u"}}`))
		w, err := upgrade(conn, append(early, frameOf(0x80|opPing, []byte("p"))[:3]...)...)
		must(t, err)
		_, err = conn.Write(frameOf(0x80|opPing, []byte("p"))[3:])
		must(t, err)
		p := newPeer(t, w)
		p.welcome()
		if pong, ok := p.pongs.take(answer); !ok || pong != "p" {
			t.Errorf("pong %q", pong)
		}
	})
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg      config
		allowed  string
		rejected string
	}{
		"the host itself": {
			config{}, " http://hearth.test https://hearth.test HTTPS://Hearth.TEST",
			"https://evil.test https://hearth.test.evil.test https://hearth.test:8443 null https://evil.test/hearth.test hearth.test file:// https://a.hearth.test",
		},
		"an empty list": {config{Upgrade: hearth.Upgrade{Origins: []string{}}}, " https://hearth.test", "https://evil.test null"},
		"any":           {config{Upgrade: hearth.Upgrade{Origins: []string{"*"}}}, " https://evil.test null", ""},
		"a list": {
			config{Upgrade: hearth.Upgrade{Origins: []string{"https://app.test:443", "http://localhost:3000", "https://*.wild.test"}}},
			" https://app.test https://APP.test http://localhost:3000 https://hearth.test https://a.wild.test",
			"http://app.test http://localhost http://localhost:3001 https://app.test:444 null https://wild.test https://app.test/ https://me@app.test",
		},
		"a function": {
			config{Upgrade: hearth.Upgrade{Origins: []string{"ignored"}, CheckOrigin: func(r *http.Request) bool { return r.Header.Get("Origin") == "x" }}},
			"x", " y",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, c.cfg)
			check := func(origins string, status int) {
				if origins == "" && status == 403 {
					return
				}
				for _, origin := range strings.Split(origins, " ") {
					if resp := r.tryHandshake("/ws", map[string]string{"Origin": origin}); resp.StatusCode != status {
						t.Errorf("origin %q: %s, want %d", origin, resp.Status, status)
					}
				}
			}
			check(c.allowed, 101)
			check(c.rejected, 403)
			if c.cfg.Upgrade.CheckOrigin == nil {
				if resp := r.tryHandshake("/ws", map[string]string{"Origin": "https://hearth.test|https://app.test"}); resp.StatusCode != 403 && name != "any" {
					t.Errorf("two origins: %s", resp.Status)
				}
			}
		})
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	r := start(t, config{Path: "/live/socket"})
	if resp := r.tryHandshake("/live/socket", nil); resp.StatusCode != 101 {
		t.Errorf("the path: %s", resp.Status)
	}
	if resp := r.tryHandshake("/ws", nil); resp.StatusCode != 404 {
		t.Errorf("the default path: %s", resp.Status)
	}
}

func TestLifeCycle(t *testing.T) {
	t.Parallel()
	srv, err := hearth.New(config{Authenticate: accept})
	must(t, err)
	tryHandshake := func() (int, string) {
		rec := httptest.NewRecorder()
		req := httptest.NewRequest("GET", "/ws", nil)
		for name, value := range map[string]string{
			"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
		} {
			req.Header.Set(name, value)
		}
		srv.ServeHTTP(rec, req)
		return rec.Code, rec.Header().Get("Retry-After")
	}
	if status, retry := tryHandshake(); status != 503 || retry == "" {
		t.Errorf("before Start: %d, Retry-After %q", status, retry)
	}
	if err := srv.Shutdown(t.Context()); !errors.Is(err, hearth.ErrNotRunning) {
		t.Errorf("Shutdown before Start: %v", err)
	}
	if err := srv.Local().Send(t.Context(), hearth.ToAll(), "none", 1); !errors.Is(err, hearth.ErrNotRunning) {
		t.Errorf("Broadcast before Start: %v", err)
	}
	must(t, srv.Local().WaitPending(t.Context(), hearth.ToAll(), 0))
	must(t, srv.Start(t.Context()))
	if err := srv.Start(t.Context()); !errors.Is(err, hearth.ErrStarted) {
		t.Errorf("second Start: %v", err)
	}
	if status, _ := tryHandshake(); status != 500 { // a recorder has no connection to take over
		t.Errorf("ServeHTTP without a connection: %d", status)
	}
	must(t, srv.Shutdown(t.Context()))
	if status, _ := tryHandshake(); status != 503 {
		t.Errorf("after Shutdown: %d", status)
	}
	if err := srv.Shutdown(t.Context()); !errors.Is(err, hearth.ErrNotRunning) {
		t.Errorf("second Shutdown: %v", err)
	}
	if err := srv.Start(t.Context()); err == nil {
		t.Error("Start succeeded after Shutdown")
	}
	if err := srv.Local().Send(t.Context(), hearth.ToAll(), "none", 1); !errors.Is(err, hearth.ErrNotRunning) {
		t.Errorf("Broadcast after Shutdown: %v", err)
	}
}

func TestMaxConnections(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport, Limits: hearth.Limits{MaxConnections: 2}})
		first, second := r.member("first"), r.member("second")
		resp := r.tryHandshake("/ws", nil)
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("third client: %s %v, want 503", resp.Status, resp.Header)
		}
		first.bye(1000, "")
		first.wantsClose(1000, "")
		first.wantsEnd()
		// until the server has closed the first client
		for r.tryHandshake("/ws", nil).StatusCode != 101 {
		}
		second.say("heartbeat", "")
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	ok := config{Authenticate: accept}
	for field, change := range map[string][]func(c *config){
		"Authenticate":               {func(c *config) { c.Authenticate = nil }},
		"Path":                       {func(c *config) { c.Path = "ws" }},
		"Transport":                  {func(c *config) { c.Transport = "io_uring" }},
		"Loops":                      {func(c *config) { c.Loops = -1 }, func(c *config) { c.Loops = 257 }},
		"Timeouts.Auth":              {func(c *config) { c.Timeouts.Auth = -1 }, func(c *config) { c.Timeouts.Auth = 1 }},
		"Timeouts.HeartbeatInterval": {func(c *config) { c.Timeouts.HeartbeatInterval = -2 }},
		"Timeouts.Heartbeat":         {func(c *config) { c.Timeouts.Heartbeat = hearth.Disabled }},
		"Timeouts.Idle":              {func(c *config) { c.Timeouts.Idle = 999 }},
		"Timeouts.Close":             {func(c *config) { c.Timeouts.Close = hearth.Disabled }},
		"Limits.MaxPayload":          {func(c *config) { c.Limits.MaxPayload = -1 }, func(c *config) { c.Limits.MaxPayload = 1<<30 + 1 }},
		"Limits.BackpressureLimit":   {func(c *config) { c.Limits.BackpressureLimit = 1 }},
		"DefaultRooms": {
			func(c *config) { c.DefaultRooms = []string{"a", ""} }, func(c *config) { c.DefaultRooms = []string{"ws:a"} },
			func(c *config) { c.DefaultRooms = []string{"a", "b", "a"} }, func(c *config) { c.DefaultRooms = []string{repeat("x", 257)} },
		},
		"Upgrade.Origins": {
			func(c *config) { c.Upgrade.Origins = []string{"example.com"} }, func(c *config) { c.Upgrade.Origins = []string{"https://example.com/"} },
			func(c *config) { c.Upgrade.Origins = []string{"*", "https://example.com"} }, func(c *config) { c.Upgrade.Origins = []string{""} },
			func(c *config) { c.Upgrade.Origins = []string{"https://me@example.com"} }, func(c *config) { c.Upgrade.Origins = []string{"https://a.*.example.com"} },
			func(c *config) { c.Upgrade.Origins = []string{"wss://example.com"} }, func(c *config) { c.Upgrade.Origins = []string{"https://bücher.example"} },
		},
		"Limits.MaxConnections":            {func(c *config) { c.Limits.MaxConnections = -2 }},
		"Limits.MaxUnauthenticated":        {func(c *config) { c.Limits.MaxUnauthenticated = -2 }},
		"Limits.MaxUnauthenticatedPerAddr": {func(c *config) { c.Limits.MaxUnauthenticatedPerAddr = -2 }},
		"Limits.UnauthenticatedMessages":   {func(c *config) { c.Limits.UnauthenticatedMessages = hearth.Unlimited }},
		"Limits.UnauthenticatedPayload": {
			func(c *config) { c.Limits.UnauthenticatedPayload = hearth.Unlimited },
			func(c *config) { c.Limits.MaxPayload, c.Limits.UnauthenticatedPayload = 100, 101 },
			func(c *config) { c.Resume.Enabled, c.Limits.UnauthenticatedPayload = true, 2047 },
		},
		"Limits.RoomNames":   {func(c *config) { c.Limits.RoomNames = -2 }},
		"Limits.MaxRooms":    {func(c *config) { c.Limits.MaxRooms = -2 }},
		"Limits.ClientQueue": {func(c *config) { c.Limits.ClientQueue = 1 }},
		"Limits.SendQueue":   {func(c *config) { c.Limits.SendQueue = 1 }},
		"Limits.MessageRate": {func(c *config) { c.Limits.MessageRate = -2 }},
		"Timeouts.Drain":     {func(c *config) { c.Timeouts.Drain = -1 }, func(c *config) { c.Timeouts.Drain = 1 }},
		"Resumed":            {func(c *config) { c.Resumed = func(context.Context, hearth.ResumeRequest[profile]) error { return nil } }},
		"Resume.Grace": {
			func(c *config) { c.Resume.Enabled, c.Resume.Grace = true, 3*time.Minute },
			func(c *config) { c.Resume.Enabled, c.Resume.Grace = true, time.Millisecond },
			func(c *config) { c.Resume.Grace = 10 * time.Second },
		},
		"Resume.Lifetime": {func(c *config) { c.Resume.Lifetime = time.Millisecond }, func(c *config) { c.Resume.Lifetime = 25 * time.Hour }},
		"Resume.Keys":     {func(c *config) { c.Resume.Keys = make([][]byte, 5) }, func(c *config) { c.Resume.Keys = [][]byte{make([]byte, 31)} }},
		"Limits.ByteRate": {func(c *config) { c.Limits.ByteRate = -2 }},
	} {
		for i, f := range change {
			cfg := ok
			f(&cfg)
			srv, err := hearth.New(cfg)
			if err == nil || srv != nil || !strings.HasPrefix(err.Error(), "hearth: Config."+field+" ") {
				t.Errorf("%s, %d: %v", field, i, err)
			}
		}
	}
	for name, f := range map[string]func(c *config){
		"as it is": func(*config) {},
		"small":    func(c *config) { c.Limits.MaxPayload = 10 },
		"no rooms": func(c *config) { c.DefaultRooms = []string{} },
		"unlimited": func(c *config) {
			c.Limits = hearth.Limits{
				MaxConnections: hearth.Unlimited, MaxUnauthenticated: hearth.Unlimited,
				MaxUnauthenticatedPerAddr: hearth.Unlimited, MaxRooms: hearth.Unlimited, RoomNames: hearth.Unlimited,
			}
		},
		"disabled": func(c *config) { c.Timeouts.HeartbeatInterval, c.Timeouts.Idle = hearth.Disabled, hearth.Disabled },
	} {
		cfg := ok
		f(&cfg)
		if _, err := hearth.New(cfg); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestConfigIsCopied checks that the caller may change its Config after New.
func TestConfigIsCopied(t *testing.T) {
	t.Parallel()
	cfg := config{Authenticate: accept, DefaultRooms: []string{"a"}, Upgrade: hearth.Upgrade{Origins: []string{"https://a.test"}}}
	r := start(t, cfg)
	cfg.DefaultRooms[0], cfg.Upgrade.Origins[0] = "b", "https://b.test"
	if resp := r.tryHandshake("/ws", map[string]string{"Origin": "https://a.test"}); resp.StatusCode != 101 {
		t.Errorf("origin: %s", resp.Status)
	}
	p := r.member("u")
	if rooms := fmt.Sprint(r.client(p).Rooms()); rooms != fmt.Sprint([]string{p.id, "a"}) {
		t.Errorf("rooms: %s", rooms)
	}
}
