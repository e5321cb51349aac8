package protocol_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/hearthws/hearth/protocol"
)

// FuzzEnvelope holds ParseEnvelope against encoding/json: they agree on what is JSON, and on what an envelope says.
func FuzzEnvelope(f *testing.F) {
	for _, v := range golden[[]envelopeVector](f, "envelopes.json") {
		f.Add(input(v.Text, v.Base64))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		e, err := protocol.ParseEnvelope(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the input was changed")
		}
		if valid := json.Valid(b) && utf8.Valid(b); valid != (err != protocol.ErrSyntax) {
			t.Fatalf("valid is %v, error %v", valid, err)
		}
		if err == protocol.ErrSyntax {
			return
		}
		var object map[string]json.RawMessage // exact keys, the last of equal ones
		_ = json.Unmarshal(b, &object)
		var event string
		isString := len(object["event"]) > 0 && object["event"][0] == '"' && json.Unmarshal(object["event"], &event) == nil
		if hasEvent := isString && event != ""; hasEvent != (err == nil) {
			t.Fatalf("event %s, error %v", object["event"], err)
		}
		if err != nil {
			return
		}
		want := protocol.Envelope{Event: event, Data: object["data"], ID: object["id"]}
		if diff := cmp.Diff(want, e); diff != "" {
			t.Fatal(diff)
		}
		again, err := protocol.ParseEnvelope(protocol.AppendEvent(nil, e.Event, e.Data))
		if err != nil || again.Event != e.Event || !bytes.Equal(again.Data, e.Data) {
			t.Fatalf("sent on, it became %+v, %v", again, err)
		}
	})
}

// FuzzMessage checks that what is accepted survives being written and read.
func FuzzMessage(f *testing.F) {
	for _, v := range golden[[]messageVector](f, "messages.json") {
		f.Add(input(v.Text, v.Base64))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := protocol.ParseMessage(b)
		if err != nil {
			if !errors.Is(err, protocol.ErrMessage) {
				t.Fatal(err)
			}
			return
		}
		if err := m.Check(); err != nil {
			t.Fatal(err)
		}
		text := protocol.AppendMessage(nil, m)
		if !json.Valid(text) || !utf8.Valid(text) {
			t.Fatalf("written as %q", text)
		}
		again, err := protocol.ParseMessage(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzRooms checks that no bad name gets through, and that the good ones that encoding/json finds do.
func FuzzRooms(f *testing.F) {
	for _, v := range golden[roomVectors](f, "rooms.json").Requests {
		f.Add([]byte(v.Data))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := protocol.ParseRooms(b)
		var object map[string]json.RawMessage
		var list []any
		var want []string
		if utf8.Valid(b) && json.Unmarshal(b, &object) == nil && json.Unmarshal(object["rooms"], &list) == nil {
			for i, v := range list {
				if s, ok := v.(string); ok && i < protocol.MaxRoomsPerRequest && protocol.CheckRoom(s) == nil {
					want = append(want, s)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}
