package protocol

import (
	"bytes"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is how deep arrays and objects may nest in one JSON text, the outermost included. JSON.parse has no such
// limit, but jsontext, and encoding/json behind it, stop here: what is accepted can be decoded, and passed on, by all
// who come after.
const MaxDepth = 10_000

// A reader finds where the values of one JSON text begin and end, and copies none. It accepts what JSON.parse accepts of
// valid UTF-8. docs/adr/0002-envelope-parsing.md says why it is jsontext and how it is used.
type reader struct {
	text   []byte
	source bytes.Buffer // over text; the decoder reads it in place
	dec    jsontext.Decoder
}

// readers are used again because a decoder is large. What an idle one still refers to is at most the last text that it
// has read, and the pool forgets it within two collections.
var readers = sync.Pool{New: func() any { return new(reader) }}

// newReader is false when text is not UTF-8. Without that check jsontext, which must be told to accept invalid UTF-8
// lest it refuse the escapes of unpaired surrogates, would let it through.
func newReader(text []byte) (*reader, bool) {
	if !utf8.Valid(text) {
		return nil, false
	}
	r := readers.Get().(*reader)
	r.text = text
	r.source = *bytes.NewBuffer(text)
	r.dec.Reset(&r.source, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return r, true
}

func (r *reader) free() { readers.Put(r) }

// enter passes the opening bracket that kind names, if it is next.
func (r *reader) enter(kind jsontext.Kind) bool {
	if r.dec.PeekKind() != kind {
		return false
	}
	_, err := r.dec.ReadToken()
	return err == nil
}

// value passes one value, or a key, and returns its text, which aliases the whole; nil at the end of the object or array
// and where the text is not JSON.
func (r *reader) value() []byte {
	v, err := r.dec.ReadValue()
	if err != nil {
		return nil
	}
	end := int(r.dec.InputOffset())
	return r.text[end-len(v) : end : end]
}

// end passes the closing bracket that kind names and reports whether nothing follows.
func (r *reader) end(kind jsontext.Kind) bool { return r.leave(kind) && r.finished() }

func (r *reader) leave(kind jsontext.Kind) bool {
	t, err := r.dec.ReadToken()
	return err == nil && t.Kind() == kind
}

func (r *reader) finished() bool {
	_, err := r.dec.ReadToken()
	return err == io.EOF
}

// validJSON reports whether text is one JSON value.
func validJSON(text []byte) bool {
	r, ok := newReader(text)
	if !ok {
		return false
	}
	defer r.free()
	return r.value() != nil && r.finished()
}

// fields calls each with the members of the object that text is, in their order: keys as they are written, quotes
// included, and values, both aliasing text. It reports whether text is JSON, and whether it is an object.
func fields(text []byte, each func(key, value []byte)) (valid, object bool) {
	r, ok := newReader(text)
	if !ok {
		return false, false
	}
	defer r.free()
	if !r.enter('{') {
		return r.value() != nil && r.finished(), false
	}
	for r.dec.PeekKind() == '"' {
		key := r.value()
		value := r.value()
		if key == nil || value == nil {
			return false, true
		}
		each(key, value)
	}
	return r.end('}'), true
}

// elements calls each with the elements of the array that text is, until that says false. It reports whether text was
// an array, as far as it was read.
func elements(text []byte, each func(value []byte) bool) bool {
	r, ok := newReader(text)
	if !ok {
		return false
	}
	defer r.free()
	if !r.enter('[') {
		return false
	}
	for r.dec.PeekKind() != ']' {
		value := r.value()
		if value == nil {
			return false
		}
		if !each(value) {
			return true
		}
	}
	return r.end(']')
}

// unquote is the text of a valid JSON string, which raw is with its quotes. Unpaired surrogates become U+FFFD.
func unquote(raw []byte) string {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner)
	}
	text, _ := jsontext.AppendUnquote(nil, raw) // the error tells of unpaired surrogates
	return string(text)
}

// says reports whether the valid JSON string raw is text, however it is escaped.
func says(raw []byte, text string) bool {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner) == text
	}
	return len(inner) <= 6*len(text) && unquote(raw) == text
}
