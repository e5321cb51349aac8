package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/protocol"
)

// TestData checks that data is encoded as JSON.stringify encodes it, and that raw JSON is sent
// unchanged.
func TestData(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	p := r.member("u")
	type point struct {
		X int    `json:"x"`
		Y string `json:"y,omitempty"`
	}
	for _, c := range []struct {
		data any
		want string
	}{
		{"<b>&'é😀", `"<b>&'é😀"`},
		{1.5, `1.5`},
		{int64(math.MaxInt64), `9223372036854775807`},
		{true, `true`},
		{point{X: 1}, `{"x":1}`},
		{(*point)(nil), `null`},
		{[]string{"a\nb"}, `["a\nb"]`},
		{map[string]any{"b": 1, "a": nil}, `{"a":null,"b":1}`},
		{json.Number("1e400"), `1e400`},
		{json.RawMessage(`null`), `null`},
		{json.RawMessage(` { "a" : 1.0e+2 } `), ` { "a" : 1.0e+2 } `},
		{json.RawMessage(`12345678901234567890`), `12345678901234567890`},
	} {
		must(t, r.Local().Send(t.Context(), hearth.ToAll(), "m", c.data))
		p.wants(`{"event":"m","data":` + c.want + `}`)
	}
	for _, null := range []any{nil, json.RawMessage(nil)} {
		for _, err := range everySend(r, p, "null", null) {
			must(t, err)
			p.wants(`{"event":"null","data":null}`)
		}
	}
	for _, err := range everySend(r, p, "none", hearth.NoData{}) {
		must(t, err)
		p.wants(`{"event":"none"}`)
	}
	for _, event := range []string{"", "connected", "error", "join", "heartbeat", "encrypted", "resync", "hearth:x", "\xff"} {
		for i, err := range everySend(r, p, event, 1) {
			if !errors.Is(err, protocol.ErrEvent) {
				t.Errorf("send %d of event %q: %v", i, event, err)
			}
		}
	}
	for _, target := range []hearth.Target{
		{}, hearth.ToClient(""), hearth.ToUser(""), hearth.ToRoom(""), hearth.ToRoom("ws:x"), hearth.ToUser("u").Except("x"),
		hearth.ToClient(p.id).Except(p.id), hearth.ToUser("\xff"), hearth.ToAll().Except(make([]string, protocol.MaxExclude+1)...),
	} {
		for i, err := range []error{r.Send(t.Context(), target, "m", 1), r.Local().Send(t.Context(), target, "m", 1)} {
			if !errors.Is(err, protocol.ErrTarget) {
				t.Errorf("send %d to %v: %v", i, target, err)
			}
		}
	}
	for _, bad := range []any{
		make(chan int), math.NaN(), func() {}, json.RawMessage(`{`), json.RawMessage(`{} {}`), json.RawMessage("\"\xff\""), json.RawMessage(` `), json.RawMessage{},
	} {
		for i, err := range everySend(r, p, "bad", bad) {
			if err == nil {
				t.Errorf("send %d accepted a %T", i, bad)
			}
		}
	}
	must(t, r.Local().Send(t.Context(), hearth.ToAll(), "last", 1))
	p.wants(`{"event":"last","data":1}`)
}

// everySend sends an event by every method.
func everySend(r *rig, p *peer, event string, data any) []error {
	ctx := r.t.Context()
	return []error{
		r.Local().Send(ctx, hearth.ToAll(), event, data), r.Local().Send(ctx, hearth.ToClient(p.id), event, data),
		r.Local().Send(ctx, hearth.ToUser(p.user), event, data), r.Local().Send(ctx, hearth.ToRoom("ws-default"), event, data),
		r.Send(ctx, hearth.ToClient(p.id), event, data), r.Send(ctx, hearth.ToAll(), event, data),
		r.client(p).Send(event, data),
	}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	r := start(t, config{ValidateRooms: func(_ context.Context, _ *client, rooms []string) ([]string, error) { return rooms, nil }})
	other := start(t, config{})
	if len(r.ID()) != 36 || r.ID() == other.ID() {
		t.Errorf("ids %q, %q", r.ID(), other.ID())
	}
	a, b, c := r.member("u"), r.member("u"), r.member("v")
	r.peer() // not authenticated: not counted
	must(t, joinRoom(t.Context(), r, a.id, "x", "y"))
	must(t, joinRoom(t.Context(), r, a.id, "x"))
	must(t, joinRoom(t.Context(), r, c.id, "x"))

	for _, tt := range []struct {
		target hearth.Target
		want   int
	}{
		{hearth.ToAll(), 3}, {hearth.Target{}, 0}, {hearth.ToUser("u"), 2}, {hearth.ToUser(""), 0}, {hearth.ToRoom("x"), 2},
		{hearth.ToRoom("none"), 0}, {hearth.ToClient(a.id), 1}, {hearth.ToRoom(b.id), 1}, {hearth.ToClient("none"), 0},
		{hearth.ToRoom("ws-default"), 3}, {hearth.ToAll().Except(a.id), 3},
	} {
		if got := r.Local().Count(tt.target); got != tt.want {
			t.Errorf("Count(%v) = %d, want %d", tt.target, got, tt.want)
		}
	}
	seen := make(map[string]bool)
	for _, cl := range r.Local().Clients(hearth.ToAll()) {
		seen[cl.ID()] = true
		_ = cl.Rooms() // the body may call any method
		must(t, joinRoom(t.Context(), r, cl.ID(), "seen"))
	}
	if len(seen) != 3 || !seen[a.id] || !seen[b.id] || !seen[c.id] {
		t.Errorf("clients: %v", seen)
	}
	in := r.Local().Clients(hearth.ToRoom("x"))
	rooms := r.client(a).Rooms()
	if len(in) != 2 || len(r.Local().Clients(hearth.ToUser("u"))) != 2 || !slices.Equal(rooms, []string{a.id, "ws-default", "ws-notification", "x", "y", "seen"}) {
		t.Errorf("in x: %v; rooms of a: %q", in, rooms)
	}
	in[0], in[1], rooms[0] = nil, nil, "changed" // the results are copies
	if r.Local().Clients(hearth.ToRoom("x"))[0] == nil || r.client(a).Rooms()[0] != a.id {
		t.Error("a change of a query's result changed the server")
	}

	ca := r.client(a)
	if ca.UserID() != "u" || ca.Metadata() != (profile{"u"}) || ca.State().String() != "authenticated" || ca.Encrypted() || ca.Backpressured() {
		t.Errorf("client: %q %v %v", ca.UserID(), ca.Metadata(), ca.State())
	}
	if ca.ConnectedAt().IsZero() || ca.LastActivity().Before(ca.ConnectedAt()) {
		t.Errorf("connected %v, active %v", ca.ConnectedAt(), ca.LastActivity())
	}
	if again := r.client(a); again != ca {
		t.Error("two lookups returned different clients")
	}
	testDisconnected(t, r, a, ca)
}

// testDisconnected disconnects a client and checks its remaining state.
func testDisconnected(t *testing.T, r *rig, a *peer, ca *client) {
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 2999, 5000} {
		if err := ca.Disconnect(code, ""); err == nil || errors.Is(err, hearth.ErrNotConnected) {
			t.Errorf("code %d: %v", code, err)
		}
	}
	was := ca.Rooms()
	if len(was) < 2 || !ca.In(was[0]) || !ca.In(was[1]) || ca.In("elsewhere") {
		t.Fatalf("rooms %q", was)
	}
	must(t, ca.Disconnect(3000, repeat("ü", 100)))
	a.wantsClose(3000, repeat("ü", 61)) // at most 123 bytes, no partial character
	if _, ok := r.Local().Client(a.id); ok || r.Local().Count(hearth.ToUser("u")) != 1 || ca.State().String() != "disconnected" {
		t.Errorf("the client is still found: %v, %v", ok, ca.State())
	}
	if rooms := ca.Rooms(); len(rooms) != len(was) || rooms[0] != a.id || !ca.In(was[1]) || ca.In("elsewhere") {
		t.Errorf("rooms %q, before the end %q", rooms, was)
	}
	if ca.UserID() != "u" || ca.ID() != a.id || ca.Metadata().Name != "u" {
		t.Error("a disconnected client lost its identity")
	}
	ctx := t.Context()
	for name, err := range map[string]error{
		"Send": ca.Send("m", 1), "Join": ca.Join(ctx, "x"), "Disconnect": ca.Disconnect(1000, ""),
		"JoinRoom": joinRoom(ctx, r, a.id, "x"), "LeaveRoom": leaveRoom(r, a.id, "x"), "Server.Disconnect": disconnect(r, a.id, 1000, ""),
	} {
		if !errors.Is(err, hearth.ErrNotConnected) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ca.Leave("x")
	must(t, r.Local().Send(t.Context(), hearth.ToClient(a.id), "m", 1))
}

// TestServerJoins checks that joins by the server skip the validator and obey the limits.
func TestServerJoins(t *testing.T) {
	t.Parallel()
	r := start(t, config{Limits: hearth.Limits{MaxRooms: 4}})
	p := r.member("u")
	c := r.client(p)
	for _, bad := range []string{"", "ws:x", repeat("x", 257), repeat("😀", 129), "\xff"} {
		if err := c.Join(t.Context(), "good", bad); err == nil || r.Local().Count(hearth.ToRoom("good")) != 0 {
			t.Errorf("joined %.20q: %v", bad, err)
		}
	}
	must(t, c.Join(t.Context()))
	must(t, c.Join(t.Context(), repeat("😀", 128), repeat("x", 256)))
	if err := c.Join(t.Context(), "one too many"); !errors.Is(err, hearth.ErrTooManyRooms) {
		t.Errorf("join above the limit: %v", err)
	}
	must(t, c.Join(t.Context(), "ws-default", p.id))
	c.Leave("ws-default", "not in", repeat("x", 256))
	must(t, c.Join(t.Context(), "again"))
	if n := len(c.Rooms()); n != 4 {
		t.Errorf("rooms: %q", c.Rooms())
	}
}

// TestRoomNames checks that the names of a client's rooms are bounded in total bytes, and that
// leaving a room frees its share.
func TestRoomNames(t *testing.T) {
	t.Parallel()
	r := start(t, config{ValidateRooms: func(_ context.Context, _ *client, rooms []string) ([]string, error) { return rooms, nil }})
	p := r.member("u")
	c := r.client(p)
	bytes := func() (n int) {
		for _, name := range c.Rooms() {
			n += len(name)
		}
		return n
	}
	for i := range 10 {
		var names []string
		for j := range 100 {
			names = append(names, fmt.Sprintf("%03d%03d", i, j)+repeat("\u20ac", 250)) // 756 bytes
		}
		data, err := json.Marshal(map[string]any{"rooms": names})
		must(t, err)
		p.say("join", string(data))
	}
	p.text("{") // answered after all previous messages are handled
	p.wantsError("Invalid message format")
	const most = 64 << 10
	if n := bytes(); n > most+len(p.id) || n < most-2000 {
		t.Errorf("%d rooms, whose names have %d bytes", len(c.Rooms()), n)
	}
	long := repeat("\u20ac", 256)
	if err := c.Join(t.Context(), long); !errors.Is(err, hearth.ErrTooManyRooms) || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("join: %v", err)
	}
	c.Leave(c.Rooms()...)
	for range 3 {
		must(t, c.Join(t.Context(), long))
		c.Leave(long)
	}
}

// TestCompression checks that compressed and uncompressed clients receive the same messages at the
// same time, and may send either form.
func TestCompression(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport, Compression: true, Message: func(_ context.Context, c *client, m hearth.Message) error {
			return c.Send("echo", m.Data)
		}})
		modes := []websocket.CompressionMode{
			websocket.CompressionDisabled, websocket.CompressionNoContextTakeover, websocket.CompressionContextTakeover, websocket.CompressionDisabled,
		}
		var peers []*peer
		for _, mode := range modes {
			p := r.coderPeer(mode)
			p.login("u")
			peers = append(peers, p)
		}
		for i := range 100 {
			text := repeat(fmt.Sprint("message ", i, " "), i*3)
			switch i % 3 {
			case 0:
				must(t, r.Local().Send(t.Context(), hearth.ToAll(), "m", text))
			case 1:
				must(t, r.Local().Send(t.Context(), hearth.ToRoom("ws-default"), "m", text))
			case 2:
				for _, p := range peers {
					must(t, r.Local().Send(t.Context(), hearth.ToClient(p.id), "m", text))
				}
			}
		}
		for _, p := range peers {
			for i := range 100 {
				p.wants(fmt.Sprintf(`{"event":"m","data":%q}`, repeat(fmt.Sprint("message ", i, " "), i*3)))
			}
			for range 3 {
				data := `"` + repeat("to and fro ", 1000) + `"`
				p.say("x", data)
				p.wants(`{"event":"echo","data":` + data + `}`)
			}
		}
		peers[1].say("x", `"`+repeat("x", 1<<20)+`"`) // 1 KB compressed
		if msg := peers[1].next(); msg.code != 1009 {
			t.Errorf("got %.80s, want a close with 1009", msg)
		}
	})
}

// TestViolations checks that frames that violate RFC 6455 close the connection with the code of the
// RFC.
func TestViolations(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport})
		for name, c := range map[string]struct {
			head    byte
			payload string
			code    int
		}{
			"reserved bit":               {0xC1, "{}", 1002},
			"reserved opcode":            {0x83, "{}", 1002},
			"reserved control opcode":    {0x8B, "", 1002},
			"continuation without start": {0x80, "{}", 1002},
			"fragmented ping":            {0x09, "", 1002},
			"large ping":                 {0x89, repeat("x", 126), 1002},
			"text that is not UTF-8":     {0x81, "\xff\xfe", 1007},
			"close with half a code":     {0x88, "\x03", 1002},
			"close with a bad code":      {0x88, "\x03\xee", 1002},
			"close reason is not UTF-8":  {0x88, "\x03\xe8\xff", 1007},
		} {
			for _, p := range []*peer{r.peer(), r.member("u")} {
				must(t, p.wire.(*rawWire).frame(c.head, []byte(c.payload)))
				if msg := p.next(); msg.code != c.code || msg.reason == "" {
					t.Errorf("%s: got %v, want close %d", name, msg, c.code)
				}
			}
		}
		p := r.peer() // a binary message need not be UTF-8, but this one is not JSON
		must(t, p.wire.send(opBinary, []byte("\xff\xfe")))
		p.wantsError("Invalid message format")
		for _, c := range []struct {
			payload string
			code    int
			reason  string
		}{{"", 1005, ""}, {"\x03\xe8bye", 1000, ""}, {"\x11\x94", 4500, ""}} {
			p := r.member("u")
			must(t, p.wire.send(opClose, []byte(c.payload)))
			p.wantsClose(c.code, c.reason)
			p.wantsEnd()
		}
		if s := r.Stats(); s.ProtocolErrors != 20 {
			t.Errorf("%d protocol errors", s.ProtocolErrors)
		}
	})
}
