package ws

import "unicode/utf8"

// A partial is what an Endpoint keeps while a header, a frame or a message is incomplete. It never holds more than has
// arrived, give or take the doubling of buf, whatever was announced.
type partial struct {
	// The message. Its buffer holds payloads unmasked, but compressed as they came.
	buf        []byte
	checked    int    // bytes of buf known to be UTF-8; stays 0 unless the message is plain text
	frames     int    // begun so far
	message    Opcode // 0 when no message is incomplete
	compressed bool

	// The frame whose payload is incomplete, while inFrame.
	inFrame        bool
	op             Opcode
	fin            bool
	masked         bool
	key            uint32
	left           int    // bytes of payload to come
	controlPayload []byte // a control frame's, which may come between the frames of the message

	// The header that is incomplete, while headLen > 0.
	headLen uint8
	head    [maxHeader]byte
}

// partial returns the Endpoint's partial, made if need be.
func (e *Endpoint) partial() *partial {
	if e.part == nil {
		e.part = &partial{}
	}
	return e.part
}

// add appends a piece of a data frame to the message, and says at once when text cannot become UTF-8 any more.
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

// grow makes room for n more bytes of the frame. It doubles, for a cost that is linear in the whole, but takes no
// more than the message will have when this is its last frame.
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

// validPrefix returns how many bytes at the start of b are whole UTF-8 sequences, and whether the rest, three bytes at
// the most, may yet become one.
func validPrefix(b []byte) (n int, ok bool) {
	n = len(b)
	for i := n - 1; i >= max(0, n-3); i-- {
		if utf8.RuneStart(b[i]) {
			// FullRune is true for what can't become a rune, which Valid then finds.
			if !utf8.FullRune(b[i:]) {
				n = i
			}
			break
		}
	}
	return n, utf8.Valid(b[:n])
}

func errNotUTF8() error { return invalidPayload("text is not UTF-8") }
