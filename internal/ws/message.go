package ws

import (
	"bytes"
	"errors"
	"sync"
)

const (
	// headerSpace is left before the payload of a Message for the longest unmasked header.
	headerSpace = 10

	// seriesSpace is left before each payload of a series: most are of 126 bytes to 64 KiB.
	seriesSpace = 4

	// minDeflate is the shortest payload that is worth compressing, in bytes: below it a delivery costs more in the system
	// call than in the bytes.
	minDeflate = 256
)

// errNotAppended means that a build function did not append to what it was given.
var errNotAppended = errors.New("build message: result is shorter than what it was to be appended to")

// A Message is one outgoing text message, or a series of them, encoded once for all who get it. It never changes, and all
// its methods may be called from any goroutine.
type Message struct {
	frame  []byte // of a series the frames, one behind the other; set when made, then read-only
	series int32  // how many messages a series has, 0 for a single message; set when made, then read-only

	once     sync.Once
	deflated []byte // guarded by once
}

// NewMessage encodes payload, which it copies and which must be UTF-8.
func NewMessage(payload []byte) *Message {
	n := headerSize(len(payload))
	frame := AppendHeader(make([]byte, 0, n+len(payload)), OpText, false, len(payload))
	return &Message{frame: append(frame, payload...)}
}

// BuildMessage encodes a payload, which must be UTF-8, that build appends to dst, as append does, and returns: so the
// payload is written where it stays. size is how long it is expected to be, in bytes; up to that there is one
// allocation for the frame. build must not look at what dst holds, nor keep it. Its error is returned as it is.
func BuildMessage(size int, build func(dst []byte) ([]byte, error)) (*Message, error) {
	buf, err := build(make([]byte, headerSpace, headerSpace+max(size, 0)))
	if err != nil {
		return nil, err
	}
	n := len(buf) - headerSpace
	if n < 0 {
		return nil, errNotAppended
	}
	// The header goes right before the payload; what the room is too large by is lost.
	start := headerSpace - headerSize(n)
	AppendHeader(buf[start:start], OpText, false, n)
	return &Message{frame: buf[start:len(buf):len(buf)]}, nil
}

// BuildSeries encodes n messages, more than one, that everyone gets one behind the other. build appends the payload of
// message i, which must be UTF-8, to dst, as append does; it must not look at what dst holds, nor keep it. size is how long
// the payloads are expected to be in all, in bytes; up to that there is one allocation for all frames.
func BuildSeries(n, size int, build func(dst []byte, i int) []byte) *Message {
	buf := make([]byte, 0, n*seriesSpace+max(size, 0))
	var header [headerSpace]byte
	for i := range n {
		start := len(buf)
		buf = build(append(buf, header[:seriesSpace]...), i)
		length := len(buf) - start - seriesSpace
		if size := headerSize(length); size != seriesSpace { // it does not fit: the payload makes room, or moves up
			buf = append(buf, header[:max(0, size-seriesSpace)]...)
			copy(buf[start+size:], buf[start+seriesSpace:start+seriesSpace+length])
			buf = buf[:start+size+length]
		}
		AppendHeader(buf[start:start], OpText, false, length)
	}
	return &Message{frame: buf[:len(buf):len(buf)], series: int32(n)}
}

// Count is how many messages m is.
func (m *Message) Count() int { return max(1, int(m.series)) }

// Split appends the messages of a series to dst, each in memory of its own, so that who keeps one does not keep all; a
// single one as it is.
func (m *Message) Split(dst []*Message) []*Message {
	if m.series == 0 {
		return append(dst, m)
	}
	for rest := m.frame; len(rest) > 0; {
		end := FrameEnd(rest, 1)
		dst = append(dst, &Message{frame: bytes.Clone(rest[:end])})
		rest = rest[end:]
	}
	return dst
}

// Frame is the frame as a server sends it, header and payload, not compressed; of a series the frames. It must not be
// changed.
func (m *Message) Frame() []byte { return m.frame }

// Payload is the part of Frame after the header, of a single message. It must not be changed.
func (m *Message) Payload() []byte {
	switch m.frame[1] {
	case length16:
		return m.frame[4:]
	case length64:
		return m.frame[10:]
	default:
		return m.frame[2:]
	}
}

// Deflated is the frame, or frames, for connections that agreed on compression: as in Frame where that does not pay, because the
// payload is short or doesn't shrink. The first call compresses; calls meanwhile wait for it. It must not be changed.
func (m *Message) Deflated() []byte {
	m.once.Do(m.deflate)
	return m.deflated
}

func (m *Message) deflate() {
	if m.series > 0 {
		for _, single := range m.Split(nil) {
			m.deflated = append(m.deflated, single.Deflated()...)
		}
		return
	}
	m.deflated = m.frame
	payload := m.Payload()
	if len(payload) < minDeflate {
		return
	}
	d := deflaters.Get().(*deflater)
	defer d.release()
	out, err := d.deflate(payload, len(payload))
	if err != nil {
		return // it does not pay; no other error can happen
	}
	frame := AppendHeader(make([]byte, 0, headerSize(len(out))+len(out)), OpText, true, len(out))
	m.deflated = append(frame, out...)
}
