package ws

import (
	"errors"
	"sync"
)

const (
	// headerRoom is left before the payload of a Message for the longest unmasked header.
	headerRoom = 10

	// minDeflate is the shortest payload that is worth compressing, in bytes: below it a delivery costs more in the system
	// call than in the bytes.
	minDeflate = 256
)

// errShrunk means that a build function did not append to what it was given.
var errShrunk = errors.New("build message: result is shorter than what it was to be appended to")

// A Message is one outgoing text message, encoded once for all who get it. It never changes, and all its methods may be
// called from any goroutine.
type Message struct {
	frame []byte // set when made, then read-only

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
	buf, err := build(make([]byte, headerRoom, headerRoom+max(size, 0)))
	if err != nil {
		return nil, err
	}
	n := len(buf) - headerRoom
	if n < 0 {
		return nil, errShrunk
	}
	// The header goes right before the payload; what the room is too large by is lost.
	start := headerRoom - headerSize(n)
	AppendHeader(buf[start:start], OpText, false, n)
	return &Message{frame: buf[start:len(buf):len(buf)]}, nil
}

// Frame is the frame as a server sends it, header and payload, not compressed. It must not be changed.
func (m *Message) Frame() []byte { return m.frame }

// Payload is the part of Frame after the header. It must not be changed.
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

// Deflated is the frame for connections that agreed on compression: Frame itself where that does not pay, because the
// payload is short or doesn't shrink. The first call compresses; calls meanwhile wait for it. It must not be changed.
func (m *Message) Deflated() []byte {
	m.once.Do(m.deflate)
	return m.deflated
}

func (m *Message) deflate() {
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
