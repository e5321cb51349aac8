package resp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ErrProtocol is returned, wrapped, for bytes that no Redis sends.
var ErrProtocol = errors.New("unexpected reply: not a Redis server")

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

const (
	crlf = "\r\n"

	// maxBulk is the longest string that Redis accepts (proto-max-bulk-len).
	maxBulk = 1 << 30

	// maxChannel is the longest channel of a message that is kept, in bytes.
	maxChannel = 64 << 10

	maxLine  = 4 << 10 // bytes of a line, with its type and CRLF
	maxDepth = 8       // aggregates within each other
	maxKind  = 64      // bytes of the kind of a push

	// valueCost is how many bytes of Options.MaxReply a value costs in addition to its text.
	valueCost = 64
)

// A Message was published to a subscribed channel.
type Message struct {
	Channel, Payload string // valid until Buffer is released

	// Size is the length of the payload. Both strings are empty if the message was discarded,
	// because the payload is longer than Options.MaxMessage or the channel longer than 64 KiB; Size
	// is then the length of everything discarded.
	Size int

	Buffer *Buffer // holds the strings; the receiver must release it
}

// A reader parses what a server sends. It checks all framing and all sizes, and allocates as bytes
// arrive, not as lengths promise. It does not know attributes and strings in parts, which no server
// sends unless it is asked to.
//
// Offsets are relative to the unread bytes. The methods fill, peek, line, header, string and body
// receive as many bytes as they need, and consume none. The other methods consume the bytes that
// they parse, by moving at.
//
//	stream    = { value | push }
//	value     = scalar | string | aggregate
//	scalar    = ( "+" | "-" | ":" | "," | "(" | "#" | "_" ) text CRLF
//	string    = ( "$" | "!" | "=" ) length CRLF bytes CRLF        ; $-1 is null
//	aggregate = ( "*" | "~" ) count CRLF { value }                ; *-1 is null
//	          | "%" count CRLF { value value }
//	push      = ">" count CRLF kind { value }
//	kind      = "$" length CRLF bytes CRLF
type reader struct {
	readBuffer

	src         io.Reader
	beforeRead  func() // called before each read from src
	maxMessage  int    // bytes of a payload; longer ones are discarded
	maxString   int    // bytes of a string in a reply
	maxElements int    // of an aggregate
	maxReply    int    // bytes of a reply, valueCost included

	size int // bytes of the reply that have been read
}

// fill reads until at least n bytes are unread.
func (r *reader) fill(n int) error {
	for r.end-r.at < n {
		r.beforeRead()
		got, err := r.src.Read(r.writable())
		if r.end += got; got == 0 && err != nil {
			return err
		}
	}
	return nil
}

// peek returns the type of the next value or push.
func (r *reader) peek() (byte, error) {
	if err := r.fill(1); err != nil {
		return 0, err
	}
	kind := r.unread()[0]
	if strings.IndexByte("$:>*%~+-_#,(!=", kind) < 0 {
		return 0, protocolError("a value begins with %q", []byte{kind})
	}
	return kind, nil
}

// line returns where the line ends that begins at an offset in the unread bytes, behind its CRLF.
func (r *reader) line(offset int) (end int, err error) {
	for searched := offset; ; {
		data := r.unread()
		if searched < len(data) {
			i := bytes.IndexByte(data[searched:min(len(data), offset+maxLine)], '\n')
			end = searched + i + 1
			switch {
			case i >= 0 && (end-offset < 3 || data[end-2] != '\r'):
				return 0, protocolError("a line without its end: %.20q", data[offset:end])
			case i >= 0:
				return end, nil
			case len(data)-offset >= maxLine:
				return 0, protocolError("a line of more than %d bytes", maxLine)
			}
			searched = len(data)
		}
		if err := r.fill(len(data) + 1); err != nil {
			return 0, err
		}
	}
}

// number parses a length, from 0 to most.
func number(digits []byte, most int) (n int, err error) {
	for _, c := range digits {
		if c < '0' || c > '9' || n > most/10 {
			n = most + 1
			break
		}
		n = 10*n + int(c-'0')
	}
	if len(digits) == 0 || n > most {
		return 0, protocolError("a length of %.20q", digits)
	}
	return n, nil
}

// header parses the header of a string that begins at an offset in the unread bytes. It returns the
// length of the string and where its bytes begin.
func (r *reader) header(offset, most int) (size, body int, err error) {
	end, err := r.line(offset)
	if err != nil {
		return 0, 0, err
	}
	data := r.unread()
	if data[offset] != '$' {
		return 0, 0, protocolError("%.20q, where a string must be", data[offset:end])
	}
	size, err = number(data[offset+1:end-len(crlf)], most)
	return size, end, err
}

// string reads a whole string that begins at an offset in the unread bytes. It returns where its
// bytes are.
func (r *reader) string(offset, most int) (from, to int, err error) {
	size, body, err := r.header(offset, most)
	if err != nil {
		return 0, 0, err
	}
	return body, body + size, r.body(body, size)
}

// body reads the rest of a string, whose bytes begin at an offset in the unread bytes.
func (r *reader) body(offset, size int) error {
	end := offset + size
	if err := r.fill(end + len(crlf)); err != nil {
		return err
	}
	if string(r.unread()[end:end+len(crlf)]) != crlf {
		return protocolError("a string is longer than its header says")
	}
	return nil
}

// discard reads the rest of a string without keeping it.
func (r *reader) discard(size int) error {
	for size > 0 {
		if err := r.fill(1); err != nil {
			return err
		}
		n := min(size, r.end-r.at)
		r.at += n
		size -= n
	}
	if err := r.body(0, 0); err != nil {
		return err
	}
	r.at += len(crlf)
	return nil
}

// push reads the beginning of a push. It returns its kind, valid until the next read, and how many
// elements follow.
func (r *reader) push() (kind []byte, elements int, err error) {
	end, err := r.line(0)
	if err != nil {
		return nil, 0, err
	}
	n, err := number(r.unread()[1:end-len(crlf)], r.maxElements)
	if err != nil {
		return nil, 0, err
	}
	if n == 0 {
		return nil, 0, protocolError("an empty push")
	}
	from, to, err := r.string(end, maxKind)
	if err != nil {
		return nil, 0, err
	}
	if from == to {
		return nil, 0, protocolError("a push without a kind")
	}
	kind = r.unread()[from:to]
	r.at += to + len(crlf)
	return kind, n - 1, nil
}

// message reads the elements of a message: the pattern if there are three, the channel, the
// payload. Those that are too long are discarded without being kept.
func (r *reader) message(elements int) (Message, error) {
	var channelFrom, channelTo, next int
	for ; ; elements-- {
		most := maxChannel
		if elements == 1 {
			most = r.maxMessage
		}
		size, from, err := r.header(next, maxBulk)
		if err != nil {
			return Message{}, err
		}
		if size > most {
			r.at += from
			return r.discardMessage(size, elements-1)
		}
		if err := r.body(from, size); err != nil {
			return Message{}, err
		}
		to := from + size
		if elements == 1 {
			data := r.unread()
			r.at += to + len(crlf)
			r.buf.refs.Add(1)
			return Message{Channel: asString(data[channelFrom:channelTo]), Payload: asString(data[from:to]), Size: size, Buffer: r.buf}, nil
		}
		channelFrom, channelTo, next = from, to, to+len(crlf)
	}
}

// discardMessage reads the rest of a string of a message, and the elements behind it, without
// keeping them.
func (r *reader) discardMessage(size, elements int) (Message, error) {
	total := 0
	for ; ; elements-- {
		if err := r.discard(size); err != nil {
			return Message{}, err
		}
		if total += size; elements == 0 {
			return Message{Size: total}, nil
		}
		var from int
		var err error
		if size, from, err = r.header(0, maxBulk); err != nil {
			return Message{}, err
		}
		r.at += from
	}
}

// confirmation reads the elements of a push that confirms a subscription: a channel, and how many
// the connection has.
func (r *reader) confirmation(elements int) error {
	if elements != 2 {
		return protocolError("a subscription confirmed with %d elements", elements)
	}
	_, to, err := r.string(0, r.maxReply)
	if err != nil {
		return err
	}
	r.at += to + len(crlf)
	count, err := r.value()
	if err == nil && count.kind != ':' {
		err = protocolError("a subscription confirmed without a number")
	}
	return err
}

// value reads a reply, or an element of a push.
func (r *reader) value() (Value, error) {
	r.size = 0
	return r.element(0)
}

// element reads a value within depth aggregates.
func (r *reader) element(depth int) (Value, error) {
	kind, err := r.peek()
	if err != nil {
		return Value{}, err
	}
	end, err := r.line(0)
	if err != nil {
		return Value{}, err
	}
	if err := r.addSize(valueCost + end); err != nil {
		return Value{}, err
	}
	text := r.unread()[1 : end-len(crlf)] // valid until the next read
	r.at += end
	switch kind {
	case '$', '!', '=':
		return r.text(kind, text)
	case '*', '%', '~', '>':
		return r.aggregate(kind, text, depth)
	}
	return scalar(kind, text)
}

// isNull reports whether a header is one of the nulls of RESP2.
func isNull(kind byte, length []byte) bool {
	return (kind == '$' || kind == '*') && string(length) == "-1"
}

// text reads the rest of a string.
func (r *reader) text(kind byte, length []byte) (Value, error) {
	if isNull(kind, length) {
		return Value{}, nil
	}
	size, err := number(length, r.maxString)
	if err != nil {
		return Value{}, err
	}
	if err := r.addSize(size); err != nil {
		return Value{}, err
	}
	if err := r.body(0, size); err != nil {
		return Value{}, err
	}
	text := r.unread()[:size]
	if kind == '=' && size >= len("txt:") { // begins with its format, such as txt or mkd
		text = text[len("txt:"):]
	}
	v := Value{kind: kind, text: string(text)}
	r.at += size + len(crlf)
	return v, nil
}

// aggregate reads the elements of an array, a set or a map.
func (r *reader) aggregate(kind byte, length []byte, depth int) (Value, error) {
	if isNull(kind, length) {
		return Value{}, nil
	}
	n, err := number(length, r.maxElements)
	switch {
	case err != nil:
		return Value{}, err
	case kind == '>':
		return Value{}, protocolError("a push within a value")
	case depth == maxDepth:
		return Value{}, protocolError("more than %d arrays within each other", maxDepth)
	case kind == '%':
		n *= 2
	}
	v := Value{kind: kind}
	for range n {
		e, err := r.element(depth + 1)
		if err != nil {
			return Value{}, err
		}
		v.elems = append(v.elems, e)
	}
	return v, nil
}

// addSize adds n bytes to the size of the reply.
func (r *reader) addSize(n int) error {
	if r.size += n; r.size > r.maxReply {
		return protocolError("a value of more than %d bytes", r.maxReply)
	}
	return nil
}

// scalar returns a value that is one line.
func scalar(kind byte, text []byte) (Value, error) {
	v := Value{kind: kind}
	ok := true
	switch kind {
	case '_':
		v, ok = Value{}, len(text) == 0
	case ':':
		var err error
		v.num, err = strconv.ParseInt(asString(text), 10, 64)
		ok = err == nil && text[0] != '+'
	case '#':
		ok = string(text) == "t" || string(text) == "f"
		fallthrough
	default:
		v.text = string(text)
	}
	if !ok {
		return Value{}, protocolError("a value is %.100q", string(kind)+string(text))
	}
	return v, nil
}
