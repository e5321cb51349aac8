package redis

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// errGarbage says that what came is not RESP3: it is no Redis, or something has changed it on the way.
var errGarbage = errors.New("what comes is not what a Redis says")

// What Redis sends, besides messages, to a client that asks nothing but what this package asks stays far below.
const (
	maxLine     = 4 << 10  // bytes of a line, its type and CRLF included
	maxDepth    = 8        // aggregates within each other
	maxElements = 1 << 14  // of one aggregate; a Cluster has so many slots
	maxString   = 64 << 10 // bytes of a string
	maxValue    = 16 << 20 // bytes of a value, and of a channel's name, which we have sent ourselves
)

func notRedis(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errGarbage, fmt.Sprintf(format, args...))
}

// inbound checks what comes from Redis and is no message: the framing of RESP3, the sizes, and that replies belong to
// commands. It looks at headers only, and passes over bodies. Of RESP3 it knows what Redis says to those who ask for
// nothing special: no attributes, no strings in parts.
//
//	stream    = { value | push }
//	value     = scalar | string | aggregate
//	scalar    = ( "+" | "-" | ":" | "," | "(" | "#" | "_" ) text CRLF
//	string    = ( "$" | "!" | "=" ) length CRLF bytes CRLF        ; $-1 is null
//	aggregate = ( "*" | "~" ) count CRLF { value }                ; *-1 is null
//	          | "%" count CRLF { value value }
//	push      = ">" count CRLF kind { value }
//	kind      = "$" length CRLF bytes CRLF
type inbound struct {
	asked *asked

	depth int           // aggregates that are open
	left  [maxDepth]int // elements that each of them still lacks
	size  int           // bytes of the value so far
	body  int           // bytes of a string that are still to come, its CRLF included

	push    pushKind // of the value; none for a reply
	awaited int      // elements that a push has, its kind included
}

// A pushKind is what rueidis does with a push.
type pushKind uint8

const (
	none     pushKind = iota
	unknown           // ignores it
	confirms          // counts it
)

// between reports whether a value or a push comes next, and not more of one.
func (f *inbound) between() bool { return f.depth == 0 && f.body == 0 }

// pass checks b, which is what comes next. It returns what of it may be passed on, and how much of b that was, which is
// 0 if more must come first. It stops before a push, which may be a message, unless b begins with that.
func (f *inbound) pass(b []byte) (good []byte, n int, err error) {
	for n < len(b) && (n == 0 || b[n] != '>' || !f.between()) {
		if f.body > len(crlf) {
			some := min(f.body-len(crlf), len(b)-n)
			f.body -= some
			n += some
			continue
		}
		some, replace, err := f.next(b[n:])
		if err != nil || some == 0 {
			return b[:n], n, err
		}
		if replace != "" { // which is not longer
			return append(b[:n], replace...), n + some, nil
		}
		n += some
	}
	return b[:n], n, nil
}

// next takes what stands between two bodies: the end of one, or a line. It returns its length, 0 if some of it is
// missing, and what to pass on in its place, which is not longer; "" for itself.
func (f *inbound) next(b []byte) (n int, replace string, err error) {
	if f.body > 0 {
		if len(b) < len(crlf) {
			return 0, "", nil
		}
		if string(b[:len(crlf)]) != crlf {
			return 0, "", notRedis("a body is longer than its header says")
		}
		f.body = 0
		f.complete()
		return len(crlf), "", nil
	}
	if strings.IndexByte("$:>*%~+-_#,(!=|", b[0]) < 0 {
		return 0, "", notRedis("a value begins with %q", b[:1])
	}
	if n, err = lineOf(b); err != nil || n == 0 {
		return 0, "", err
	}
	return f.line(b, n)
}

const crlf = "\r\n"

// lineOf is the length of the line at the start of b, its CRLF included: 0 if the rest of it has not come.
func lineOf(b []byte) (n int, err error) {
	n = bytes.IndexByte(b[:min(len(b), maxLine)], '\n') + 1
	switch {
	case n == 0 && len(b) >= maxLine:
		return 0, notRedis("a line of more than %d bytes", maxLine)
	case n > 0 && (n < 3 || b[n-2] != '\r'):
		return 0, notRedis("a line without its end: %.20q", b[:n])
	}
	return n, nil
}

// number reads a length, from 0 to most.
func number(digits []byte, most int) (n int, err error) {
	for _, c := range digits {
		if c < '0' || c > '9' || n > most/10 {
			n = most + 1
			break
		}
		n = 10*n + int(c-'0')
	}
	if len(digits) == 0 || n > most {
		return 0, notRedis("a length of %.20q", digits)
	}
	return n, nil
}

// line takes the line b[:n], which is complete, or, if it names the kind of a push, that with its body.
func (f *inbound) line(b []byte, n int) (int, string, error) {
	kind, text := b[0], b[1:n-len(crlf)]
	if f.push != none && f.depth == 1 {
		if f.left[0] == f.awaited {
			return f.kind(b, n)
		}
		if err := f.fits(kind, text); err != nil {
			return 0, "", err
		}
	}
	if err := f.grow(n); err != nil {
		return 0, "", err
	}
	replace := ""
	if f.depth == 0 && kind != '>' {
		var err error
		if replace, err = f.asked.reply(kind, text); err != nil {
			return 0, "", err
		}
		if len(replace) > n {
			return 0, "", notRedis("an error without a text")
		}
	}
	switch kind {
	case '$', '!', '=':
		if err := f.bulk(kind, text); err != nil {
			return 0, "", err
		}
	case '*', '%', '~', '>':
		if err := f.aggregate(kind, text); err != nil {
			return 0, "", err
		}
	default:
		if err := checkScalar(kind, text); err != nil {
			return 0, "", err
		}
		f.complete()
	}
	return n, replace, nil
}

// fits checks an element of a push, at its beginning, against what rueidis takes it for.
func (f *inbound) fits(kind byte, text []byte) error {
	number := f.push == confirms && f.left[0] == 1
	switch {
	case f.push == unknown:
	case number && kind != ':', !number && kind != '$', len(text) > 0 && text[0] == '-' && !number:
		return notRedis("an element of a push is %q", clip(string(kind)+string(text)))
	}
	return nil
}

// kind takes the first element of a push, whose header is b[:n].
func (f *inbound) kind(b []byte, n int) (int, string, error) {
	length, err := number(b[1:n-len(crlf)], 64)
	if b[0] != '$' || err != nil || length == 0 {
		return 0, "", notRedis("a push without a kind")
	}
	end := n + length
	if len(b) < end+len(crlf) {
		return 0, "", nil
	}
	if string(b[end:end+len(crlf)]) != crlf {
		return 0, "", notRedis("the kind of a push is longer than its header says")
	}
	switch name := b[n:end]; string(name) {
	case "subscribe", "psubscribe", "unsubscribe", "punsubscribe":
		f.push = confirms
		if f.awaited != 3 {
			return 0, "", notRedis("%s with %d elements", name, f.awaited)
		}
		if err := f.asked.confirm(string(name)); err != nil {
			return 0, "", err
		}
	case "message", "pmessage", "smessage", "ssubscribe", "sunsubscribe", "invalidate":
		return 0, "", notRedis("%s, which nobody has asked for", name) // messages have been taken out before
	}
	f.complete()
	return end + len(crlf), "", nil
}

// bulk begins a body.
func (f *inbound) bulk(kind byte, text []byte) error {
	if kind == '$' && string(text) == "-1" {
		f.complete()
		return nil
	}
	most := maxString
	if f.push == confirms {
		most = maxValue
	}
	length, err := number(text, most)
	if err != nil {
		return err
	}
	f.body = length + len(crlf)
	return f.grow(length)
}

// grow counts n more bytes of the value.
func (f *inbound) grow(n int) error {
	if f.size += n; f.size > maxValue {
		return notRedis("a value of more than %d bytes", maxValue)
	}
	return nil
}

// aggregate begins an array or its like.
func (f *inbound) aggregate(kind byte, text []byte) error {
	if kind == '*' && string(text) == "-1" {
		f.complete()
		return nil
	}
	length, err := number(text, maxElements)
	switch {
	case err != nil:
		return err
	case kind == '>' && (f.depth > 0 || length == 0):
		return notRedis("a push within a value, or an empty one")
	case f.depth == maxDepth:
		return notRedis("more than %d arrays within each other", maxDepth)
	}
	if kind == '%' {
		length *= 2
	}
	if length == 0 {
		f.complete()
		return nil
	}
	if kind == '>' {
		f.push, f.awaited = unknown, length
	}
	f.left[f.depth] = length
	f.depth++
	return nil
}

// complete notes that an element has come, and with the last of an aggregate that, too.
func (f *inbound) complete() {
	for f.depth > 0 {
		if f.left[f.depth-1]--; f.left[f.depth-1] > 0 {
			return
		}
		f.depth--
	}
	f.push, f.size = none, 0
}

// checkScalar checks a value that is a line. rueidis skips what it expects to be there.
func checkScalar(kind byte, text []byte) error {
	ok := true
	switch kind {
	case '|': // attributes are for who has asked for them
		ok = false
	case '_':
		ok = len(text) == 0
	case '#':
		ok = string(text) == "t" || string(text) == "f"
	case ':':
		_, err := strconv.ParseInt(string(text), 10, 64)
		ok = err == nil && text[0] != '+'
	}
	if !ok {
		return notRedis("a value is %q", clip(string(kind)+string(text)))
	}
	return nil
}
