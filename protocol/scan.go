package protocol

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// MaxDepth is the maximum nesting of arrays and objects in one JSON text, including the outermost.
// JSON.parse has no such limit, but encoding/json does. With this limit, every receiver can decode
// accepted data and pass it on.
const MaxDepth = 10_000

// A scanner checks JSON and finds where its values begin and end. It accepts the valid UTF-8 that
// JSON.parse accepts (RFC 8259): no byte order mark, but escapes of unpaired surrogates. It copies
// nothing and does not recurse. docs/adr/0002-envelope-parsing.md says why it exists.
//
// Methods return false if the text is not JSON; the position is meaningless then. The byte 0 stands
// for the end of the text, since no valid JSON has a 0 where these methods look at a byte.
type scanner struct {
	text []byte
	at   int
}

// peek returns the next byte without consuming it, 0 at the end.
func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

// skipSpace skips white space and returns the next byte without consuming it.
func (s *scanner) skipSpace() byte {
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// atEnd reports whether only white space is left.
func (s *scanner) atEnd() bool {
	s.skipSpace()
	return s.at == len(s.text)
}

// nextElement consumes the comma before an element or member, which the first one does not have, or
// else the closing bracket. more is false after the closing bracket.
func (s *scanner) nextElement(first bool, closing byte) (more, ok bool) {
	switch c := s.skipSpace(); {
	case c == closing:
		s.at++
		return false, true
	case first:
		return true, true
	case c == ',':
		s.at++
		return true, true
	}
	return false, false
}

// key consumes the name of a member and the colon. It returns the name with its quotes.
func (s *scanner) key() (name []byte, ok bool) {
	if s.skipSpace() != '"' {
		return nil, false
	}
	start := s.at
	if !s.str() {
		return nil, false
	}
	name = s.text[start:s.at]
	if s.skipSpace() != ':' {
		return nil, false
	}
	s.at++
	return name, true
}

// value consumes one value, in which arrays and objects may nest up to depth.
func (s *scanner) value(depth int) bool {
	if c := s.skipSpace(); c == '{' || c == '[' {
		return s.nested(depth)
	}
	return s.scalar()
}

// nested consumes an array or object.
func (s *scanner) nested(depth int) bool {
	var few [64]byte // avoids a heap allocation for most texts
	open := few[:0]  // the brackets that are open
	for {
		c := s.skipSpace()
		if c != '{' && c != '[' {
			if !s.scalar() {
				return false
			}
		} else {
			if len(open) == depth {
				return false
			}
			open = append(open, c)
			s.at++
			if s.skipSpace() != closing(c) {
				if !s.keyIfObject(c) {
					return false
				}
				continue
			}
		}
		ok := false
		if open, ok = s.afterValue(open); !ok || len(open) == 0 {
			return ok
		}
	}
}

// afterValue consumes the brackets that close after a value, and the comma and key before the next
// value. It returns the brackets that are still open; if there are none, the outermost value has
// ended.
func (s *scanner) afterValue(open []byte) (still []byte, ok bool) {
	for len(open) > 0 {
		bracket := open[len(open)-1]
		c := s.skipSpace()
		s.at++
		if c == ',' {
			return open, s.keyIfObject(bracket)
		}
		if c != closing(bracket) {
			return nil, false
		}
		open = open[:len(open)-1]
	}
	return open, true
}

// keyIfObject consumes a key if bracket opens an object. It does nothing in an array.
func (s *scanner) keyIfObject(bracket byte) bool {
	if bracket == '[' {
		return true
	}
	_, ok := s.key()
	return ok
}

// closing returns the bracket that closes c. In ASCII both closing brackets are two after the
// opening one.
func closing(c byte) byte { return c + 2 }

// scalar consumes a value that is neither an array nor an object, without white space before it.
func (s *scanner) scalar() bool {
	switch s.peek() {
	case '"':
		return s.str()
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	return s.number()
}

func (s *scanner) literal(word string) bool {
	if len(s.text)-s.at < len(word) || string(s.text[s.at:s.at+len(word)]) != word {
		return false
	}
	s.at += len(word)
	return true
}

func (s *scanner) number() bool {
	if s.peek() == '-' {
		s.at++
	}
	if s.peek() == '0' {
		s.at++
	} else if !s.digits() {
		return false
	}
	if s.peek() == '.' {
		s.at++
		if !s.digits() {
			return false
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.at++
		if c := s.peek(); c == '+' || c == '-' {
			s.at++
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	i := s.at
	for i < len(s.text) && s.text[i]-'0' <= 9 {
		i++
	}
	some := i > s.at
	s.at = i
	return some
}

// str consumes a string, starting with its opening quote.
func (s *scanner) str() bool {
	b, start := s.text, s.at+1
	var seen uint64 // OR of all bytes of the string, and perhaps of some bytes after it
	for i := start; i < len(b); {
		for ; len(b)-i >= 8; i += 8 {
			w := binary.LittleEndian.Uint64(b[i:])
			seen |= w
			if stop := specialBytes(w); stop != 0 {
				i += bits.TrailingZeros64(stop) / 8
				break
			}
		}
		if i == len(b) {
			return false
		}
		switch c := b[i]; {
		case c == '"':
			s.at = i + 1
			return seen&highBits == 0 || utf8.Valid(b[start:i])
		case c == '\\':
			n := escape(b[i:])
			if n == 0 {
				return false
			}
			i += n
		case c < ' ':
			return false
		default: // one of the last seven bytes
			seen |= uint64(c)
			i++
		}
	}
	return false
}

const (
	lowBits  = 0x0101010101010101 // multiplied by c: c in each of eight bytes
	highBits = 0x8080808080808080
)

// specialBytes sets the top bit of each quote, backslash and control character among the eight
// bytes of w. Only the lowest set bit is reliable; bits above it may be false. Looking at eight
// bytes at a time pays: a loop over single bytes takes five times as long for long texts.
func specialBytes(w uint64) uint64 {
	quote, backslash := w^'"'*lowBits, w^'\\'*lowBits
	// A subtraction borrows where a byte is smaller than its subtrahend: from its own top bit, and
	// from the next higher byte.
	return ((w-' '*lowBits)&^w | (quote-lowBits)&^quote | (backslash-lowBits)&^backslash) & highBits
}

// escape returns the length of the escape sequence at the start of b, 0 if there is none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if _, ok := hex4(b); ok {
			return 6
		}
	}
	return 0
}

// hex4 returns the value of the \uXXXX at the start of b.
func hex4(b []byte) (v rune, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		switch lower := c | 0x20; {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= lower && lower <= 'f':
			c = lower - 'a' + 10
		default:
			return 0, false
		}
		v = v<<4 | rune(c)
	}
	return v, true
}
