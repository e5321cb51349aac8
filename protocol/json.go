package protocol

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// validData reports whether text is one JSON value, and as data of a message, one level deeper, still within MaxDepth.
func validData(text []byte) bool {
	s := scanner{text: text}
	return s.value(MaxDepth-1) && s.atEnd()
}

// parseObject calls each with the members of the object that text is, in their order: keys as shortText gives them, values
// as they are written, aliasing text. It reports whether text is JSON, and whether it is an object.
func parseObject(text []byte, visit func(key, value []byte)) (valid, object bool) {
	s := scanner{text: text}
	if s.skipSpace() != '{' {
		return s.value(MaxDepth) && s.atEnd(), false
	}
	s.at++
	for first := true; ; first = false {
		more, ok := s.nextElement(first, '}')
		if !ok || !more {
			return ok && s.atEnd(), true
		}
		key, ok := s.key()
		if !ok {
			return false, true
		}
		s.skipSpace()
		start := s.at
		if !s.value(MaxDepth - 1) {
			return false, true
		}
		visit(shortText(key), text[start:s.at:s.at])
	}
}

// parseArray calls each with the elements of the array that text is, until that says false. It reports whether text was
// an array, as far as it was read.
func parseArray(text []byte, visit func(value []byte) bool) bool {
	s := scanner{text: text}
	if s.skipSpace() != '[' {
		return false
	}
	s.at++
	for first := true; ; first = false {
		more, ok := s.nextElement(first, ']')
		if !ok || !more {
			return ok && s.atEnd()
		}
		s.skipSpace()
		start := s.at
		if !s.value(MaxDepth - 1) {
			return false
		}
		if !visit(text[start:s.at:s.at]) {
			return true
		}
	}
}

// shortText is the text of a valid JSON string, as a slice of raw wherever it can be. Of strings that are longer than
// any name of the protocol, with each character escaped, it leaves the escapes as they are: so it needs no memory to
// speak of, and still equals a name only if the string says that name.
func shortText(raw []byte) []byte {
	inner := raw[1 : len(raw)-1]
	if len(inner) > 64 || bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	return appendUnescaped(nil, inner)
}

// ParseString returns the text of raw, which must be a JSON string. Strings of JavaScript may hold halves of surrogate
// pairs, which JSON writes as escapes and UTF-8 cannot express. Each becomes the three bytes that UTF-8 would need for it
// (WTF-8), so that different strings stay different. Such a text is not valid UTF-8. This package writes those bytes as
// the same escape again.
func ParseString(raw []byte) (text string, ok bool) {
	s := scanner{text: raw}
	if s.skipSpace() != '"' {
		return "", false
	}
	start := s.at
	if !s.value(MaxDepth) {
		return "", false
	}
	end := s.at
	return unquote(raw[start:end]), s.atEnd()
}

// unquote is ParseString of what is known to be a JSON string, which raw is with its quotes.
func unquote(raw []byte) string {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner)
	}
	return string(appendUnescaped(make([]byte, 0, len(inner)), inner))
}

// unquoteShared is unquote of bytes that nobody will change: the text shares them if it has no escapes.
func unquoteShared(raw []byte) string {
	inner := raw[1 : len(raw)-1]
	if len(inner) == 0 || bytes.IndexByte(inner, '\\') >= 0 {
		return unquote(raw)
	}
	return unsafe.String(&inner[0], len(inner))
}

// appendUnescaped appends what inner, a valid JSON string without its quotes, says.
func appendUnescaped(dst, inner []byte) []byte {
	for {
		i := bytes.IndexByte(inner, '\\')
		if i < 0 {
			return append(dst, inner...)
		}
		dst = append(dst, inner[:i]...)
		r, n := unescape(inner[i:])
		if utf16.IsSurrogate(r) {
			dst = append(dst, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F)
		} else {
			dst = utf8.AppendRune(dst, r)
		}
		inner = inner[i+n:]
	}
}

// unescape is the character that the escape sequence at the start of b stands for, and the sequence's length: two
// sequences, if they are the halves of a surrogate pair. A half alone is itself.
func unescape(b []byte) (r rune, n int) {
	switch b[1] {
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r, _ := hex4(b)
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		low, _ := hex4(b[6:])
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			return pair, 12
		}
		return r, 6
	}
	return rune(b[1]), 2 // quote, backslash, slash
}
