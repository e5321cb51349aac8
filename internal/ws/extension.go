package ws

import (
	"errors"
	"strings"
)

var (
	errExtensions = errors.New("malformed extension list")
	errProtocols  = errors.New("malformed list of subprotocols")
)

// An offer is one extension in Sec-WebSocket-Extensions, with the properties that matter here.
type offer struct {
	ok   bool   // permessage-deflate, with parameters that this package supports
	seen params // the parameters of the offer
}

// params is a set of the parameters of permessage-deflate.
type params uint8

const (
	serverNoContextTakeover params = 1 << iota
	clientNoContextTakeover
	serverMaxWindowBits
	clientMaxWindowBits
)

// negotiate returns the first offer that can be accepted (RFC 7692 §5.1, §7.1), or the zero offer
// if there is none. A list that violates the grammar of RFC 6455 §9.1 anywhere is an error.
//
// It parses without allocating: the cost is linear in the length of the header, which the server
// limits.
func negotiate(lines []string) (offer, error) {
	var best offer
	for _, line := range lines {
		s := scanner{rest: line}
		for {
			for s.eat(',') { // a list may have empty elements
			}
			if s.done() {
				break
			}
			o, ok := s.extension()
			if !ok || !s.done() && s.rest[0] != ',' {
				return offer{}, errExtensions
			}
			if !best.ok && o.ok {
				best = o
			}
		}
	}
	return best, nil
}

// addParam checks one parameter of an offer. An unknown parameter, a duplicate, or an invalid value
// declines the whole offer (RFC 7692 §7.1).
func (o *offer) addParam(name, value string, hasValue bool) {
	var p params
	good := true
	switch name {
	case "server_no_context_takeover":
		p, good = serverNoContextTakeover, !hasValue
	case "client_no_context_takeover":
		p, good = clientNoContextTakeover, !hasValue
	case "server_max_window_bits":
		// A smaller window is declined, because a message is compressed once for all receivers,
		// with a window of 2^15 bytes.
		p, good = serverMaxWindowBits, value == "15"
	case "client_max_window_bits":
		// A window of 2^15 bytes can read any smaller window of the client, so the answer need not
		// mention it.
		p, good = clientMaxWindowBits, !hasValue || validWindowBits(value)
	default:
		good = false
	}
	if !good || o.seen&p != 0 {
		o.ok = false
	}
	o.seen |= p
}

// validWindowBits reports whether s is 8 to 15 without leading zeros (RFC 7692 §7.1.2).
func validWindowBits(s string) bool {
	switch s {
	case "8", "9", "10", "11", "12", "13", "14", "15":
		return true
	}
	return false
}

// A scanner parses the grammar of RFC 6455 §9.1 from the front of rest.
type scanner struct{ rest string }

// space skips blanks, which may be between any two elements.
func (s *scanner) space() { s.rest = strings.TrimLeft(s.rest, " \t") }

func (s *scanner) done() bool {
	s.space()
	return s.rest == ""
}

// eat consumes c if it is next.
func (s *scanner) eat(c byte) bool {
	s.space()
	if s.rest == "" || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// extension parses: extension-token *( ";" extension-param ).
func (s *scanner) extension() (o offer, ok bool) {
	name := s.token()
	o.ok = name == "permessage-deflate"
	ok = name != ""
	for ok && s.eat(';') {
		var key, value string
		var hasValue bool
		if key = s.token(); key == "" {
			return o, false
		}
		if hasValue = s.eat('='); hasValue {
			if value = s.value(); value == "" {
				return o, false
			}
		}
		o.addParam(key, value, hasValue)
	}
	return o, ok
}

// token parses a token; "" means that there is none.
func (s *scanner) token() string {
	s.space()
	n := 0
	for n < len(s.rest) && tokenChar(s.rest[n]) {
		n++
	}
	token := s.rest[:n]
	s.rest = s.rest[n:]
	return token
}

// value parses a token, which may be quoted; "" means that there is none.
func (s *scanner) value() string {
	if !s.eat('"') {
		return s.token()
	}
	var value []byte
	for i := 0; i < len(s.rest); i++ {
		c := s.rest[i]
		if c == '"' {
			s.rest = s.rest[i+1:]
			return string(value)
		}
		if c == '\\' {
			i++
			if i == len(s.rest) {
				return ""
			}
			c = s.rest[i]
		}
		// A quoted value must still be a token (RFC 6455 §9.1).
		if !tokenChar(c) {
			return ""
		}
		value = append(value, c)
	}
	return ""
}

// tokenChar reports whether a token may contain c (RFC 9110 §5.6.2).
func tokenChar(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return c != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
