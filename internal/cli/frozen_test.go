//go:build unix

package cli_test

import (
	"context"
	"encoding/json"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/hearthws/hearth/internal/cli"
	"github.com/hearthws/hearth/internal/test/redistest"
)

// A caller is a client of a process.
type caller struct {
	t    *testing.T
	ctx  context.Context
	conn *websocket.Conn
}

func (c *caller) send(event string, data any) {
	c.t.Helper()
	b, err := json.Marshal(map[string]any{"event": event, "data": data, "id": "x"})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.conn.Write(c.ctx, websocket.MessageText, b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *caller) join(room string) { c.send("join", map[string]any{"rooms": []string{room}}) }

// next is the next of these events, and its data; the others are passed over.
func (c *caller) next(events ...string) (event string, data map[string]any) {
	c.t.Helper()
	for {
		_, b, err := c.conn.Read(c.ctx)
		if err != nil {
			c.t.Fatalf("waiting for %q: %v", events, err)
		}
		var e struct {
			Event string
			Data  map[string]any
		}
		if err := json.Unmarshal(b, &e); err != nil {
			c.t.Fatal(err)
		}
		for _, want := range events {
			if e.Event == want {
				return e.Event, e.Data
			}
		}
	}
}

// handled waits until all that the client has sent was handled: no server knows this event, and refuses it at once.
func (c *caller) handled() {
	c.t.Helper()
	c.send("unknown", nil)
	c.next("refused")
}

// in reports whether the client is in a room: only members may speak there.
func (c *caller) in(room string) bool {
	c.t.Helper()
	c.send("say", map[string]any{"room": room, "text": "hello"})
	event, _ := c.next("accepted", "refused")
	return event == "accepted"
}

// id is the client's id, by what it says about itself.
func (c *caller) id() string {
	c.t.Helper()
	room := uuid.NewString()
	c.join(room)
	c.send("say", map[string]any{"room": room, "text": "hello"})
	_, data := c.next("say")
	return data["from"].(map[string]any)["client"].(string)
}

// TestServeOneIsFrozen: while the server of a client stands still, and when it goes on, no client of another server joins
// the room that is named by that client's id.
func TestServeOneIsFrozen(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	db := redistest.Start(t)
	one, two := start(t, "--redis", db.URL()), start(t, "--redis", db.URL())
	for _, p := range []*process{one, two} {
		if !p.met {
			p.until(met)
		}
	}
	victim := (&caller{t, ctx, two.connect(ctx)}).id()
	attacker := &caller{t, ctx, one.connect(ctx)}
	tries := func(when string) {
		t.Helper()
		attacker.join(victim)
		if attacker.in(victim) {
			t.Errorf("%s: the attacker is in the room of another client", when)
		}
	}
	tries("as ever")
	two.signal(syscall.SIGSTOP)
	tries("while the server of that client stands still")
	two.signal(syscall.SIGCONT)
	tries("when it goes on")
	db.Freeze()
	tries("while Redis stands still")
	db.Thaw()
	const secret = "private"
	if code, _, stderr := run(nil, "emit", "--redis", db.URL(), "room", victim, secret, "{}"); code != cli.ExitOK {
		t.Fatalf("emit: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := run(nil, "emit", "--redis", db.URL(), "all", "public", "{}"); code != cli.ExitOK {
		t.Fatalf("emit: exit code %d, %s", code, stderr)
	}
	if event, _ := attacker.next(secret, "public"); event == secret {
		t.Error("the attacker gets what is for another client")
	}
}

// TestServeOneIsGone: after a crash, joins of rooms that are named by UUIDs do not wait for the server that is gone.
func TestServeOneIsGone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	db := redistest.Start(t)
	one, two := start(t, "--redis", db.URL()), start(t, "--redis", db.URL())
	if !one.met {
		one.until(met)
	}
	c := &caller{t, ctx, one.connect(ctx)}
	two.signal(syscall.SIGKILL)
	two.wait()
	const joins = 5
	began := time.Now()
	rooms := make([]string, joins)
	for i := range rooms {
		rooms[i] = uuid.NewString()
		c.join(rooms[i])
		c.handled()
	}
	// Each join that asked the server that is gone would take two seconds.
	if took := time.Since(began); took > joins*time.Second {
		t.Errorf("%d joins took %v", joins, took)
	}
	for _, room := range rooms {
		if !c.in(room) {
			t.Errorf("the client is not in the room %s", room)
		}
	}
}
