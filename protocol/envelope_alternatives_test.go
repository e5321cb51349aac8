package protocol_test

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hearthws/hearth/protocol"
)

// Other ways to parse an envelope, for the benchmark and as oracles.
// docs/adr/0002-envelope-parsing.md has their costs.

// parseStd decodes with encoding/json into a struct. It matches keys without regard to case and
// accepts invalid UTF-8.
func parseStd(b []byte) (protocol.Envelope, error) {
	var e struct {
		Event string          `json:"event"`
		Data  json.RawMessage `json:"data"`
		ID    json.RawMessage `json:"id"`
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return protocol.Envelope{}, err
	}
	return protocol.Envelope{Event: e.Event, Data: e.Data, ID: e.ID}, nil
}

// parseV2 decodes with the next version of encoding/json into a struct. It copies data.
func parseV2(b []byte) (protocol.Envelope, error) {
	var e struct {
		Event string         `json:"event"`
		Data  jsontext.Value `json:"data"`
		ID    jsontext.Value `json:"id"`
	}
	if err := jsonv2.Unmarshal(b, &e, jsontext.AllowDuplicateNames(true)); err != nil {
		return protocol.Envelope{}, err
	}
	return protocol.Envelope{Event: e.Event, Data: json.RawMessage(e.Data), ID: json.RawMessage(e.ID)}, nil
}

type pooledDecoder struct {
	buf bytes.Buffer
	dec *jsontext.Decoder
}

var decoders = sync.Pool{New: func() any { return &pooledDecoder{dec: jsontext.NewDecoder(strings.NewReader(""))} }}

// parseTokens reads the tokens of jsontext with pooled decoders, written for speed: it finds data
// by its offsets and aliases b. Unpaired surrogate escapes need AllowInvalidUTF8, so it checks
// UTF-8 first.
func parseTokens(b []byte) (protocol.Envelope, error) {
	if !utf8.Valid(b) {
		return protocol.Envelope{}, protocol.ErrSyntax
	}
	p := decoders.Get().(*pooledDecoder)
	defer decoders.Put(p)
	p.buf = *bytes.NewBuffer(b) // the decoder reads a bytes.Buffer in place
	d := p.dec
	d.Reset(&p.buf, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	e, err := readTokens(d, b)
	if err != nil {
		return protocol.Envelope{}, err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return protocol.Envelope{}, protocol.ErrSyntax
	}
	if e.Event == "" {
		return protocol.Envelope{}, protocol.ErrNoEvent
	}
	return e, nil
}

func readTokens(d *jsontext.Decoder, b []byte) (e protocol.Envelope, err error) {
	if d.PeekKind() != '{' {
		if err := d.SkipValue(); err != nil {
			return e, protocol.ErrSyntax
		}
		return e, nil
	}
	if _, err := d.ReadToken(); err != nil {
		return e, protocol.ErrSyntax
	}
	for d.PeekKind() != '}' {
		key, err := d.ReadToken()
		if err != nil {
			return e, protocol.ErrSyntax
		}
		name := key.String()
		if name == "event" && d.PeekKind() == '"' {
			t, err := d.ReadToken()
			if err != nil {
				return e, protocol.ErrSyntax
			}
			e.Event = t.String()
			continue
		}
		v, err := d.ReadValue()
		if err != nil {
			return e, protocol.ErrSyntax
		}
		end := int(d.InputOffset())
		switch value := b[end-len(v) : end : end]; name {
		case "event":
			e.Event = ""
		case "data":
			e.Data = value
		case "id":
			e.ID = value
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return e, protocol.ErrSyntax
	}
	return e, nil
}

// parseValid only checks the text with jsontext. This is the lower bound for any parser built on
// it.
func parseValid(b []byte) (protocol.Envelope, error) {
	if !jsontext.Value(b).IsValid(jsontext.AllowDuplicateNames(true)) {
		return protocol.Envelope{}, protocol.ErrSyntax
	}
	return protocol.Envelope{}, nil
}

// validTokens checks a text with jsontext by the protocol's rules. Unpaired surrogate escapes need
// AllowInvalidUTF8.
func validTokens(b []byte) bool {
	return utf8.Valid(b) && jsontext.Value(b).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// parseStdValid only checks the text with encoding/json.
func parseStdValid(b []byte) (protocol.Envelope, error) {
	if !json.Valid(b) {
		return protocol.Envelope{}, protocol.ErrSyntax
	}
	return protocol.Envelope{}, nil
}

// BenchmarkParseEnvelope compares ParseEnvelope with the alternatives.
func BenchmarkParseEnvelope(b *testing.B) {
	texts := []struct{ name, text string }{
		{"heartbeat", `{"event":"heartbeat"}`},
		{"short", `{"event":"say","data":{"text":"hello!"}}`},
		{"object", `{"event":"move","id":"8f1c","data":{"x":10.25,"y":-3,"at":1700000000000,"tags":["a","b",null],"on":true}}`},
		{"text8K", `{"event":"say","data":{"text":"` + strings.Repeat("All the world is a stage, and so is the next one. ", 164) + `"}}`},
		{"cyrillic8K", `{"event":"say","data":{"text":"` + strings.Repeat("Весь мир театр ", 300) + `"}}`},
		{"numbers8K", `{"event":"say","data":[` + strings.Repeat("12.5,-3,1e9,", 680) + `0]}`},
	}
	parsers := []struct {
		name  string
		parse func([]byte) (protocol.Envelope, error)
	}{
		{"hearth", protocol.ParseEnvelope},
		{"jsontext", parseTokens},
		{"jsontext-valid-only", parseValid},
		{"json-v2", parseV2},
		{"encoding-json", parseStd},
		{"encoding-json-valid-only", parseStdValid},
	}
	for _, text := range texts {
		for _, p := range parsers {
			b.Run(text.name+"/"+p.name, func(b *testing.B) {
				in := []byte(text.text)
				b.ReportAllocs()
				b.SetBytes(int64(len(in)))
				for b.Loop() {
					if _, err := p.parse(in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
