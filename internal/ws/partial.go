package ws

import "unicode/utf8"

// A partial is the state of an Endpoint while a header, a frame or a message is incomplete. Its
// size depends on the bytes that have arrived, at most doubled by the growth of buf, and not on
// announced lengths.
type partial struct {
	// The message. buf has the unmasked payload, still compressed if the message is.
	buf        []byte
	checked    int    // bytes of buf known to be UTF-8; 0 unless the message is uncompressed text
	frames     int    // frames begun so far
	message    Opcode // 0 when no message is incomplete
	compressed bool

	// The frame whose payload is incomplete, valid while inFrame is set.
	inFrame        bool
	op             Opcode
	fin            bool
	masked         bool
	key            uint32
	left           int    // bytes of payload still to come
	controlPayload []byte // of a control frame, which may come between the frames of a message

	// The incomplete header, valid while headLen > 0.
	headLen uint8
	head    [maxHeader]byte
}

// needPartial returns the Endpoint's partial, and makes it if there is none.
func (e *Endpoint) needPartial() *partial {
	if e.partial == nil {
		e.partial = &partial{}
	}
	return e.partial
}

// add appends a piece of a data frame to the message. It fails as soon as text can no longer become
// valid UTF-8.
func (p *partial) add(b []byte) error {
	p.grow(len(b))
	p.buf = append(p.buf, b...)
	if p.message != OpText || p.compressed {
		return nil
	}
	n, ok := validPrefix(p.buf[p.checked:])
	if !ok {
		return errNotUTF8()
	}
	p.checked += n
	return nil
}

// grow makes space for n more bytes of the frame. It doubles the buffer, so that the total cost is
// linear, but not beyond the message's size if this is its last frame.
func (p *partial) grow(n int) {
	need := len(p.buf) + n
	if need <= cap(p.buf) {
		return
	}
	size := max(need, 2*cap(p.buf), 128)
	if p.fin {
		size = min(size, need+p.left)
	}
	buf := make([]byte, len(p.buf), size)
	copy(buf, p.buf)
	p.buf = buf
}

// validPrefix returns how many bytes at the start of b are complete UTF-8 sequences, and whether
// the rest, at most three bytes, can still become one.
func validPrefix(b []byte) (n int, ok bool) {
	n = len(b)
	for i := n - 1; i >= max(0, n-3); i-- {
		if utf8.RuneStart(b[i]) {
			// FullRune is true for bytes that cannot become a rune; Valid then rejects them.
			if !utf8.FullRune(b[i:]) {
				n = i
			}
			break
		}
	}
	return n, utf8.Valid(b[:n])
}

func errNotUTF8() error { return invalidPayload("text is not UTF-8") }
