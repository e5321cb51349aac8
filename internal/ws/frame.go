package ws

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"unicode/utf8"
)

// AppendHeader appends the header of an unfragmented, unmasked frame with n bytes of payload. rsv1
// means that the payload is compressed (RFC 7692 §6).
func AppendHeader(dst []byte, op Opcode, rsv1 bool, n int) []byte {
	return appendHeader(dst, op, rsv1, n, 0)
}

// AppendFrame appends an unfragmented frame as a server sends it. The payload of a control frame
// must not be longer than MaxControlPayload.
func AppendFrame(dst []byte, op Opcode, payload []byte) []byte {
	return append(appendHeader(dst, op, false, len(payload), 0), payload...)
}

// FrameEnd returns the end of the frame that contains byte n-1. frames must be complete frames as a
// server sends them, and n must be positive.
func FrameEnd(frames []byte, n int) int {
	end := 0
	for end < n && len(frames)-end >= 2 {
		length, header, err := parseLength(frames[end:], Opcode(frames[end]&bitsOp))
		if rest := len(frames) - end; err != nil || header == 0 || length > uint64(rest-header) {
			return len(frames) // frames has an incomplete frame, which the caller must not pass
		}
		end += header + int(length)
	}
	return end
}

// AppendClose appends a close frame as a server sends it. The frame is empty if code may not be
// sent, like CloseNoStatus, so any code that Handler.Close received can be echoed. reason is
// truncated to fit.
func AppendClose(dst []byte, code int, reason string) []byte {
	dst, _ = appendClose(dst, code, reason, 0)
	return dst
}

// AppendMaskedFrame appends an unfragmented frame as a client sends it; rsv1 as in AppendHeader.
//
// The masking key comes from math/rand/v2, whose top-level functions use ChaCha8 seeded by the
// system. It is not predictable, as RFC 6455 §10.3 requires, and costs a sixth of crypto/rand.
// Masking protects proxies from scripts that choose what a browser sends; no secret depends on the
// key.
func AppendMaskedFrame(dst []byte, op Opcode, rsv1 bool, payload []byte) []byte {
	dst = appendHeader(dst, op, rsv1, len(payload), bitMask)
	return appendMasked(dst, payload)
}

// AppendMaskedClose is AppendClose for a client.
func AppendMaskedClose(dst []byte, code int, reason string) []byte {
	start := len(dst)
	dst, header := appendClose(dst, code, reason, bitMask)
	payload := bytes.Clone(dst[start+header:])
	return appendMasked(dst[:start+header], payload)
}

// appendClose appends a close frame without a masking key, and returns the length of its header.
func appendClose(dst []byte, code int, reason string, maskBit byte) ([]byte, int) {
	if !validCloseCode(code) {
		return appendHeader(dst, OpClose, false, 0, maskBit), 2
	}
	reason = truncateReason(reason)
	dst = appendHeader(dst, OpClose, false, 2+len(reason), maskBit)
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...), 2
}

// truncateReason makes reason valid UTF-8 of at most 123 bytes.
func truncateReason(reason string) string {
	const most = MaxControlPayload - 2 // the code takes two bytes
	// Truncate roughly before the repair and exactly after it, so that a huge reason costs nothing.
	reason = strings.ToValidUTF8(truncateRunes(reason, 2*most), "\uFFFD")
	return truncateRunes(reason, most)
}

// truncateRunes truncates s to at most n bytes, without splitting a rune.
func truncateRunes(s string, n int) string {
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

// appendMasked appends a fresh masking key and the payload masked with it.
func appendMasked(dst, payload []byte) []byte {
	key := rand.Uint32()
	dst = binary.LittleEndian.AppendUint32(dst, key)
	start := len(dst)
	dst = append(dst, payload...)
	mask(dst[start:], key)
	return dst
}
