package app_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

type delivery struct {
	ID   string
	From struct{ User, Client string }
	Room string
	User string
	Text string
	Time string
	Ack  bool
}

type accepted struct {
	ID      string
	Clients int
	Ack     bool
}

// join joins a room and returns when the server has handled it: the server handles the messages of
// a client in order.
func (c *client) join(room string) {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"event":"join","data":{"rooms":[%q]}}`, room))
	c.send(fmt.Sprintf(`{"event":"who","data":{"room":%q}}`, room))
	var who struct {
		Total   int
		Clients []struct{ User, Client string }
	}
	c.want("who", &who)
	for _, m := range who.Clients {
		if m.Client == c.id {
			return
		}
	}
	c.t.Fatalf("%s is not in %s: %+v", c.id, room, who)
}

func TestDemoSay(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	ada, grace, linus := s.dial("ada"), s.dial("grace"), s.dial("linus")
	ada.join("lobby")
	grace.join("lobby")

	ada.send(`{"event":"say","id":"m1","data":{"room":"lobby","text":"hello <b>"}}`)
	for _, c := range []*client{ada, grace} {
		var m delivery
		c.want("say", &m)
		if m.ID != "m1" || m.From.User != "ada" || m.From.Client != ada.id || m.Room != "lobby" || m.Text != "hello <b>" || !m.Ack || m.Time == "" {
			t.Errorf("got %+v", m)
		}
	}
	var a accepted
	ada.want("accepted", &a)
	if a != (accepted{"m1", 2, true}) {
		t.Errorf("accepted %+v", a)
	}

	grace.send(fmt.Sprintf(`{"event":"seen","data":{"id":"m1","to":%q}}`, ada.id))
	var seen struct{ ID, User, Client string }
	ada.want("seen", &seen)
	if seen.ID != "m1" || seen.User != "grace" || seen.Client != grace.id {
		t.Errorf("seen %+v", seen)
	}

	// A client that is not a member neither receives nor sends in the room.
	linus.send(`{"event":"say","id":"x","data":{"room":"lobby","text":"hello"}}`)
	var rejected struct{ ID, Event, Why string }
	linus.want("rejected", &rejected)
	if rejected.ID != "x" || rejected.Event != "say" || !strings.Contains(rejected.Why, "join") {
		t.Errorf("rejected %+v", rejected)
	}
}

func TestDemoWhisperAndShout(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	ada, grace, grace2 := s.dial("ada"), s.dial("grace"), s.dial("grace")

	ada.send(`{"event":"whisper","id":"w","data":{"user":"grace","text":"psst"}}`)
	var a accepted
	ada.want("accepted", &a) // ada does not receive the whisper
	if a != (accepted{"w", 2, true}) {
		t.Errorf("accepted %+v", a)
	}
	for _, c := range []*client{grace, grace2} {
		var m delivery
		c.want("whisper", &m)
		if m.Text != "psst" || m.User != "grace" || m.From.User != "ada" {
			t.Errorf("got %+v", m)
		}
	}

	ada.send(`{"event":"whisper","id":"n","data":{"user":"nobody","text":"psst"}}`)
	ada.want("accepted", &a)
	if a.Clients != 0 {
		t.Errorf("accepted %+v", a)
	}

	grace.send(`{"event":"shout","id":"s","data":{"text":"fire!"}}`)
	for _, c := range []*client{ada, grace, grace2} {
		var m delivery
		c.want("shout", &m)
		if m.Text != "fire!" || m.From.Client != grace.id {
			t.Errorf("got %+v", m)
		}
	}
}

func TestDemoLists(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"default-rooms": "hall"})
	ada, grace := s.dial("ada"), s.dial("grace")
	ada.join("kitchen")

	ada.send(`{"event":"rooms"}`)
	var rooms struct {
		Total, Clients int
		Rooms          []struct {
			Name    string
			Clients int
		}
	}
	ada.want("rooms", &rooms)
	if got := fmt.Sprint(rooms); got != "{2 2 [{hall 2} {kitchen 1}]}" { // without the own rooms of the clients
		t.Errorf("rooms %s", got)
	}
	grace.send(`{"event":"who","data":{}}`)
	var who struct {
		Room    string
		Total   int
		Clients []struct{ User, Client string }
	}
	grace.want("who", &who)
	if who.Total != 2 || len(who.Clients) != 2 || who.Clients[0].User != "ada" || who.Clients[1].Client != grace.id {
		t.Errorf("who %+v", who)
	}
}

// TestDemoRejects checks that invalid messages are answered with "rejected", and that the
// connection stays open.
func TestDemoRejects(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for name, tt := range map[string]struct{ message, why string }{
		"unknown event":      {`{"event":"dance"}`, "no such event"},
		"data is no object":  {`{"event":"say","data":[1]}`, "object"},
		"no text":            {`{"event":"shout","data":{}}`, "text"},
		"blank text":         {`{"event":"shout","data":{"text":"  "}}`, "text"},
		"long text":          {`{"event":"shout","data":{"text":"` + strings.Repeat("x", 2001) + `"}}`, "2000"},
		"wrong type":         {`{"event":"shout","data":{"text":7}}`, "object"},
		"bad user":           {`{"event":"whisper","data":{"user":"","text":"x"}}`, "user"},
		"bad room":           {`{"event":"who","data":{"room":"ws:x"}}`, "room"},
		"seen without to":    {`{"event":"seen","data":{"id":"x"}}`, "seen takes"},
		"say without a room": {`{"event":"say","data":{"text":"x"}}`, "join"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := s.dialFor(t, "ada")
			c.send(tt.message)
			var rejected struct{ Why string }
			c.want("rejected", &rejected)
			if !strings.Contains(rejected.Why, tt.why) {
				t.Errorf("why: %q", rejected.Why)
			}
			c.send(`{"event":"who","data":{"room":"lobby"}}`)
			c.want("who", nil)
		})
	}
}

// dialFor is dial for a subtest.
func (s *server) dialFor(t *testing.T, name string) *client { return dialWith(t, s.ws(), name, nil) }

func TestDemoRate(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	c := s.dial("ada")
	const n = 200
	for range n {
		c.send(`{"event":"who","data":{"room":"lobby"}}`)
	}
	answered := 0
	for range n {
		e, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if e.Event == "who" {
			answered++
		}
	}
	if answered < 40 || answered > 150 {
		t.Errorf("%d of %d were answered", answered, n)
	}
}

func TestDemoNames(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, name := range []string{"", " ada", "a\u202eb", strings.Repeat("x", 65), "line\nbreak"} {
		ws, _, err := websocket.Dial(t.Context(), s.ws(), nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &client{t: t, c: ws}
		credentials, _ := json.Marshal(map[string]string{"name": name})
		c.send(`{"event":"authenticate","data":` + string(credentials) + `}`)
		var e struct{ Message string }
		c.want("error", &e)
		_, err = c.next()
		var closed websocket.CloseError
		if e.Message != "Authentication failed" || !errors.As(err, &closed) || closed.Code != 4003 {
			t.Errorf("name %q: %q, %v", name, e.Message, err)
		}
		ws.CloseNow()
	}
}

// TestDemoPresence checks that the server announces joins and leaves, so that pages refresh their
// lists.
func TestDemoPresence(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	ada := s.dial("ada")
	grace := s.dial("grace")
	for _, event := range []string{"join", "leave"} {
		grace.send(`{"event":"` + event + `","data":{"rooms":["kitchen"]}}`)
		for told := false; !told; {
			_, b, err := ada.c.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			told = strings.Contains(string(b), `"presence"`) && strings.Contains(string(b), `"kitchen"`)
		}
	}
}

// A client that joins and leaves in a loop is announced only so often.
func TestDemoPresenceRate(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	ada, grace := s.dial("ada"), s.dial("grace")
	const n = 1000
	for range n {
		grace.send(`{"event":"join","data":{"rooms":["kitchen"]}}`)
		grace.send(`{"event":"leave","data":{"rooms":["kitchen"]}}`)
	}
	grace.send(`{"event":"seen","data":{"id":"last","to":"` + ada.id + `"}}`)
	told := 0
	for {
		_, b, err := ada.c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), `"seen"`) {
			break
		}
		told++
	}
	if told < 20 || told > n {
		t.Errorf("told %d times of %d changes", told, 2*n)
	}
}
