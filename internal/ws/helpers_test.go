package ws_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/hearthws/hearth/internal/ws"
)

// A recorder turns the calls of an Endpoint into lines that can be compared.
type recorder struct {
	events []string
}

func (r *recorder) Message(op ws.Opcode, p []byte) {
	kind := map[ws.Opcode]string{ws.OpText: "text", ws.OpBinary: "binary"}[op]
	r.add(kind, p)
}
func (r *recorder) Ping(p []byte) { r.add("ping", p) }
func (r *recorder) Pong(p []byte) { r.add("pong", p) }
func (r *recorder) Close(code int, reason string) {
	r.events = append(r.events, fmt.Sprintf("close %d %q", code, reason))
}

func (r *recorder) add(kind string, p []byte) {
	if len(p) > 200 {
		r.events = append(r.events, fmt.Sprintf("%s %d bytes, sum %x", kind, len(p), sum(p)))
		return
	}
	r.events = append(r.events, fmt.Sprintf("%s %q", kind, p))
}

func sum(p []byte) (h uint64) {
	for _, c := range p {
		h = h*1099511628211 + uint64(c) + 1
	}
	return h
}

// feedAll feeds the chunks to e, and returns all calls as lines, with the error last.
func feedAll(e *ws.Endpoint, chunks ...[]byte) []string {
	var r recorder
	for _, c := range chunks {
		if err := e.Feed(bytes.Clone(c), &r); err != nil {
			r.events = append(r.events, errorEvent(err))
		}
	}
	return r.events
}

func errorEvent(err error) string {
	var ce *ws.CloseError
	if !errors.As(err, &ce) {
		return "not a CloseError: " + err.Error()
	}
	return fmt.Sprintf("error %d", ce.Code)
}

// side has the parameters of a test's Endpoint.
type side struct {
	role    ws.Role
	limit   int
	deflate bool
}

func (s side) endpoint() *ws.Endpoint {
	e := ws.NewEndpoint(s.role, s.limit, s.deflate)
	return &e
}

// check feeds input whole, split in two at every position, and byte by byte. The recorded lines
// must always be want. Long input is split at fewer positions.
func check(t *testing.T, s side, input []byte, want ...string) {
	t.Helper()
	if got := feedAll(s.endpoint(), input); !slices.Equal(got, want) {
		t.Fatalf("whole: got %v, want %v", got, want)
	}
	const fine = 4000
	for i := 0; i < len(input); i++ {
		if len(input) > fine && i > 20 && i < len(input)-20 {
			i = min(i+len(input)/50, len(input)-20)
		}
		if got := feedAll(s.endpoint(), input[:i], input[i:]); !slices.Equal(got, want) {
			t.Fatalf("cut at %d: got %v, want %v", i, got, want)
		}
	}
	size := 1 + len(input)/fine
	if got := feedAll(s.endpoint(), slices.Collect(slices.Chunk(input, size))...); !slices.Equal(got, want) {
		t.Fatalf("in chunks of %d: got %v, want %v", size, got, want)
	}
}

var testKey = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// plain returns a frame without a mask, with any first byte.
func plain(first byte, payload string) []byte {
	return append(lengthOf([]byte{first}, 0, len(payload)), payload...)
}

// masked returns a frame with a mask, with any first byte.
func masked(first byte, payload string) []byte {
	b := append(lengthOf([]byte{first}, 0x80, len(payload)), testKey[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^testKey[i%4])
	}
	return b
}

func lengthOf(b []byte, maskBit byte, n int) []byte {
	switch {
	case n < 126:
		return append(b, maskBit|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, maskBit|126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, maskBit|127), uint64(n))
	}
}

// First bytes.
const (
	cont, text, binmsg, closing, ping, pong = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

	fin, rsv1 = 0x80, 0x40
)

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

func closePayload(code int, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

// deflated compresses with the standard library, as a sender of permessage-deflate does.
func deflated(s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = w.Write([]byte(s))
	_ = w.Flush()
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff")))
}

// deflatedFinal compresses to a stream that ends with a final block.
func deflatedFinal(s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

// deflatedAfter compresses s as a sender does that has sent before, with references back to it.
func deflatedAfter(before, s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriterDict(&b, flate.BestCompression, []byte(before))
	_, _ = w.Write([]byte(s))
	_ = w.Flush()
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff")))
}
