package protocol

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest in one JSON text, the outermost included. JSON.parse has no such
// limit, but encoding/json stops here: what is accepted can be decoded, and passed on, by all who come after.
const MaxDepth = 10_000

// A scanner checks JSON and finds where its values begin and end. It accepts what JSON.parse accepts of valid UTF-8
// (RFC 8259; no byte order mark; escapes of unpaired surrogates are fine). It copies nothing and does not recurse.
// docs/adr/0002-envelope-parsing.md says why there is one.
//
// Methods that return false have met what is not JSON; the position is of no use then. A byte of 0 stands for the end
// of the text: where a byte is looked at, no other 0 is JSON either.
type scanner struct {
	text []byte
	at   int
}

// peek is the next byte.
func (s *scanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

// skipSpace passes white space and returns the byte after it, which it does not pass.
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

// atEnd reports whether nothing but white space is left.
func (s *scanner) atEnd() bool {
	s.skipSpace()
	return s.at == len(s.text)
}

// nextElement passes what stands before an element or a member that is not the first, a comma, or else the bracket that closes.
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

// key passes the name of a member, which it returns with its quotes, and the colon.
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

// value passes one value, in which arrays and objects may nest depth deep.
func (s *scanner) value(depth int) bool {
	if c := s.skipSpace(); c == '{' || c == '[' {
		return s.nested(depth)
	}
	return s.scalar()
}

// nested passes an array or object.
func (s *scanner) nested(depth int) bool {
	var few [64]byte // saves memory from the heap
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

// afterValue passes the brackets that close after a value, and the comma and key before the next value. It returns the
// brackets that are still open, without which there is no next value.
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

// keyIfObject is key between braces, and nothing between brackets.
func (s *scanner) keyIfObject(bracket byte) bool {
	if bracket == '[' {
		return true
	}
	_, ok := s.key()
	return ok
}

// closing is the bracket that closes what the bracket c opens: in ASCII both follow by two.
func closing(c byte) byte { return c + 2 }

// scalar passes a value that is neither array nor object. It comes next, without white space before it.
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

// str passes a string, whose opening quote comes next.
func (s *scanner) str() bool {
	b, start := s.text, s.at+1
	var seen uint64 // all bytes laid over one another, and perhaps some of those that follow
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
		default: // among the last eight
			seen |= uint64(c)
			i++
		}
	}
	return false
}

const (
	lowBits  = 0x0101010101010101 // times c: c in each of eight bytes
	highBits = 0x8080808080808080
)

// specialBytes marks the quotes, backslashes and control characters among the eight bytes of w, by their top bits. The lowest
// mark is right; above it there may be others that are not. To look at eight at a time pays: byte by byte a long text
// takes five times as long.
func specialBytes(w uint64) uint64 {
	quote, backslash := w^'"'*lowBits, w^'\\'*lowBits
	// Where a byte is less than what is subtracted it borrows, from its top bit and from the byte above.
	return ((w-' '*lowBits)&^w | (quote-lowBits)&^quote | (backslash-lowBits)&^backslash) & highBits
}

// escape is the length of the escape sequence that b starts with, 0 if it is none.
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

// hex4 is the value of the \uXXXX that b starts with.
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
