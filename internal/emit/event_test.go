package emit_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hearthws/hearth/internal/emit"
	"github.com/hearthws/hearth/protocol"
)

func TestParseLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		line string
		want emit.Event
	}{
		{`{"room":"lobby","event":"news","data":{"n":1},"exclude":["x","y"]}`,
			emit.Event{To: "room", Target: "lobby", Event: "news", Data: json.RawMessage(`{"n":1}`), Exclude: []string{"x", "y"}}},
		{`{"user":"ada","event":"mail","data":null}`, emit.Event{To: "user", Target: "ada", Event: "mail", Data: json.RawMessage(`null`)}},
		{`{"client":"2f1b7c1e-6d0c-4f0e-9a55-0d4b2f6f8c11","event":"ready","data":""}`,
			emit.Event{To: "client", Target: "2f1b7c1e-6d0c-4f0e-9a55-0d4b2f6f8c11", Event: "ready", Data: json.RawMessage(`""`)}},
		{`{"all":true,"event":"m","data":[],"exclude":[]}`, emit.Event{To: "all", Event: "m", Data: json.RawMessage(`[]`), Exclude: []string{}}},
		{` { "data" : { "b":1, "b" : 12345678901234567890.50 } , "event":"\u0061", "room":"ü" } `,
			emit.Event{To: "room", Target: "ü", Event: "a", Data: json.RawMessage(`{ "b":1, "b" : 12345678901234567890.50 }`)}},
		{`{"key":"job 1","room":"r","event":"e"}`, emit.Event{To: "room", Target: "r", Event: "e", Key: "job 1"}},
		{`{"room":"r","event":"e","data":"\ud800"}`, emit.Event{To: "room", Target: "r", Event: "e", Data: json.RawMessage(`"\ud800"`)}},
	} {
		got, err := emit.ParseLine([]byte(tt.line))
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", tt.line, d)
		}
	}
}

func TestParseLineRejects(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ line, want string }{
		{``, "not a JSON object"},
		{`hello`, "not a JSON object: \"hello\""},
		{`7`, "not a JSON object"},
		{`["room"]`, "not a JSON object"},
		{`{`, "cut off"},
		{`{"room":"r","event":"e","data":{"n":1}`, "cut off"},
		{`{"room":"r","event":"e","data":`, "cut off"},
		{`{"room":"r","event":"e","data":{n:1}}`, "not JSON"},
		{`{"room":"r","event":"e","data":1,}`, "not JSON"},
		{`{"room":"r" "event":"e"}`, "not JSON"},
		{`{"room":"r","event":"e","data":1} {"room":"r","event":"e","data":2}`, "one event per line"},
		{"{\"room\":\"r\",\"event\":\"\xff\",\"data\":1}", "not valid UTF-8"},
		{`{"event":"e","data":1}`, "no target"},
		{`{"room":"r","data":1}`, "name is empty"},
		{`{"room":"r","event":"","data":1}`, "name is empty"},
		{`{"room":"r","event":null,"data":1}`, `"event" takes a string, got null`},
		{`{"room":7,"event":"e","data":1}`, `"room" takes a string, got 7`},
		{`{"room":"","event":"e","data":1}`, "room name is empty"},
		{`{"room":"ws:room:r","event":"e","data":1}`, `starts with "ws:"`},
		{`{"user":"","event":"e","data":1}`, "id of the user is empty"},
		{`{"client":"","event":"e","data":1}`, "id of the client is empty"},
		{`{"client":"2f1b","event":"e","data":1}`, `no client has the id "2f1b"`},
		{`{"client":"2F1B7C1E-6D0C-4F0E-9A55-0D4B2F6F8C11","event":"e","data":1}`, "no client has the id"},
		{`{"client":"ada","event":"e","data":1,"exclude":["x"]}`, "not from a client"},
		{`{"room":"r","user":"u","event":"e","data":1}`, "a room and a user"},
		{`{"all":true,"client":"c","event":"e","data":1}`, "one target per line"},
		{`{"all":false,"event":"e","data":1}`, `"all" must be true`},
		{`{"all":1,"event":"e","data":1}`, `"all" must be true`},
		{`{"room":"r","event":"e","key":""}`, "key is empty"},
		{`{"room":"r","event":"e","key":7}`, `"key" takes a string, got 7`},
		{`{"room":"r","event":"e","key":"` + strings.Repeat("k", 257) + `"}`, "at most 256 bytes"},
		{`{"user":"u","event":"e","key":"k"}`, "not for a user"},
		{`{"rom":"r","event":"e","data":1}`, `unknown member "rom"`},
		{`{"Room":"r","event":"e","data":1}`, `unknown member "Room"`},
		{`{"serverId":"emitter","type":"room","target":"r","event":"e","data":1}`, `unknown member "serverId"`},
		{`{"room":"r","event":"e","data":1,"data":2}`, `"data" twice`},
		{`{"room":"r","event":"e","data":1,"exclude":"x"}`, `"exclude" takes a list`},
		{`{"room":"r","event":"e","data":1,"exclude":[7]}`, `"exclude" takes a list`},
		{`{"user":"u","event":"e","data":1,"exclude":["x"]}`, "not from a user"},
		{`{"room":"r","event":"e","data":` + strings.Repeat("[", protocol.MaxDepth) + strings.Repeat("]", protocol.MaxDepth) + `}`, "JSON"},
	} {
		if got, err := emit.ParseLine([]byte(tt.line)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.80s: %+v, %v; want an error with %q", tt.line, got, err, tt.want)
		}
	}
}

// TestDataErrorTeaches checks that the error for missing quotes shows the correct quoting.
func TestDataErrorTeaches(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]string{
		"hello, world": `data is not JSON: hello, world; a text needs JSON quotes: '"hello, world"'`,
		"{n:1}":        `data is not JSON: "{n:1}"; quote the whole JSON for the shell: '{"n":1}'`,
		"":             "the data is empty: omit it for an event without data, or send null or {}",
		"\ufeff{}":     "data starts with a byte order mark: save the file without it",
	} {
		err := emit.Event{To: emit.ToAll, Event: "e", Data: json.RawMessage(data)}.Check()
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v\nwant %s", data, err, want)
		}
	}
}

// FuzzParseLine checks that package protocol can parse every event that ParseLine accepts.
func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`{"room":"lobby","event":"news","data":{"n":1},"exclude":["x"]}`))
	f.Add([]byte(`{"all":true,"event":"\ud800","data":"\udc00"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		ev, err := emit.ParseLine(line)
		if err != nil {
			return
		}
		types := map[string]protocol.MessageType{emit.ToRoom: protocol.TypeRoom, emit.ToUser: protocol.TypeUser,
			emit.ToClient: protocol.TypeClient, emit.ToAll: protocol.TypeBroadcast}
		m := protocol.Message{ServerID: "s", Type: types[ev.To], Target: ev.Target, Event: ev.Event, Data: ev.Data, Exclude: ev.Exclude}
		again, err := protocol.ParseMessage(protocol.AppendMessage(nil, m))
		if err != nil || string(again.Data) != string(ev.Data) || again.Event != ev.Event || again.Target != ev.Target {
			t.Errorf("%+v became %+v: %v", m, again, err)
		}
	})
}
