package protocol_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hearthws/hearth/protocol"
)

// hardTexts are texts on which JSON parsers often differ, as whole texts or as data.
var hardTexts = []string{
	"", " ", "null", "-", "-0", "01", "1.", ".5", "1e", "1E+9", "-0.0e-0", "1 2", "tru", "truex", "nul", "\ufeff1",
	"[", "[1,]", "[,1]", "[1 2]", "[]]", "[}", "{]", "{}", " [ ] ", `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{a:1}`, `{"a" : [ { } , [ ] ] }`,
	`"`, `"\`, `"\"`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\u00E9\ud83d\ude00"`, `"\ud800"`, `"\ud800\ud83d\ude00"`, `"\udc00\ud800"`, `"\ud800\n"`,
	"\"\x00\"", "\"a\nb\"", "\"\x7f\"", "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"1234567\xe2\x82\"", "\"12345678\xe2\x82\xac\"",
	`"1234567\""`, `"123456\n"`, "\"12345678\x1f\"", "\"1234567é\",\"\x1f\"", `"!#[]!#[]"`, "\"\x01\"\"", `"\/\b\f\n\r\t\\"`,
	"1\x00", "[1\x00]", "\x00", nest(70),
}

// loneSurrogate returns the index of the first unpaired surrogate in text, as ParseString encodes
// it; len(text) if there is none.
func loneSurrogate(text string) int {
	for i := range len(text) - 2 {
		if text[i] == 0xED && text[i+1] >= 0xA0 && text[i+1] <= 0xBF && text[i+2] >= 0x80 && text[i+2] <= 0xBF {
			return i
		}
	}
	return len(text)
}

// replaceSurrogates returns text as other parsers decode it, with U+FFFD for unpaired surrogates.
func replaceSurrogates(text string) string {
	i := loneSurrogate(text)
	if i == len(text) {
		return text
	}
	return text[:i] + "\ufffd" + replaceSurrogates(text[i+3:])
}

// FuzzData compares the check of data with encoding/json and jsontext.
func FuzzData(f *testing.F) {
	for _, text := range hardTexts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		// Data must still be valid one level deeper.
		inside := append(append([]byte("["), b...), ']')
		_, err := protocol.EncodeData(json.RawMessage(b))
		if want := json.Valid(b) && json.Valid(inside) && utf8.Valid(b); want != (err == nil) {
			t.Errorf("encoding/json: valid is %v, error %v", want, err)
		}
		if want := validTokens(b) && validTokens(inside); want != (err == nil) {
			t.Errorf("jsontext: valid is %v, error %v", want, err)
		}
	})
}

// FuzzText compares how strings are written and read with jsontext.
func FuzzText(f *testing.F) {
	for _, text := range hardTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := protocol.AppendEvent(nil, text, nil)
		want := `{"event":"`
		for rest := text; ; {
			at := loneSurrogate(rest)
			quoted, _ := jsontext.AppendQuote(nil, rest[:at]) // the error is about invalid UTF-8
			want += string(quoted[1 : len(quoted)-1])
			if rest = rest[at:]; rest == "" {
				break
			}
			want += fmt.Sprintf(`\ud%x%x%x`, rest[1]>>2&15, rest[1]&3<<2|rest[2]>>4&3, rest[2]&15)
			rest = rest[3:]
		}
		if want += `"}`; string(got) != want {
			t.Fatalf("written as %s, want %s", got, want)
		}
		e, err := protocol.ParseEnvelope(got)
		if text != "" && (err != nil || loneSurrogate(text) == len(text) && e.Event != string([]rune(text))) {
			t.Fatalf("read as %q, %v", e.Event, err)
		}
		if s, ok := protocol.ParseString(got[len(`{"event":`) : len(got)-1]); !ok || s != e.Event {
			t.Fatalf("read alone as %q, %v", s, ok)
		}
		if again, err := protocol.ParseEnvelope(protocol.AppendEvent(nil, e.Event, nil)); text != "" && (err != nil || again.Event != e.Event) {
			t.Fatalf("read again as %q, %v", again.Event, err)
		}
	})
}

// FuzzEnvelope compares ParseEnvelope with encoding/json and jsontext: both must agree with it on
// validity and content.
func FuzzEnvelope(f *testing.F) {
	for _, v := range golden[[]envelopeVector](f, "envelopes.json") {
		f.Add(input(v.Text, v.Base64))
	}
	for _, text := range hardTexts {
		f.Add([]byte(text))
		f.Add([]byte(`{"\u0065vent" : ` + text + ` , "id":` + text + `,"event":"e","data":` + text + `}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		e, err := protocol.ParseEnvelope(b)
		if !bytes.Equal(b, before) {
			t.Fatal("ParseEnvelope changed its input")
		}
		if valid := json.Valid(b) && utf8.Valid(b); valid != (err != protocol.ErrSyntax) {
			t.Fatalf("valid is %v, error %v", valid, err)
		}
		other, otherErr := parseTokens(b)
		if otherErr != err {
			t.Fatalf("error %v, jsontext's error %v", err, otherErr)
		}
		replaced := e
		replaced.Event = replaceSurrogates(e.Event)
		if diff := cmp.Diff(other, replaced); diff != "" {
			t.Fatalf("differs from jsontext: %s", diff)
		}
		if err == protocol.ErrSyntax {
			return
		}
		var object map[string]json.RawMessage // keys match exactly; the last of equal keys counts
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
		if diff := cmp.Diff(want, replaced); diff != "" {
			t.Fatal(diff)
		}
		again, err := protocol.ParseEnvelope(protocol.AppendEvent(nil, e.Event, e.Data))
		if err != nil || again.Event != e.Event || !bytes.Equal(again.Data, e.Data) {
			t.Fatalf("encoded and parsed again: %+v, %v", again, err)
		}
	})
}

// FuzzMessage checks that encoding/json decodes an accepted message to the same values, and that
// encoding and parsing it again changes nothing.
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
		replaced := m.Clone()
		replaced.ServerID, replaced.Target, replaced.Event = replaceSurrogates(m.ServerID), replaceSurrogates(m.Target), replaceSurrogates(m.Event)
		for i, id := range m.Exclude {
			replaced.Exclude[i] = replaceSurrogates(id)
		}
		if diff := cmp.Diff(messageStd(b, m), replaced, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
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

// messageStd decodes b, which has been accepted, with encoding/json, starting from m.
func messageStd(b []byte, m protocol.Message) protocol.Message {
	var object map[string]json.RawMessage // keys match exactly; the last of equal keys counts
	_ = json.Unmarshal(b, &object)
	var typ string
	want := protocol.Message{Data: object["data"]}
	_ = json.Unmarshal(object["serverId"], &want.ServerID)
	_ = json.Unmarshal(object["event"], &want.Event)
	if _ = json.Unmarshal(object["type"], &typ); typ == m.Type.String() {
		want.Type = m.Type
	}
	if m.Type != protocol.TypeBroadcast {
		_ = json.Unmarshal(object["target"], &want.Target)
	}
	if m.Type == protocol.TypeRoom || m.Type == protocol.TypeBroadcast {
		var list []any
		_ = json.Unmarshal(object["exclude"], &list)
		for _, v := range list {
			if s, ok := v.(string); ok {
				want.Exclude = append(want.Exclude, s)
			}
		}
	}
	if m.Type == protocol.TypeRoom && object["offset"] != nil {
		_ = json.Unmarshal(object["offset"], &want.Position.Offset)
		_ = json.Unmarshal(object["epoch"], &want.Position.Epoch)
	}
	return want
}

// FuzzRooms checks that no invalid name is returned, and that every valid name that encoding/json
// finds is.
func FuzzRooms(f *testing.F) {
	for _, v := range golden[roomVectors](f, "rooms.json").Requests {
		f.Add([]byte(v.Data))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := protocol.ParseRooms(b)
		var object map[string]json.RawMessage
		var list []json.RawMessage
		var want []string
		if utf8.Valid(b) && json.Unmarshal(b, &object) == nil && json.Unmarshal(object["rooms"], &list) == nil {
			for i, v := range list {
				var s string
				if v[0] != '"' || json.Unmarshal(v, &s) != nil || i >= protocol.MaxRoomsPerRequest || protocol.CheckRoom(s) != nil {
					continue
				}
				// Otherwise it has unpaired surrogates.
				if text, ok := protocol.ParseString(v); ok && text == s {
					want = append(want, s)
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}
