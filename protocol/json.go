package protocol

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// validData reports whether text is one JSON value that stays within MaxDepth as the data of a
// message, one level deeper.
func validData(text []byte) bool {
	s := scanner{text: text}
	return s.value(MaxDepth-1) && s.atEnd()
}

// parseObject calls visit with each member of the object in text, in order. Keys are decoded as
// shortText does; values are raw text that aliases the input. It reports whether text is valid
// JSON, and whether it is an object.
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

// parseArray calls visit with each element of the array in text, until visit returns false. It
// reports whether text is an array, as far as it was read.
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

// shortText returns the text of a valid JSON string, as a subslice of raw if possible. If the
// string is longer than every name of the protocol with each character escaped, shortText leaves
// its escapes in place. This bounds the allocation, and the result still equals a name only if the
// string is that name.
func shortText(raw []byte) []byte {
	inner := raw[1 : len(raw)-1]
	if len(inner) > 64 || bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	return appendUnescaped(nil, inner)
}

// ParseString returns the text of raw, which must be a JSON string. JavaScript strings may contain
// unpaired surrogates, which JSON writes as escapes and UTF-8 cannot represent. Each becomes the
// three bytes of its WTF-8 encoding, so that different strings stay different. Such a text is not
// valid UTF-8. This package writes those bytes as the same escape again.
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

// unquote is ParseString for raw that is known to be a valid JSON string, with its quotes.
func unquote(raw []byte) string {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner)
	}
	return string(appendUnescaped(make([]byte, 0, len(inner)), inner))
}

// unquoteShared is unquote for bytes that never change: the result shares their memory if raw has
// no escapes.
func unquoteShared(raw []byte) string {
	inner := raw[1 : len(raw)-1]
	if len(inner) == 0 || bytes.IndexByte(inner, '\\') >= 0 {
		return unquote(raw)
	}
	return unsafe.String(&inner[0], len(inner))
}

// appendUnescaped appends the decoded text of inner, a valid JSON string without its quotes.
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

// unescape decodes the escape sequence at the start of b. It returns the character and the length
// of the sequence. A surrogate pair is two sequences. An unpaired surrogate is returned unchanged.
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
