package ws

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"unicode/utf8"
)

// AppendHeader appends the header of an unfragmented, unmasked frame that carries n bytes of payload. rsv1 says that
// the payload is compressed (RFC 7692 §6).
func AppendHeader(dst []byte, op Opcode, rsv1 bool, n int) []byte {
	return appendHeader(dst, op, rsv1, n, 0)
}

// AppendFrame appends an unfragmented frame as a server sends it. A control frame's payload must not be longer than
// MaxControlPayload.
func AppendFrame(dst []byte, op Opcode, payload []byte) []byte {
	return append(appendHeader(dst, op, false, len(payload), 0), payload...)
}

// FrameEnd is where the frame ends that byte n-1 is in: frames are whole ones as a server sends them, n is more than 0.
func FrameEnd(frames []byte, n int) int {
	end := 0
	for end < n && len(frames)-end >= 2 {
		length, size, err := parseLength(frames[end:], Opcode(frames[end]&bitsOp))
		if rest := len(frames) - end; err != nil || size == 0 || length > uint64(rest-size) {
			return len(frames) // not what was promised
		}
		end += size + int(length)
	}
	return end
}

// AppendClose appends a close frame as a server sends it. The frame is empty when code may not be sent, as
// CloseNoStatus may not, so that any code that Handler.Close was given can be echoed. reason is cut to what fits.
func AppendClose(dst []byte, code int, reason string) []byte {
	dst, _ = appendClose(dst, code, reason, 0)
	return dst
}

// AppendMaskedFrame appends an unfragmented frame as a client sends it; rsv1 as in AppendHeader.
//
// The masking key is from math/rand/v2, whose top-level functions are ChaCha8 seeded by the system: not predictable,
// which is what RFC 6455 §10.3 asks for, and a sixth of the cost of crypto/rand. Masking protects proxies from scripts that choose
// what a browser sends; nobody's secret depends on the key.
func AppendMaskedFrame(dst []byte, op Opcode, rsv1 bool, payload []byte) []byte {
	dst = appendHeader(dst, op, rsv1, len(payload), bitMask)
	return appendMasked(dst, payload)
}

// AppendMaskedClose is AppendClose as a client sends it.
func AppendMaskedClose(dst []byte, code int, reason string) []byte {
	start := len(dst)
	dst, header := appendClose(dst, code, reason, bitMask)
	payload := bytes.Clone(dst[start+header:])
	return appendMasked(dst[:start+header], payload)
}

// appendClose appends a close frame without a masking key, and returns how long its header is.
func appendClose(dst []byte, code int, reason string, maskBit byte) ([]byte, int) {
	if !validCloseCode(code) {
		return appendHeader(dst, OpClose, false, 0, maskBit), 2
	}
	reason = cutReason(reason)
	dst = appendHeader(dst, OpClose, false, 2+len(reason), maskBit)
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...), 2
}

// cutReason makes reason valid UTF-8 of at most 123 bytes.
func cutReason(reason string) string {
	const room = MaxControlPayload - 2
	// Cut roughly before and exactly after the repair, so that a huge reason costs nothing.
	reason = strings.ToValidUTF8(cutRunes(reason, 2*room), "\uFFFD")
	return cutRunes(reason, room)
}

// cutRunes cuts s to at most n bytes, not inside a rune.
func cutRunes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:n]
}

// appendMasked appends a fresh masking key and payload masked with it.
func appendMasked(dst, payload []byte) []byte {
	key := rand.Uint32()
	dst = binary.LittleEndian.AppendUint32(dst, key)
	start := len(dst)
	dst = append(dst, payload...)
	mask(dst[start:], key)
	return dst
}
