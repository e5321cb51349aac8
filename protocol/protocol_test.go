package protocol_test

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/protocol"
)

func TestSystem(t *testing.T) {
	t.Parallel()
	for _, event := range []string{"authenticate", "connected", "join", "leave", "heartbeat", "error", "disconnect", "encrypted", "hearth:", "hearth:ticket", "hearth:anything"} {
		if !protocol.System(event) {
			t.Errorf("%q is not a system name", event)
		}
	}
	for _, event := range []string{"", "resync", "Join", "join ", "message", "hearth", "Hearth:x", " hearth:x"} {
		if protocol.System(event) {
			t.Errorf("%q is a system name", event)
		}
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	names := []string{"unauthorized", "authenticating", "authenticated", "disconnected", "unknown"}
	for i, want := range names {
		if got := protocol.State(i).String(); got != want {
			t.Errorf("state %d is %q, want %q", i, got, want)
		}
	}
}

func TestDefaultRoomsAreNotShared(t *testing.T) {
	t.Parallel()
	protocol.DefaultRooms()[0] = "changed"
	if got := protocol.DefaultRooms(); !slices.Equal(got, []string{"ws-default", "ws-notification"}) {
		t.Errorf("default rooms are %q", got)
	}
}

func TestCheckRoomRejectsInvalidUTF8(t *testing.T) {
	t.Parallel()
	if err := protocol.CheckRoom("a\xff"); !errors.Is(err, protocol.ErrRoomInvalid) {
		t.Errorf("error %v", err)
	}
}

func TestParseRoomsIsBounded(t *testing.T) {
	t.Parallel()
	names := make([]string, protocol.MaxRoomsPerRequest+10)
	for i := range names {
		names[i] = "r"
	}
	data, err := json.Marshal(map[string]any{"rooms": names})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(protocol.ParseRooms(data)); got != protocol.MaxRoomsPerRequest {
		t.Errorf("%d rooms", got)
	}
}

// nest returns arrays nested to the given depth.
func nest(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func TestDepthIsBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       error
	}{
		{"data at the limit", `{"event":"e","data":` + nest(protocol.MaxDepth-1) + `}`, nil},
		{"data beyond it", `{"event":"e","data":` + nest(protocol.MaxDepth) + `}`, protocol.ErrSyntax},
		{"no envelope, at the limit", nest(protocol.MaxDepth), protocol.ErrNoEvent},
		{"no envelope, beyond it", nest(protocol.MaxDepth + 1), protocol.ErrSyntax},
		{"only opened", strings.Repeat(`{"a":`, 25_000), protocol.ErrSyntax},
		{"arrays only opened", strings.Repeat("[", 131_072), protocol.ErrSyntax},
	} {
		if _, err := protocol.ParseEnvelope([]byte(tt.text)); err != tt.want {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestAcceptedDataCanBePassedOn checks that data that a client may send can be sent to another
// client, published, and decoded.
func TestAcceptedDataCanBePassedOn(t *testing.T) {
	t.Parallel()
	e, err := protocol.ParseEnvelope([]byte(`{"event":"e","data":` + nest(protocol.MaxDepth-1) + `}`))
	if err != nil {
		t.Fatal(err)
	}
	data, err := protocol.EncodeData(e.Data)
	if err != nil {
		t.Fatal(err)
	}
	m := protocol.Message{ServerID: "s", Type: protocol.TypeBroadcast, Event: e.Event, Data: data}
	if _, err := protocol.ParseMessage(protocol.AppendMessage(nil, m)); err != nil {
		t.Error(err)
	}
	var v any
	if err := json.Unmarshal(protocol.AppendEvent(nil, e.Event, data), &v); err != nil {
		t.Error(err)
	}
}

func TestParseEnvelopeDoesNotShareCapacity(t *testing.T) {
	t.Parallel()
	b := []byte(`{"event":"e","data":1,"id":2}`)
	before := string(b)
	e, err := protocol.ParseEnvelope(b)
	if err != nil {
		t.Fatal(err)
	}
	if &e.Data[0] != &b[strings.Index(before, "1")] {
		t.Error("data does not alias the message")
	}
	_ = append(e.Data, "xxx"...)
	if string(b) != before {
		t.Errorf("appending to data changed the message: %s", b)
	}
}

func TestEncodeData(t *testing.T) {
	t.Parallel()
	type point struct {
		X int     `json:"x"`
		Y float64 `json:"y"`
	}
	for _, tt := range []struct {
		name string
		v    any
		want string // "absent" stands for nil
	}{
		{"nil", nil, "null"},
		{"nil raw", json.RawMessage(nil), "null"},
		{"no data", protocol.NoData{}, "absent"},
		{"null", json.RawMessage("null"), "null"},
		{"nil pointer", (*point)(nil), "null"},
		{"nil slice", []int(nil), "null"},
		{"raw untouched", json.RawMessage(" { \"a\" : 1.50 } "), " { \"a\" : 1.50 } "},
		{"struct", point{1, 2.5}, `{"x":1,"y":2.5}`},
		{"no escaping for HTML", "<a&b>", `"<a&b>"`},
		{"map", map[string]any{"b": 1, "a": "x"}, `{"a":"x","b":1}`},
		{"number", 7, "7"},
		{"line end at the end of a string", "a\n", `"a\n"`},
	} {
		got, err := protocol.EncodeData(tt.v)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if s := string(got); s != tt.want && !(got == nil && tt.want == "absent") {
			t.Errorf("%s: %q, want %q", tt.name, s, tt.want)
		}
	}
}

func TestEncodeDataRejects(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"{", "1 2", " ", "\"\xff\"", "[1,]", `{"a":1}}`, `1,"b":2`, nest(protocol.MaxDepth)} {
		if _, err := protocol.EncodeData(json.RawMessage(text)); !errors.Is(err, protocol.ErrSyntax) {
			t.Errorf("%.20q: error %v, want ErrSyntax", text, err)
		}
	}
	for name, v := range map[string]any{
		"UTF-8":   map[string]any{"a": json.RawMessage("\"\xff\"")},
		"depth":   []any{json.RawMessage(nest(protocol.MaxDepth - 1))},
		"nothing": []any{json.RawMessage("")},
	} {
		if got, err := protocol.EncodeData(v); err == nil {
			t.Errorf("%s: %.20q, want an error", name, got)
		}
	}
	for _, v := range []any{make(chan int), math.NaN(), func() {}} {
		if got, err := protocol.EncodeData(v); err == nil {
			t.Errorf("%T: %s, want an error", v, got)
		}
	}
}

func TestAppendReplacesInvalidUTF8(t *testing.T) {
	t.Parallel()
	want := "{\"event\":\"a\ufffd\ufffdb\"}"
	if got := protocol.AppendEvent(nil, "a\xff\xc2b", nil); string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestAppendConnectedTime(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 999_999_999, time.FixedZone("", -2*3600))
	want := `{"event":"connected","data":{"id":"i","time":"2026-01-02T05:04:05.999Z"}}`
	if got := protocol.AppendConnected(nil, "i", "", at); string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestMessageCheck(t *testing.T) {
	t.Parallel()
	good := protocol.Message{ServerID: "s", Type: protocol.TypeRoom, Target: "r", Event: "e"}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*protocol.Message){
		"no type":          func(m *protocol.Message) { m.Type = 0 },
		"unknown type":     func(m *protocol.Message) { m.Type = protocol.TypeNode + 1 },
		"no server":        func(m *protocol.Message) { m.ServerID = "" },
		"no event":         func(m *protocol.Message) { m.Event = "" },
		"no target":        func(m *protocol.Message) { m.Target = "" },
		"too many exclude": func(m *protocol.Message) { m.Exclude = make([]string, protocol.MaxExclude+1) },
	} {
		m := good
		change(&m)
		if err := m.Check(); !errors.Is(err, protocol.ErrMessage) {
			t.Errorf("%s: error %v, want ErrMessage", name, err)
		}
	}
	if got := (protocol.Message{}).Channel(); got != "" {
		t.Errorf("the zero message has the channel %q", got)
	}
	if got := protocol.MessageType(9).String(); got != "unknown" {
		t.Errorf("type 9 is %q", got)
	}
}

// TestHostileMessages checks that invalid messages are rejected with work and memory proportional
// to their size.
func TestHostileMessages(t *testing.T) {
	t.Parallel()
	const size = 10 << 20
	head := `{"serverId":"s","type":"broadcast","event":"e",`
	for name, text := range map[string]string{
		"opened for ever":  head + `"data":` + strings.Repeat("[", size),
		"objects for ever": head + `"data":` + strings.Repeat(`{"a":`, size/5),
		"keys for ever":    strings.Repeat(`{"a":1,`, 1) + strings.Repeat(`"a":1,`, size/6) + `}`,
		"excludes a town":  head + `"exclude":[` + strings.Repeat(`"",`, size/3) + `""]}`,
		"backslashes":      `{"` + strings.Repeat(`\\`, size/2) + `":1}`,
		"spaces":           strings.Repeat(" ", size),
	} {
		if _, err := protocol.ParseMessage([]byte(text)); !errors.Is(err, protocol.ErrMessage) {
			t.Errorf("%s: error %v, want ErrMessage", name, err)
		}
	}
}

func TestParsingAllocates(t *testing.T) {
	for _, tt := range []struct {
		text string
		want float64
	}{
		{`{"event":"heartbeat"}`, 0},
		{`{"event":"join","data":{"rooms":["a"]}}`, 0},
		{`{"event":"say","data":{"text":"hello"},"id":"1","more":[1,2,3]}`, 1},
	} {
		b := []byte(tt.text)
		if got := testing.AllocsPerRun(100, func() { _, _ = protocol.ParseEnvelope(b) }); got > tt.want {
			t.Errorf("%s: %v allocations, want %v", tt.text, got, tt.want)
		}
	}
	dst := make([]byte, 0, 1024)
	data := json.RawMessage(`{"text":"hello"}`)
	if got := testing.AllocsPerRun(100, func() { protocol.AppendEvent(dst, "say", data) }); got > 0 {
		t.Errorf("AppendEvent: %v allocations", got)
	}
}
