package ws

import "encoding/binary"

// The first two bytes of a frame (RFC 6455 §5.2), and the lengths that stand for "see the next 2,
// or 8, bytes":
//
//	 0                1
//	+-+-+-+-+-------+-+-------------+----------------+---------+
//	|F|R|R|R| op    |M| length      | length, 0/2/8  | key 0/4 |  payload
//	|I|S|S|S| code  |A| (7 bits)    |                |         |
//	|N|V|V|V|       |S|             |                |         |
//	| |1|2|3|       |K|             |                |         |
const (
	bitFin    = 0x80
	bitRSV1   = 0x40
	bitsRSV23 = 0x30
	bitsOp    = 0x0F
	bitMask   = 0x80
	bitsLen   = 0x7F

	length16 = 126
	length64 = 127

	maxHeader = 14
)

// A header is the header of one incoming frame, after validation.
type header struct {
	length int    // payload length in bytes
	key    uint32 // lowest byte first; only when masked
	size   int    // length of the header itself, in bytes
	op     Opcode
	fin    bool
	rsv1   bool // the payload is compressed
	masked bool
}

// parseHeader reads a header from the start of b, which is not empty, into hd. It returns false if
// b ends before the header does. It reports a violation as soon as the bytes that prove it are
// there, so that the error does not depend on how the input was split.
func (e *Endpoint) parseHeader(b []byte, hd *header) (bool, error) {
	if err := e.parseFirst(b[0], hd); err != nil {
		return false, err
	}
	if len(b) < 2 {
		return false, nil
	}
	hd.masked = b[1]&bitMask != 0
	if hd.masked == e.has(flagClient) {
		if hd.masked {
			return false, protocolError("masked frame from a server")
		}
		return false, protocolError("unmasked frame from a client")
	}
	length, end, err := parseLength(b, hd.op)
	if end == 0 || err != nil {
		return false, err
	}
	if !hd.op.control() {
		if err := e.checkLength(length, hd); err != nil {
			return false, err
		}
	}
	hd.length = int(length)
	hd.size = end
	if hd.masked {
		if len(b) < end+4 {
			return false, nil
		}
		hd.key = binary.LittleEndian.Uint32(b[end:])
		hd.size += 4
	}
	return true, nil
}

// parseFirst checks the first byte of a header: the type of the frame, and whether it is allowed
// here.
func (e *Endpoint) parseFirst(b byte, hd *header) error {
	hd.op = Opcode(b & bitsOp)
	hd.fin = b&bitFin != 0
	hd.rsv1 = b&bitRSV1 != 0
	switch {
	case b&bitsRSV23 != 0:
		return protocolError("reserved bit set")
	case !hd.op.known():
		return protocolError("reserved opcode")
	case hd.rsv1 && !e.has(flagDeflate):
		return protocolError("reserved bit set")
	case hd.rsv1 && hd.op != OpText && hd.op != OpBinary:
		return protocolError("compression bit on a control or continuation frame")
	case hd.op.control():
		if !hd.fin {
			return protocolError("fragmented control frame")
		}
	case hd.op == OpContinuation && !e.inMessage():
		return protocolError("continuation without a message")
	case hd.op != OpContinuation && e.inMessage():
		return protocolError("new message inside a fragmented one")
	}
	return nil
}

// parseLength reads the payload length of a frame that starts at b, which has at least two bytes.
// end is the index after the length. It is 0 if b is too short.
func parseLength(b []byte, op Opcode) (length uint64, end int, err error) {
	length = uint64(b[1] & bitsLen)
	switch {
	case length < length16:
		return length, 2, nil
	case op.control():
		return 0, 0, protocolError("control frame over 125 bytes")
	case length == length16:
		if len(b) < 4 {
			return 0, 0, nil
		}
		length = uint64(binary.BigEndian.Uint16(b[2:]))
		if length < length16 {
			return 0, 0, protocolError("length not in its shortest form")
		}
		return length, 4, nil
	default:
		if len(b) < 10 {
			return 0, 0, nil
		}
		length = binary.BigEndian.Uint64(b[2:])
		if length>>63 != 0 {
			return 0, 0, protocolError("length over 63 bits")
		}
		if length <= 0xFFFF {
			return 0, 0, protocolError("length not in its shortest form")
		}
		return length, 10, nil
	}
}

// checkLength checks the announced length of a data frame against the limits, before anything is
// allocated for it.
func (e *Endpoint) checkLength(length uint64, hd *header) error {
	limit, have, compressed := e.max(), 0, hd.rsv1
	if p := e.partial; p != nil && p.message != 0 {
		if p.frames >= maxFrames(limit) {
			return tooBig("too many fragments")
		}
		have, compressed = len(p.buf), p.compressed
	}
	if compressed {
		limit = maxCompressed(limit)
	}
	if length > uint64(max(limit-have, 0)) {
		return tooBig("message too big")
	}
	return nil
}

// FrameSize returns the length of an unmasked frame with n bytes of payload.
func FrameSize(n int) int { return headerSize(n) + n }

// headerSize returns the length of an unmasked header before n bytes of payload.
func headerSize(n int) int {
	switch {
	case n < length16:
		return 2
	case n <= 0xFFFF:
		return 4
	default:
		return 10
	}
}

// appendHeader appends the header of an unfragmented frame, without a masking key; maskBit is
// bitMask or 0.
func appendHeader(dst []byte, op Opcode, rsv1 bool, n int, maskBit byte) []byte {
	first := bitFin | byte(op)
	if rsv1 {
		first |= bitRSV1
	}
	switch headerSize(n) {
	case 2:
		return append(dst, first, maskBit|byte(n))
	case 4:
		return binary.BigEndian.AppendUint16(append(dst, first, maskBit|length16), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, first, maskBit|length64), uint64(n))
	}
}
