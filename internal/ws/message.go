package ws

import (
	"bytes"
	"errors"
	"sync"
)

const (
	// headerSpace is the space before the payload of a Message, enough for the longest unmasked
	// header.
	headerSpace = 10

	// seriesSpace is the space before each payload of a series, enough for 126 bytes to 64 KiB, the
	// most frequent sizes.
	seriesSpace = 4

	// minDeflate is the minimum payload to compress, in bytes. Below it, the system call costs more
	// than the saved bytes.
	minDeflate = 256
)

// errNotAppended means that a build function did not append to its argument.
var errNotAppended = errors.New("build message: the build function did not append to its argument")

// A Message is one outgoing text message, or a series of them, encoded once for all receivers. It
// never changes, and its methods are safe for concurrent use.
type Message struct {
	frame []byte // the frame, or the frames of a series in order; set when made, then read-only
	// Number of messages in a series, 0 for a single message; set when made, then read-only.
	series int32
	// The same messages for receivers that get positions; nil if frame is for all receivers. Set
	// when made, then read-only.
	positioned *Message

	once     sync.Once
	deflated *[]byte // guarded by once; may be &frame
}

// NewMessage encodes a copy of payload, which must be UTF-8.
func NewMessage(payload []byte) *Message {
	n := headerSize(len(payload))
	frame := AppendHeader(make([]byte, 0, n+len(payload)), OpText, false, len(payload))
	return &Message{frame: append(frame, payload...)}
}

// BuildMessage encodes a payload without copying it. build appends the payload, which must be
// UTF-8, to dst and returns the result, like append. size is the expected length of the payload in
// bytes; up to that length, the frame takes one allocation. build must not read dst's content nor
// keep dst. Its error is returned unchanged.
func BuildMessage(size int, build func(dst []byte) ([]byte, error)) (*Message, error) {
	buf, err := build(make([]byte, headerSpace, headerSpace+max(size, 0)))
	if err != nil {
		return nil, err
	}
	n := len(buf) - headerSpace
	if n < 0 {
		return nil, errNotAppended
	}
	// The header goes right before the payload; unused space before it is wasted.
	start := headerSpace - headerSize(n)
	AppendHeader(buf[start:start], OpText, false, n)
	return &Message{frame: buf[start:len(buf):len(buf)]}, nil
}

// BuildSeries encodes n > 1 messages that every receiver gets one after the other. build appends
// the payload of message i, which must be UTF-8, to dst, like append. It must not read dst's
// content nor keep dst. size is the expected total length of the payloads in bytes; up to that
// length, all frames take one allocation.
func BuildSeries(n, size int, build func(dst []byte, i int) []byte) *Message {
	buf := make([]byte, 0, n*seriesSpace+max(size, 0))
	var header [headerSpace]byte
	for i := range n {
		start := len(buf)
		buf = build(append(buf, header[:seriesSpace]...), i)
		length := len(buf) - start - seriesSpace
		// If the header does not take exactly seriesSpace, move the payload behind it.
		if size := headerSize(length); size != seriesSpace {
			buf = append(buf, header[:max(0, size-seriesSpace)]...)
			copy(buf[start+size:], buf[start+seriesSpace:start+seriesSpace+length])
			buf = buf[:start+size+length]
		}
		AppendHeader(buf[start:start], OpText, false, length)
	}
	return &Message{frame: buf[:len(buf):len(buf)], series: int32(n)}
}

// WithPositions sets the form of m for receivers that get the positions of messages, and returns m.
// It is called before m is shared. p must have as many messages as m.
func (m *Message) WithPositions(p *Message) *Message {
	m.positioned = p
	return m
}

// Positioned returns the form of m for receivers that get the positions of messages: m itself if it
// has none.
func (m *Message) Positioned() *Message {
	if m.positioned != nil {
		return m.positioned
	}
	return m
}

// Count returns the number of messages in m.
func (m *Message) Count() int { return max(1, int(m.series)) }

// Split appends the messages of a series to dst. Each gets its own memory, so that keeping one does
// not keep the whole series. A single message is appended unchanged.
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

// Frame returns the uncompressed frame as a server sends it, or the frames of a series. It must not
// be changed.
func (m *Message) Frame() []byte { return m.frame }

// Payload returns the part of Frame after the header, for a single message. It must not be changed.
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

// Deflated returns the frame or frames for connections with compression. They equal Frame where
// compression does not pay, because the payload is short or does not shrink. The first call
// compresses, and concurrent calls wait for it. The result must not be changed.
func (m *Message) Deflated() []byte {
	m.once.Do(m.deflate)
	return *m.deflated
}

// Uncompressed makes Deflated return the frames of Frame, and returns m. It is called before m is
// shared.
func (m *Message) Uncompressed() *Message {
	m.once.Do(func() { m.deflated = &m.frame })
	return m
}

func (m *Message) deflate() {
	if m.series > 0 {
		var all []byte
		for _, single := range m.Split(nil) {
			all = append(all, single.Deflated()...)
		}
		m.deflated = &all
		return
	}
	m.deflated = &m.frame
	payload := m.Payload()
	if len(payload) < minDeflate {
		return
	}
	d := deflaters.Get().(*deflater)
	defer d.release()
	out, err := d.deflate(payload, len(payload))
	if err != nil {
		return // compression does not pay; no other error is possible
	}
	frame := AppendHeader(make([]byte, 0, headerSize(len(out))+len(out)), OpText, true, len(out))
	frame = append(frame, out...)
	m.deflated = &frame
}
