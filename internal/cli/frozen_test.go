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
)

// A caller is a client of a server process.
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

// next returns the next message with one of these events, and its data. It ignores other messages.
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

// handled waits until the server has handled everything that the client sent. The server rejects an
// unknown event at once.
func (c *caller) handled() {
	c.t.Helper()
	c.send("unknown", nil)
	c.next("rejected")
}

// in reports whether the client is in a room. The server accepts messages to a room only from
// members.
func (c *caller) in(room string) bool {
	c.t.Helper()
	c.send("say", map[string]any{"room": room, "text": "hello"})
	event, _ := c.next("accepted", "rejected")
	return event == "accepted"
}

// id returns the client's id, which the server puts into each message of the client.
func (c *caller) id() string {
	c.t.Helper()
	room := uuid.NewString()
	c.join(room)
	c.send("say", map[string]any{"room": room, "text": "hello"})
	_, data := c.next("say")
	return data["from"].(map[string]any)["client"].(string)
}

// TestServeOneIsFrozen checks that a client cannot join the room that has the id of a client of
// another server, while that server is stopped and after it continues.
func TestServeOneIsFrozen(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	db, one, two := startTwo(t)
	victim := (&caller{t, ctx, two.connect(ctx)}).id()
	attacker := &caller{t, ctx, one.connect(ctx)}
	tries := func(when string) {
		t.Helper()
		attacker.join(victim)
		if attacker.in(victim) {
			t.Errorf("%s: the attacker is in the room of another client", when)
		}
	}
	tries("normally")
	two.signal(syscall.SIGSTOP)
	tries("while the server of the victim is stopped")
	two.signal(syscall.SIGCONT)
	tries("after it continues")
	db.Freeze()
	tries("while Redis is stopped")
	db.Thaw()
	const secret = "private"
	if code, _, stderr := run(nil, "emit", "--redis", db.URL(), "room", victim, secret, "{}"); code != cli.ExitOK {
		t.Fatalf("emit: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := run(nil, "emit", "--redis", db.URL(), "all", "public", "{}"); code != cli.ExitOK {
		t.Fatalf("emit: exit code %d, %s", code, stderr)
	}
	if event, _ := attacker.next(secret, "public"); event == secret {
		t.Error("the attacker received a message for another client")
	}
}

// TestServeOneIsGone checks that, after a crash of a server, joins of rooms whose names are UUIDs
// do not wait for it.
func TestServeOneIsGone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	_, one, two := startTwo(t)
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
	// Each join would take two seconds if it waited for the crashed server.
	if took := time.Since(began); took > joins*time.Second {
		t.Errorf("%d joins took %v", joins, took)
	}
	for _, room := range rooms {
		if !c.in(room) {
			t.Errorf("the client is not in the room %s", room)
		}
	}
}
