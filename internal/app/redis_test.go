package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/app"
	"github.com/hearthws/hearth/internal/test/redistest"
)

// logs is a log that a test may read while it is written.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// eventually repeats try until it returns true.
func eventually(t *testing.T, what string, try func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(limit)
	for !try() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("not true within %v: %s", limit, what)
		}
	}
}

// until reads messages up to one with the event, and decodes its data into v.
func (c *client) until(event string, v any) {
	c.t.Helper()
	for {
		e, err := c.next()
		if err != nil {
			c.t.Fatalf("waiting for %q: %v", event, err)
		}
		if e.Event != event {
			continue
		}
		if v != nil {
			if err := json.Unmarshal(e.Data, v); err != nil {
				c.t.Fatal(err)
			}
		}
		return
	}
}

// whole repeats a query until all servers have answered: on a slow machine a server may not answer
// within the second that another one waits. In that case more must be true.
func whole(t *testing.T, clients int, ask func() (n int, more bool)) {
	t.Helper()
	eventually(t, "an answer of all servers", func() bool {
		n, more := ask()
		if n > clients || n < clients && !more {
			t.Errorf("the servers count %d clients, want %d", n, clients)
		}
		return !more
	})
}

// shouted sends a shout and returns the number of receivers that the server reports.
func (c *client) shouted(id string) (clients int, more bool) {
	c.t.Helper()
	c.send(`{"event":"shout","id":"` + id + `","data":{"text":"hello"}}`)
	var a struct {
		ID      string
		Clients int
		More    bool
	}
	for a.ID != id {
		c.until("accepted", &a)
	}
	return a.Clients, a.More
}

// TestTwoServersOnRedis checks that two servers act as one, report the loss of Redis, and act as
// one again afterwards.
func TestTwoServersOnRedis(t *testing.T) {
	t.Parallel()
	db := redistest.Start(t)
	log := &logs{}
	options := map[string]string{"redis": db.URL(), "resync": "true"}
	other := &logs{}
	one, two := serveLogging(t, options, log), serveLogging(t, options, other)
	met(t, log, other)
	web := plainClient(t)
	ada, grace := one.dial("ada"), two.dial("grace")
	ada.join("tea")
	grace.send(`{"event":"join","data":{"rooms":["tea"]}}`)
	var who struct {
		Total, Elsewhere int
		More             bool
		Clients          []struct{ User string }
	}
	whole(t, 2, func() (int, bool) {
		grace.send(`{"event":"who","data":{"room":"tea"}}`)
		grace.until("who", &who)
		return who.Total, who.More
	})
	if who.Elsewhere != 1 || len(who.Clients) != 1 || who.Clients[0].User != "grace" {
		t.Errorf("who is here: %+v", who)
	}
	ada.send(`{"event":"say","id":"m1","data":{"room":"tea","text":"over there"}}`)
	var heard delivery
	if grace.until("say", &heard); heard.Text != "over there" || heard.From.User != "ada" || !heard.Ack {
		t.Errorf("heard %+v", heard)
	}
	whole(t, 2, func() (int, bool) { return ada.shouted("s1") })
	ada.send(`{"event":"whisper","id":"w1","data":{"user":"grace","text":"psst"}}`)
	grace.until("whisper", nil)
	var rooms struct{ Servers int }
	ada.send(`{"event":"rooms"}`)
	if ada.until("rooms", &rooms); rooms.Servers != 2 {
		t.Errorf("%d servers", rooms.Servers)
	}

	ready := func() int {
		resp, body := one.get(web, "GET", "/readyz", nil)
		if resp.StatusCode == 503 && !strings.Contains(body, "cut off from other servers") {
			t.Errorf("not ready: %s", body)
		}
		return resp.StatusCode
	}
	if code := ready(); code != 200 {
		t.Errorf("ready: %d", code)
	}
	db.Kill()
	eventually(t, "not ready", func() bool { return ready() == 503 })
	eventually(t, "why", func() bool {
		_, body := one.get(web, "GET", "/readyz", nil)
		return regexp.MustCompile(`^cut off from other servers: Redis is down since 20\S+Z: refused\n$`).MatchString(body)
	})
	if resp, body := one.get(web, "GET", "/healthz", nil); resp.StatusCode != 200 {
		t.Errorf("healthz without Redis: %d %s", resp.StatusCode, body)
	}
	if n, more := ada.shouted("s2"); n != 1 || !more { // its own server delivers it
		t.Errorf("a shout without Redis went to %d, more: %v", n, more)
	}
	grace.send(`{"event":"who","data":{"room":"tea"}}`)
	if grace.until("who", &who); who.Total != 1 || !who.More {
		t.Errorf("who is here without Redis: %+v", who)
	}
	db.Restart()
	eventually(t, "ready again", func() bool { return ready() == 200 })
	for _, c := range []*client{ada, grace} {
		var r struct {
			Rooms, Targets []string
			Since, Until   time.Time
		}
		c.until("resync", &r)
		if strings.Join(r.Rooms, " ") != "tea ws-default ws-notification" || len(r.Targets) != 3 || !r.Since.Before(r.Until) {
			t.Errorf("resync: %+v", r)
		}
	}
	eventually(t, "a shout to both", func() bool {
		n, more := ada.shouted("s3")
		return n == 2 && !more
	})
	grace.until("shout", nil)
	for line, want := range map[string]int{"receiving from Redis failed, reconnecting": 1, "receiving from Redis resumed": 1, "reason=refused": 2} {
		if n := log.count(line); n != want {
			t.Errorf("the log has %q %d times", line, n)
		}
	}
}

// TestReadyDegraded checks that a server without a Redis permission keeps serving, and reports the
// missing permission without secrets.
func TestReadyDegraded(t *testing.T) {
	t.Parallel()
	db := redistest.Start(t, "user node on >s3cret +@all ~* resetchannels &hearth:* &ws:broadcast &ws:client:* &ws:user:*")
	log := &logs{}
	s := serveLogging(t, map[string]string{"redis": "redis://node:s3cret@" + db.Addr}, log)
	s.dial("ada") // Redis rejects the channels of her rooms
	web := plainClient(t)
	ready := func(want string) {
		t.Helper()
		var body string
		eventually(t, want, func() bool {
			resp, text := s.get(web, "GET", "/readyz", nil)
			body += text
			return resp.StatusCode == 200 && regexp.MustCompile(want).MatchString(text)
		})
		if strings.Contains(body, "s3cret") || strings.Contains(body, db.Addr) {
			t.Errorf("the answer shows %s", body)
		}
	}
	ready(`^ok, but Redis is degraded since 20\S+Z: permission\n$`)
	if log.count("reason=permission channel=ws:room:") == 0 || log.count("s3cret") > 0 {
		t.Errorf("the log: %s", log.b.String())
	}
	db.Do("ACL", "SETUSER", "node", "allchannels")
	ready(`^ok\n$`)
}

// TestServersOnACluster checks that broadcasts work on a Redis cluster, with and without patterns.
func TestServersOnACluster(t *testing.T) {
	t.Parallel()
	url := redistest.StartCluster(t).URL()
	log, other := &logs{}, &logs{}
	one := serveLogging(t, map[string]string{"redis": url}, log)
	two := serveLogging(t, map[string]string{"redis": url, "redis-patterns": "true"}, other)
	met(t, log, other)
	ada, grace, linus := one.dial("ada"), two.dial("grace"), two.dial("linus")
	for name, c := range map[string]*client{"ada": ada, "grace": grace, "linus": linus} {
		whole(t, 3, func() (int, bool) { return c.shouted(name) })
	}
}

// met waits until the servers with these logs know each other.
func met(t *testing.T, all ...*logs) {
	t.Helper()
	for _, log := range all {
		eventually(t, "the other server", func() bool { return log.count("another node joined") > 0 })
	}
}

// serveLogging starts a server that logs to w.
func serveLogging(t *testing.T, options map[string]string, w *logs) *server {
	return serveTo(t, options, slog.New(slog.NewTextHandler(w, nil)))
}

// TestServeWithoutItsRedis checks that the start logs what it waits for, and ends after
// redis-timeout or when it is cancelled.
func TestServeWithoutItsRedis(t *testing.T) {
	t.Parallel()
	load := func(timeout string) (*app.Server, *logs) {
		cfg, _, err := app.Load(app.Sources{Flags: map[string][]string{
			"listen": {"localhost:0"}, "redis": {"redis://:s3cret@127.0.0.1:1"}, "redis-timeout": {timeout},
		}})
		if err != nil {
			t.Fatal(err)
		}
		log := &logs{}
		srv, err := app.New(cfg, slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.Listen(); err != nil {
			t.Fatal(err)
		}
		return srv, log
	}
	t.Run("gives up", func(t *testing.T) {
		t.Parallel()
		srv, log := load("5s") // it logs every three seconds
		err := srv.Run(context.Background())
		if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "redis-timeout") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("run: %v", err)
		}
		if strings.Count(err.Error(), "start") != 1 {
			t.Errorf("the error repeats the operation: %v", err)
		}
		if log.count("waiting for Redis") != 1 || log.count("s3cret") > 0 {
			t.Errorf("the log: %s", log.b.String())
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		srv, log := load("10m")
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- srv.Run(ctx) }() // ends after cancel
		eventually(t, "waiting", func() bool { return log.count("waiting for Redis") > 0 })
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}
