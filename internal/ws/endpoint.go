package ws

import (
	"encoding/binary"
	"unicode/utf8"
)

// DefaultMessageLimit is the default maximum message of an Endpoint, in bytes.
const DefaultMessageLimit = 128 << 10

// A Handler receives what Feed has parsed, in order. Payloads are valid only during the call, and
// may be changed in place. A Handler may call SetMessageLimit, Pause and Stop. It must not call
// Feed or Parse.
type Handler interface {
	// Message receives a complete message: unmasked, inflated, and UTF-8 if op is OpText. op is
	// OpText or OpBinary.
	Message(op Opcode, payload []byte)

	// Ping receives a ping, to be answered by a pong with the same payload, of at most
	// MaxControlPayload bytes (RFC 6455 §5.5.2).
	Ping(payload []byte)

	// Pong receives the answer to a ping, or an unsolicited pong (RFC 6455 §5.5.3).
	Pong(payload []byte)

	// Close receives a valid close frame. It is the last call; later input is ignored. code is
	// CloseNoStatus if the frame had none.
	Close(code int, reason string)
}

// A DeferredHandler is a Handler that inflates messages itself, later and on another goroutine. A
// few bytes may inflate to MaxPayload, and that must not delay the goroutine that reads.
type DeferredHandler interface {
	Handler

	// Compressed is called instead of Message for a complete compressed message. payload is
	// unmasked and not inflated, and valid only during the call. InflateMessage returns the payload
	// that Message would have received, or the error.
	Compressed(op Opcode, payload []byte)
}

// An Endpoint is the receiving half of one connection. It takes 16 bytes. It allocates more only
// when a Feed ends inside a frame or a fragmented message, until the Feed that completes it. The
// zero Endpoint is a server without compression and with DefaultMessageLimit. One goroutine owns it
// at a time.
type Endpoint struct {
	partial *partial // nil unless a header, a frame or a message is incomplete
	limit   uint32   // maximum message in bytes; 0 means DefaultMessageLimit
	flags   flags
}

type flags uint8

const (
	flagClient flags = 1 << iota
	flagDeflate
	flagStopped // set by a violation, a close frame or Stop
	flagPaused  // set by Pause
)

// NewEndpoint makes an Endpoint for one end of a connection. limit is the maximum message in bytes
// after inflating; 0 or less means DefaultMessageLimit. deflate means that permessage-deflate was
// agreed, without context takeover by the peer (RFC 7692 §7.1.1).
func NewEndpoint(role Role, limit int, deflate bool) Endpoint {
	var e Endpoint
	if role == Client {
		e.flags |= flagClient
	}
	if deflate {
		e.flags |= flagDeflate
	}
	e.SetMessageLimit(limit)
	return e
}

// SetMessageLimit changes the maximum message, in bytes after inflating, for all frames that begin
// from now on. 0 or less means DefaultMessageLimit. The largest limit is 1 GiB.
func (e *Endpoint) SetMessageLimit(n int) { e.limit = uint32(min(max(n, 0), 1<<30)) }

// Stop discards incomplete input. From now on the Endpoint ignores all input.
func (e *Endpoint) Stop() {
	e.partial = nil
	e.flags |= flagStopped
}

// Pause ends the current call of Parse when the current call of the Handler returns. Only a Handler
// may call it, from one of its methods.
func (e *Endpoint) Pause() { e.flags |= flagPaused }

// Feed parses the next bytes of the connection, split anywhere, and calls h for everything that
// they complete. It unmasks b in place and does not keep it. A violation is returned as a
// *CloseError with code 1002, 1007 or 1009, as soon as the bytes that prove it are there, after h
// was called for everything before it. After an error, a close frame or Stop, Feed does nothing and
// returns nil. It ignores Pause.
func (e *Endpoint) Feed(b []byte, h Handler) error {
	for len(b) > 0 {
		n, err := e.Parse(b, h)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// Parse is Feed for a Handler that calls Pause. It returns how many bytes of b it has consumed: all
// of them, unless it was paused. The next call must begin with the remaining bytes, which are
// unchanged.
func (e *Endpoint) Parse(b []byte, h Handler) (n int, err error) {
	e.flags &^= flagPaused
	for n < len(b) && !e.has(flagPaused|flagStopped) {
		used, err := e.step(b[n:], h)
		n += used
		if err != nil {
			e.Stop()
			return len(b), err
		}
	}
	if e.has(flagStopped) {
		return len(b), nil
	}
	return n, nil
}

func (e *Endpoint) has(f flags) bool { return e.flags&f != 0 }

// inMessage reports whether a fragmented message is incomplete.
func (e *Endpoint) inMessage() bool { return e.partial != nil && e.partial.message != 0 }

// max returns the maximum message in bytes.
func (e *Endpoint) max() int {
	if e.limit == 0 {
		return DefaultMessageLimit
	}
	return int(e.limit)
}

// maxFrames is the maximum number of frames in one message, so that tiny fragments cannot go on for
// ever. It allows 128 frames, and one more for each 16 bytes of the limit.
func maxFrames(limit int) int { return 128 + limit/16 }

// maxCompressed is the maximum size of a message before it is inflated. DEFLATE adds 5 bytes to
// each 64 KiB that cannot be compressed; the rest is reserve for senders that flush often.
func maxCompressed(limit int) int { return limit + limit/8 + 64 }

// step consumes one frame, or a part of one, from the start of b, and returns the number of bytes.
func (e *Endpoint) step(b []byte, h Handler) (int, error) {
	if p := e.partial; p != nil && p.inFrame {
		return e.resumeFrame(p, b, h)
	}
	var hd header
	used, ok, err := e.readHeader(b, &hd)
	if !ok || err != nil {
		return used, err
	}
	rest := b[used:]
	if len(rest) < hd.length {
		e.beginFrame(&hd)
		return used, nil
	}
	payload := rest[:hd.length:hd.length]
	if hd.masked {
		mask(payload, hd.key)
	}
	err = e.handleFrame(&hd, payload, h)
	if p := e.partial; p != nil && p.message == 0 {
		e.partial = nil // it only held an incomplete header
	}
	return used + hd.length, err
}

// readHeader reads a header from b, or from an incomplete header that was kept earlier and b after
// it. used is how many bytes of b it consumed. If ok is false, the header is still incomplete and
// all of b has been kept.
func (e *Endpoint) readHeader(b []byte, hd *header) (used int, ok bool, err error) {
	p := e.partial
	if p == nil || p.headLen == 0 {
		if ok, err = e.parseHeader(b, hd); ok || err != nil {
			return hd.size, ok, err
		}
		p = e.needPartial()
		p.headLen = uint8(copy(p.head[:], b))
		return len(b), false, nil
	}
	had := int(p.headLen)
	n := copy(p.head[had:], b)
	if ok, err = e.parseHeader(p.head[:had+n], hd); !ok {
		p.headLen = uint8(had + n)
		return n, false, err
	}
	p.headLen = 0
	return hd.size - had, true, nil
}

// handleFrame handles a frame whose unmasked payload is complete in the caller's buffer.
func (e *Endpoint) handleFrame(hd *header, payload []byte, h Handler) error {
	if hd.op.control() {
		return e.handleControl(hd.op, payload, h)
	}
	if hd.fin && hd.op != OpContinuation {
		return e.deliver(hd.op, hd.rsv1, payload, 0, h)
	}
	// A fragment: keep it as part of its message. Unlike in step, all of its payload is there.
	e.beginFrame(hd)
	p := e.partial
	p.inFrame, p.left = false, 0
	if err := p.add(payload); err != nil {
		return err
	}
	return e.deliverIfComplete(p, h)
}

// beginFrame records the header of a frame, and counts its payload as not arrived yet.
func (e *Endpoint) beginFrame(hd *header) {
	p := e.needPartial()
	p.inFrame, p.op, p.fin, p.masked = true, hd.op, hd.fin, hd.masked
	p.left, p.key = hd.length, hd.key
	if hd.op.control() {
		return
	}
	p.frames++
	if hd.op != OpContinuation {
		p.message, p.compressed = hd.op, hd.rsv1
	}
}

// resumeFrame consumes the bytes of b that belong to the incomplete frame in p.
func (e *Endpoint) resumeFrame(p *partial, b []byte, h Handler) (int, error) {
	n := min(p.left, len(b))
	b = b[:n]
	if p.masked {
		p.key = mask(b, p.key)
	}
	p.left -= n
	p.inFrame = p.left > 0
	if !p.op.control() {
		if err := p.add(b); err != nil {
			return n, err
		}
		return n, e.deliverIfComplete(p, h)
	}
	p.controlPayload = append(p.controlPayload, b...)
	if p.inFrame {
		return n, nil
	}
	payload := p.controlPayload
	p.controlPayload = nil
	if p.message == 0 {
		e.partial = nil
	}
	return n, e.handleControl(p.op, payload, h)
}

// deliverIfComplete delivers the message in p if its last frame is complete.
func (e *Endpoint) deliverIfComplete(p *partial, h Handler) error {
	if p.inFrame || !p.fin {
		return nil
	}
	e.partial = nil
	return e.deliver(p.message, p.compressed, p.buf, p.checked, h)
}

// deliver passes a message to h. The first checked bytes are known to be UTF-8.
func (e *Endpoint) deliver(op Opcode, compressed bool, payload []byte, checked int, h Handler) error {
	if d, ok := h.(DeferredHandler); ok && compressed {
		d.Compressed(op, payload)
		return nil
	}
	if compressed {
		f := inflaters.Get().(*inflater)
		defer f.release()
		var err error
		if payload, err = f.inflate(payload, e.max(), nil); err != nil {
			return err
		}
	}
	if op == OpText && !utf8.Valid(payload[checked:]) {
		return errNotUTF8()
	}
	h.Message(op, payload)
	return nil
}

// handleControl passes a control frame to h.
func (e *Endpoint) handleControl(op Opcode, payload []byte, h Handler) error {
	switch op {
	case OpPing:
		h.Ping(payload)
	case OpPong:
		h.Pong(payload)
	case OpClose:
		code, reason, err := parseClose(payload)
		if err != nil {
			return err
		}
		e.Stop()
		h.Close(code, reason)
	}
	return nil
}

// parseClose parses the payload of a close frame (RFC 6455 §5.5.1).
func parseClose(payload []byte) (int, string, error) {
	switch len(payload) {
	case 0:
		return CloseNoStatus, "", nil
	case 1:
		return 0, "", protocolError("close frame with half a code")
	}
	code := int(binary.BigEndian.Uint16(payload))
	if !validCloseCode(code) {
		return 0, "", protocolError("close code that may not be sent")
	}
	if !utf8.Valid(payload[2:]) {
		return 0, "", invalidPayload("close reason is not UTF-8")
	}
	return code, string(payload[2:]), nil
}
