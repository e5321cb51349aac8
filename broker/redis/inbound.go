package redis

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// What Redis sends, besides messages, to a client that asks nothing but what this package asks stays far below.
const (
	maxLine     = 4 << 10  // bytes of a line, its type and CRLF included
	maxDepth    = 8        // aggregates within each other
	maxElements = 1 << 14  // of one aggregate; a Cluster has so many slots
	maxString   = 64 << 10 // bytes of a string
	maxValue    = replyMax // bytes of a value, and of a channel's name, which we have sent ourselves
)

func notRedis(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errGarbage, fmt.Sprintf(format, args...))
}

// inbound checks what comes from Redis and is no message: the framing of RESP3, the sizes, and that replies belong to
// commands. It looks at headers only, and passes over bodies.
type inbound struct {
	asked *asked

	depth int           // aggregates that are open
	left  [maxDepth]int // elements that each of them still lacks
	size  int           // bytes of the value so far

	body  int  // bytes of a body that are still to come, without the CRLF
	close bool // a body's CRLF is to come

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

// pass checks b, which follows what it was given before, without what it has held back. Of b, b[:good] may be passed
// on, which pass may have changed, and b[rest:] is held back: it is to be the beginning of the next b.
func (f *inbound) pass(b []byte) (good, rest int, err error) {
	r := 0
	for r < len(b) {
		if f.body > 0 {
			n := min(f.body, len(b)-r)
			good += move(b, good, r, n)
			r += n
			f.body -= n
			continue
		}
		n, replace, err := f.next(b[r:])
		if err != nil || n == 0 {
			return good, r, err
		}
		if replace != "" {
			good += copy(b[good:], replace)
		} else {
			good += move(b, good, r, n)
		}
		r += n
	}
	return good, r, nil
}

// move moves n bytes of b from one place to another, mostly the same.
func move(b []byte, to, from, n int) int {
	if to != from {
		copy(b[to:], b[from:from+n])
	}
	return n
}

// next takes what stands between two bodies: the end of one, or a line. It returns its length, 0 if some of it is
// missing, and what to pass on in its place, which is not longer; "" for itself.
func (f *inbound) next(b []byte) (n int, replace string, err error) {
	if f.close {
		if len(b) < 2 {
			return 0, "", nil
		}
		if b[0] != '\r' || b[1] != '\n' {
			return 0, "", notRedis("a body is longer than its header says")
		}
		f.close = false
		f.complete()
		return 2, "", nil
	}
	if !isType(b[0]) {
		return 0, "", notRedis("a value begins with %q", b[:1])
	}
	end := bytes.IndexByte(b[:min(len(b), maxLine)], '\n')
	switch {
	case end < 0 && len(b) >= maxLine:
		return 0, "", notRedis("a line of more than %d bytes", maxLine)
	case end < 0:
		return 0, "", nil
	case end < 2 || b[end-1] != '\r':
		return 0, "", notRedis("a line without its end")
	}
	return f.line(b, end+1)
}

// isType reports whether a value of RESP3 may begin with c. Strings in parts are for who has asked for them.
func isType(c byte) bool { return strings.IndexByte("$:>*%~+-_#,(!=|", c) >= 0 }

// line takes the line b[:n], which is complete, or, if it names the kind of a push, that with its body.
func (f *inbound) line(b []byte, n int) (int, string, error) {
	kind, text := b[0], b[1:n-2]
	if f.push != none && f.depth == 1 {
		if f.left[0] == f.awaited {
			return f.kind(b, n)
		}
		if err := f.fits(kind, text); err != nil {
			return 0, "", err
		}
	}
	if f.size += n; f.size > maxValue {
		return 0, "", notRedis("a value of more than %d bytes", maxValue)
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
	length, err := strconv.Atoi(string(b[1 : n-2]))
	if b[0] != '$' || err != nil || length < 1 || length > 64 {
		return 0, "", notRedis("a push without a kind")
	}
	if len(b) < n+length+2 {
		return 0, "", nil
	}
	if b[n+length] != '\r' || b[n+length+1] != '\n' {
		return 0, "", notRedis("the kind of a push is longer than its header says")
	}
	switch name := b[n : n+length]; string(name) {
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
	return n + length + 2, "", nil
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
	f.body, f.close = length, true
	f.size += length
	return err
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
