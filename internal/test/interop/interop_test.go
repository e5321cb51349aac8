package interop_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/emitter"
)

// Servers and emitters are interchangeable for code that sends.
var _ hearth.Sender = (*emitter.Emitter)(nil)

// A clientSet has clients on every server.
type clientSet struct {
	ada, bob []*peer // one on each server, in the room lobby
	noRoom   []*peer // ada's second session, in no room
}

func (c *clientSet) all() []*peer   { return slices.Concat(c.ada, c.bob, c.noRoom) }
func (c *clientSet) lobby() []*peer { return slices.Concat(c.ada, c.bob) }

// Users returns all sessions of ada.
func (c *clientSet) users() []*peer { return slices.Concat(c.ada, c.noRoom) }

// except returns the clients in some whose ids are not excluded.
func except(some []*peer, exclude []string) []*peer {
	return slices.DeleteFunc(slices.Clone(some), func(p *peer) bool { return slices.Contains(exclude, p.id) })
}

func (w *deployment) clientSet() *clientSet {
	w.Helper()
	c := &clientSet{}
	for _, s := range []struct{ name, addr string }{{"reference", w.ref.addr}, {"exact", w.exact.addr}, {"pattern", w.pattern.addr}} {
		c.ada = append(c.ada, connect(w.T, s.name, s.addr, "ada", "lobby"))
		c.bob = append(c.bob, connect(w.T, s.name, s.addr, "bob", "lobby"))
		c.noRoom = append(c.noRoom, connect(w.T, s.name, s.addr, "ada"))
	}
	return c
}

// A source is a sender. A nil function is an operation that it does not support.
type source struct {
	name            string
	client, user    func(id, event string, data json.RawMessage)
	room            func(name, event string, data json.RawMessage, exclude ...string)
	all             func(event string, data json.RawMessage, exclude ...string)
	excludes        bool // from a room
	excludesFromAll bool
	keepsBytes      bool // passes data on byte for byte
}

func (w *deployment) sources() []source {
	sources := []source{w.emitterSource(), w.referenceEmitter(), w.referenceServer()}
	for name, n := range map[string]*node{"a server of Hearth": w.exact, "a server of Hearth, with patterns": w.pattern} {
		publish := func(t hearth.Target, event string, data json.RawMessage, exclude ...string) {
			must(w.T, n.Send(w.Context(), t.Except(exclude...), event, data))
		}
		sources = append(sources, source{
			name:   name,
			client: func(id, event string, data json.RawMessage) { publish(hearth.ToClient(id), event, data) },
			user:   func(id, event string, data json.RawMessage) { publish(hearth.ToUser(id), event, data) },
			room: func(name, event string, data json.RawMessage, exclude ...string) {
				publish(hearth.ToRoom(name), event, data, exclude...)
			},
			all: func(event string, data json.RawMessage, exclude ...string) {
				publish(hearth.ToAll(), event, data, exclude...)
			},
			excludes: true, excludesFromAll: true, keepsBytes: true,
		})
		send := func(destination, event string, data json.RawMessage, _ ...string) {
			must(w.T, n.Send(w.Context(), n.Destination(destination), event, data))
		}
		sources = append(sources, source{
			name:   name + ", by destination",
			client: func(id, event string, data json.RawMessage) { send(id, event, data) },
			room:   send,
			all:    func(event string, data json.RawMessage, _ ...string) { send("", event, data) }, keepsBytes: true,
		})
	}
	return sources
}

func (w *deployment) emitterSource() source {
	ctx := w.Context()
	return source{
		name: "our emitter",
		client: func(id, event string, data json.RawMessage) {
			must(w.T, w.emitter.Send(ctx, emitter.ToClient(id), event, data))
		},
		user: func(id, event string, data json.RawMessage) {
			must(w.T, w.emitter.Send(ctx, emitter.ToUser(id), event, data))
		},
		room: func(name, event string, data json.RawMessage, exclude ...string) {
			must(w.T, w.emitter.Send(ctx, emitter.ToRoom(name).Except(exclude...), event, data))
		},
		all: func(event string, data json.RawMessage, exclude ...string) {
			must(w.T, w.emitter.Send(ctx, emitter.ToAll().Except(exclude...), event, data))
		},
		excludes: true, excludesFromAll: true, keepsBytes: true,
	}
}

func (w *deployment) referenceEmitter() source {
	return source{
		name: "the reference's emitter",
		client: func(id, event string, data json.RawMessage) {
			w.ref.do("toClient", map[string]any{"clientId": id, "event": event, "data": data})
		},
		user: func(id, event string, data json.RawMessage) {
			w.ref.do("toUser", map[string]any{"userId": id, "event": event, "data": data})
		},
		room: func(name, event string, data json.RawMessage, exclude ...string) {
			w.ref.do("toRoom", map[string]any{"room": name, "event": event, "data": data, "exclude": exclude})
		},
		all: func(event string, data json.RawMessage, _ ...string) {
			w.ref.do("broadcast", map[string]any{"event": event, "data": data})
		},
		excludes: true,
	}
}

// referenceServer sends by destination only, since the reference publishes only such messages.
func (w *deployment) referenceServer() source {
	send := func(destination, event string, data json.RawMessage) {
		w.ref.do("send", map[string]any{"destination": destination, "payload": map[string]any{"topic": event, "data": data}})
	}
	return source{
		name:   "the reference's server",
		client: send,
		room:   func(name, event string, data json.RawMessage, _ ...string) { send(name, event, data) },
		all:    func(event string, data json.RawMessage, _ ...string) { send("", event, data) },
	}
}

// expectReach checks that an event has reached some of the clients, once, and no other client. A
// marker to all clients, sent by the same source, arrives after it.
func (c *clientSet) expectReach(s source, event string, some []*peer) {
	mark := "mark of " + event
	s.all(mark, json.RawMessage("true"))
	for _, p := range c.all() {
		if slices.Contains(some, p) {
			p.expect(fmt.Sprintf(`{"event":%q,"data":{"n":1}}`, event))
		}
		p.expect(fmt.Sprintf(`{"event":%q,"data":true}`, mark))
	}
}

// TestTargets sends from every source to every target.
func TestTargets(t *testing.T) {
	t.Parallel()
	w := newDeployment(t)
	c := w.clientSet()
	data := json.RawMessage(`{"n":1}`)
	out := []string{c.ada[0].id, c.bob[1].id, c.bob[2].id, c.noRoom[1].id, "nobody"}
	for _, s := range w.sources() {
		for i, p := range c.all() {
			event := fmt.Sprintf("%s to client %d", s.name, i)
			s.client(p.id, event, data)
			c.expectReach(s, event, []*peer{p})
		}
		s.client("nobody", s.name+" to nobody", data)
		c.expectReach(s, s.name+" to nobody", nil)
		if s.user != nil {
			s.user("ada", s.name+" to a user", data)
			c.expectReach(s, s.name+" to a user", c.users())
		}
		s.room("lobby", s.name+" to a room", data)
		c.expectReach(s, s.name+" to a room", c.lobby())
		s.room("elsewhere", s.name+" to an empty room", data)
		c.expectReach(s, s.name+" to an empty room", nil)
		s.room(c.bob[0].id, s.name+" to the room of a client", data)
		c.expectReach(s, s.name+" to the room of a client", c.bob[:1])
		s.all(s.name+" to all", data)
		c.expectReach(s, s.name+" to all", c.all())
		if s.excludes {
			s.room("lobby", s.name+" to most of a room", data, out...)
			c.expectReach(s, s.name+" to most of a room", except(c.lobby(), out))
		}
		if s.excludesFromAll {
			s.all(s.name+" to most", data, out...)
			c.expectReach(s, s.name+" to most", except(c.all(), out))
		}
	}
}

// TestComingAndGoing checks which messages a client gets as it joins, leaves and reconnects.
func TestComingAndGoing(t *testing.T) {
	t.Parallel()
	w := newDeployment(t)
	for _, s := range []struct{ name, addr string }{{"reference", w.ref.addr}, {"exact", w.exact.addr}, {"pattern", w.pattern.addr}} {
		for _, from := range []source{w.emitterSource(), w.referenceEmitter()} {
			p := connect(t, s.name, s.addr, "ada", "tea")
			from.room("tea", "in", json.RawMessage("1"))
			p.expect(`{"event":"in","data":1}`)
			p.say("leave", map[string]any{"rooms": []string{"tea"}})
			p.say("echo", 2)
			p.expect(`{"event":"echo","data":2}`)
			from.room("tea", "out", json.RawMessage("1"))
			p.say("join", map[string]any{"rooms": []string{"coffee"}})
			p.say("echo", 3)
			p.expect(`{"event":"echo","data":3}`)
			from.room("tea", "still out", json.RawMessage("1"))
			from.room("coffee", "in again", json.RawMessage("1"))
			p.expect(`{"event":"in again","data":1}`)
			p.conn.CloseNow()
		}
	}
}

// A text is data as it is written, and as it comes out of JSON.parse and JSON.stringify.
type text struct{ name, data, parsed string }

var texts = []text{
	{"null", `null`, `null`},
	{"true", `true`, `true`},
	{"zero", `0`, `0`},
	{"empty string", `""`, `""`},
	{"empty object", `{}`, `{}`},
	{"empty array", `[]`, `[]`},
	{"large number", `12345678901234567890`, `12345678901234567000`},
	{"exact number", `9007199254740993`, `9007199254740992`},
	{"trailing zeros", `1.50`, `1.5`},
	{"exponent", `1e2`, `100`},
	{"too large", `1e400`, `null`},
	{"negative zero", `-0`, `0`},
	{"spaces", `{ "a" : [ 1 , 2 ] }`, `{"a":[1,2]}`},
	{"equal names", `{"a":1,"a":2}`, `{"a":2}`},
	{"names that are numbers", `{"b":1,"1":2}`, `{"1":2,"b":1}`},
	{"emoji", `"😀 zażółć 日本"`, `"😀 zażółć 日本"`},
	{"escaped emoji", `"\ud83d\ude00"`, `"😀"`},
	{"line separators", "\"a\u2028b\u2029c\"", "\"a\u2028b\u2029c\""},
	{"lone surrogate", `"\ud800 and \udc00"`, `"\ud800 and \udc00"`},
	{"needless escapes", `"\u0041\/"`, `"A/"`},
	{"control characters", `"\u0000\b\t\n\u001f"`, `"\u0000\b\t\n\u001f"`},
	{"quotes", `"\"\\'"`, `"\"\\'"`},
	{"large", `"` + strings.Repeat("0123456789abcdef", 100<<10/16) + `"`, `"` + strings.Repeat("0123456789abcdef", 100<<10/16) + `"`},
}

// TestData checks that data between Hearth servers does not change by a byte. The reference parses
// and stringifies data, which gives the same value within the limits of JavaScript.
func TestData(t *testing.T) {
	t.Parallel()
	w := newDeployment(t)
	onRef := connect(t, "reference", w.ref.addr, "ada")
	onHearth := []*peer{connect(t, "exact", w.exact.addr, "ada"), connect(t, "pattern", w.pattern.addr, "ada")}
	for _, s := range w.sources() {
		for _, text := range texts {
			event := s.name + " " + text.name
			s.all(event, json.RawMessage(text.data))
			parsed := fmt.Sprintf(`{"event":%q,"data":%s}`, event, text.parsed)
			onRef.expect(parsed)
			for _, p := range onHearth {
				if s.keepsBytes {
					p.expect(fmt.Sprintf(`{"event":%q,"data":%s}`, event, text.data))
				} else {
					p.expect(parsed)
				}
			}
		}
	}
	// Without data: only the reference's emitter allows that.
	w.ref.do("broadcast", map[string]any{"event": "bare"})
	for _, p := range append(onHearth, onRef) {
		p.expect(`{"event":"bare"}`)
	}
}

// TestBatch checks that many events from one goroutine reach clients of all servers in order.
func TestBatch(t *testing.T) {
	t.Parallel()
	w := newDeployment(t)
	const n = 2000
	peers := []*peer{connect(t, "reference", w.ref.addr, "ada"), connect(t, "exact", w.exact.addr, "ada"), connect(t, "pattern", w.pattern.addr, "ada")}
	b := w.emitter.Batch()
	for i := range n {
		b.Add(emitter.ToUser("ada"), "n", i)
	}
	if errs := b.Send(t.Context()); errs != nil {
		t.Fatal(errs)
	}
	for _, p := range peers {
		for i := range n {
			p.expect(fmt.Sprintf(`{"event":"n","data":%d}`, i))
		}
	}
}
