package protocol_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/hearthws/hearth/protocol"
)

// reencode parses the data of a message to nodes and encodes it again.
func reencode(m protocol.Message) (json.RawMessage, error) {
	switch {
	case m.Event == protocol.NodeHello || m.Event == protocol.NodeHere || m.Event == protocol.NodeBye:
		p, err := protocol.ParsePresence(m.Data)
		if err != nil {
			return nil, err
		}
		return p.Data()
	case m.Event == protocol.NodeMissed:
		missed, err := protocol.ParseMissed(m.Data)
		if err != nil {
			return nil, err
		}
		return missed.Data()
	case m.Type == protocol.TypeNode:
		r, err := protocol.ParseReply(m.Data)
		if err != nil {
			return nil, err
		}
		return r.Data()
	default:
		c, err := protocol.ParseCall(m.Event, m.Data)
		if err != nil {
			return nil, err
		}
		return c.Data()
	}
}

// TestNodeMessages parses the golden messages to nodes and encodes them again. The result must be
// the same.
func TestNodeMessages(t *testing.T) {
	t.Parallel()
	found := 0
	for _, v := range golden[[]messageVector](t, "messages.json") {
		m, err := protocol.ParseMessage(input(v.Text, v.Base64))
		if err != nil || m.Type < protocol.TypeNodes {
			continue
		}
		found++
		if again, err := reencode(m); err != nil || string(again) != string(m.Data) {
			t.Errorf("%s: written as %s, %v; want %s", v.Name, again, err, m.Data)
		}
	}
	if found < 10 {
		t.Errorf("only %d messages to nodes", found)
	}
}

func TestCallCheck(t *testing.T) {
	t.Parallel()
	const claim = `{"client":"2f1b7c1e-6d0c-4f0e-9a55-0d4b358aef94","issued":"2026-03-01T09:30:00Z"}`
	good := map[string]string{
		"count":      `{"call":1,"type":"broadcast","target":""}`,
		"disconnect": `{"type":"client","target":"c","code":1000}`,
		"join":       `{"type":"user","target":"u","rooms":["a"],"within":99999999999}`,
		"leave":      `{"type":"client","target":"c"}`,
		"revoke":     `{"type":"client","target":"c"}`,
		"resume":     `{"type":"broadcast","claims":[` + strings.Repeat(claim+",", 255) + claim + `]}`,
	}
	for event, data := range good {
		c, err := protocol.ParseCall(event, json.RawMessage(data))
		if err != nil || c.Within > time.Hour {
			t.Errorf("%s %s: %+v, %v", event, data, c, err)
		}
	}
	for event, datas := range map[string][]string{
		"count":      {"", "null", "7", `{"type":"nodes"}`, `{"type":"room"}`, `{"type":"user","target":7}`, `{"call":-1,"type":"broadcast"}`, `{"call":1.5,"type":"broadcast"}`},
		"disconnect": {`{"type":"room","target":"r","code":4000}`, `{"type":"broadcast","code":4000}`, `{"type":"user","target":"u","code":1006}`, `{"type":"user","target":"u"}`},
		"join":       {`{"type":"room","target":"c","rooms":["a"]}`, `{"type":"broadcast","rooms":["a"]}`, `{"type":"user","target":"u","rooms":["ws:a"]}`, `{"type":"user","target":"u","rooms":"a"}`, `{"type":"user","target":"u","rooms":[` + strings.Repeat(`"a",`, 128) + `"a"]}`},
		"revoke":     {`{"type":"broadcast"}`, `{"type":"room","target":"r"}`},
		"resume": {
			`{"type":"broadcast"}`, `{"type":"broadcast","claims":[]}`, `{"type":"user","target":"u","claims":[` + claim + `]}`,
			`{"type":"broadcast","claims":[{"client":"c","issued":"2026-03-01T09:30:00Z"}]}`,
			`{"type":"broadcast","claims":[{"client":"2f1b7c1e-6d0c-4f0e-9a55-0d4b358aef94"}]}`,
			`{"type":"broadcast","claims":[{"client":"2f1b7c1e-6d0c-4f0e-9a55-0d4b358aef94","issued":7}]}`,
			`{"type":"broadcast","claims":[` + strings.Replace(claim, `"issued"`, `"generation":4294967296,"issued"`, 1) + `]}`,
			`{"type":"broadcast","claims":[` + strings.Repeat(claim+",", 256) + claim + `]}`,
		},
		"explode": {`{"type":"user","target":"u"}`},
	} {
		for _, data := range datas {
			if c, err := protocol.ParseCall(event, json.RawMessage(data)); !errors.Is(err, protocol.ErrMessage) {
				t.Errorf("%s %s: %+v, %v", event, data, c, err)
			}
		}
	}
	large := protocol.Call{Event: protocol.CallCount, Type: protocol.TypeUser, Target: strings.Repeat("x", protocol.MaxNodeData)}
	if _, err := large.Data(); !errors.Is(err, protocol.ErrMessage) {
		t.Errorf("a large call: %v", err)
	}
}

// TestTruncatedData checks that long texts are truncated at the end of a character.
func TestTruncatedData(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("x", protocol.MaxNodeName-1) + "é"
	data, err := protocol.Presence{Name: name}.Data()
	if want := fmt.Sprintf(`{"name":%q}`, strings.TrimSuffix(name, "é")); err != nil || string(data) != want {
		t.Errorf("%s, %v", data, err)
	}
	r, err := protocol.ParseReply(json.RawMessage(`{"call":1,"error":"` + strings.Repeat("é", 1000) + `"}`))
	if err != nil || len(r.Error) != protocol.MaxCallError || !utf8.ValidString(r.Error) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestIsID(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"2f1b7c1e-6d0c-4f0e-9a55-0d4b2f6f8c11": true, "2f1b7c1e-6d0c-4f0e-ba55-0d4b2f6f8c11": true,
		"2F1B7C1E-6D0C-4F0E-9A55-0D4B2F6F8C11": false, "2f1b7c1e-6d0c-1f0e-9a55-0d4b2f6f8c11": false,
		"2f1b7c1e-6d0c-4f0e-7a55-0d4b2f6f8c11": false, "2f1b7c1e6d0c4f0e9a550d4b2f6f8c11": false,
		"2f1b7c1e-6d0c-4f0e-9a55-0d4b2f6f8c1": false, "2f1b7c1e-6d0c-4f0e-9a55-0d4b2f6f8c1g": false, "": false,
		"2f1b7c1e-6d0c-4f0e-9a55_0d4b2f6f8c11": false,
	} {
		if got := protocol.IsID(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// FuzzNodeData checks that accepted data of other nodes stays the same when it is encoded and
// parsed again, and stays within its bounds.
func FuzzNodeData(f *testing.F) {
	for _, v := range golden[[]messageVector](f, "messages.json") {
		if m, err := protocol.ParseMessage(input(v.Text, v.Base64)); err == nil && m.Type >= protocol.TypeNodes {
			f.Add(m.Event, []byte(m.Data))
		}
	}
	f.Fuzz(func(t *testing.T, event string, b []byte) {
		if p, err := protocol.ParsePresence(b); err == nil && len(p.Name) > protocol.MaxNodeName {
			t.Errorf("a name of %d bytes", len(p.Name))
		}
		if r, err := protocol.ParseReply(b); err == nil {
			data, err := r.Data()
			again, perr := protocol.ParseReply(data)
			if err != nil || perr != nil || !cmp.Equal(r, again) {
				t.Errorf("%+v became %+v: %v, %v", r, again, err, perr)
			}
		}
		c, err := protocol.ParseCall(event, b)
		if err != nil {
			if !errors.Is(err, protocol.ErrMessage) {
				t.Error(err)
			}
			return
		}
		data, err := c.Data()
		if err != nil {
			return // with its escapes it is longer than it was
		}
		again, err := protocol.ParseCall(event, data)
		if len(c.Rooms) == 0 {
			c.Rooms, again.Rooms = nil, nil
		}
		if err != nil || !cmp.Equal(c, again) {
			t.Errorf("%+v became %+v: %v", c, again, err)
		}
	})
}
