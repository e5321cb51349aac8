package ws_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/hearthws/hearth/internal/ws"
)

// reference returns the expected result of Feed for input. Its parser is slow and follows the RFC's
// text closely: it has all input at once, and reads it byte by byte.
func reference(s side, input []byte) []string {
	p := &refParser{side: s, in: input}
	p.run()
	return p.r.events
}

type refParser struct {
	side
	in []byte
	r  recorder

	open       bool // a message is open
	op         byte
	compressed bool
	frames     int
	payload    []byte
}

// violated and exhausted end the parser by a panic.
type violated int
type exhausted struct{}

func (p *refParser) run() {
	defer func() {
		switch v := recover().(type) {
		case nil, exhausted:
		case violated:
			p.r.events = append(p.r.events, fmt.Sprintf("error %d", int(v)))
		default:
			panic(v)
		}
	}()
	for p.frame() {
	}
}

func (p *refParser) byte() byte {
	if len(p.in) == 0 {
		panic(exhausted{})
	}
	c := p.in[0]
	p.in = p.in[1:]
	return c
}

func must(ok bool, code int) {
	if !ok {
		panic(violated(code))
	}
}

func (p *refParser) frame() bool {
	first := p.byte()
	op := first & 0x0F
	control := op >= 8
	compressed := first&0x40 != 0
	must(first&0x30 == 0, 1002)
	must(slices.Contains([]byte{0, 1, 2, 8, 9, 10}, op), 1002)
	must(!compressed || p.deflate && (op == 1 || op == 2), 1002)
	must(!control || first&0x80 != 0, 1002)
	if !control {
		must((op == 0) == p.open, 1002)
	}

	second := p.byte()
	must(second&0x80 != 0 == (p.role == ws.Server), 1002)
	n := uint64(second & 0x7F)
	must(!control || n <= 125, 1002)
	if wide := map[uint64]int{126: 2, 127: 8}[n]; wide > 0 {
		n = 0
		for range wide {
			n = n<<8 | uint64(p.byte())
		}
		must(n>>63 == 0, 1002)
		must(wide == 2 && n > 125 || wide == 8 && n > 65535, 1002)
	}
	if !control {
		if op != 0 {
			p.open, p.op, p.compressed, p.payload, p.frames = true, op, compressed, nil, 0
		}
		must(p.frames < 128+p.limit/16, 1009)
		most := p.limit
		if p.compressed {
			most += p.limit/8 + 64
		}
		must(uint64(len(p.payload))+n <= uint64(most), 1009)
		p.frames++
	}

	var key [4]byte
	if p.role == ws.Server {
		for i := range key {
			key[i] = p.byte()
		}
	}
	if control {
		var payload []byte
		for i := range n {
			payload = append(payload, p.byte()^key[i%4])
		}
		return p.control(op, payload)
	}
	for i := range n {
		p.payload = append(p.payload, p.byte()^key[i%4])
		if p.op == 1 && !p.compressed {
			must(mayBecomeText(p.payload), 1007)
		}
	}
	if first&0x80 != 0 {
		p.message()
	}
	return true
}

func (p *refParser) message() {
	p.open = false
	if p.compressed {
		p.inflate()
	}
	must(p.op != 1 || utf8.Valid(p.payload), 1007)
	p.r.Message(ws.Opcode(p.op), p.payload)
}

func (p *refParser) inflate() {
	if len(p.payload) == 0 {
		return
	}
	const tail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"
	in := bytes.NewReader(append(p.payload, tail...))
	var all []byte
	for streams := 0; ; streams++ {
		must(streams < 16, 1007)
		out, err := io.ReadAll(io.LimitReader(flate.NewReaderDict(in, all), int64(p.limit-len(all)+1)))
		all = append(all, out...)
		must(len(all) <= p.limit, 1009)
		must(err == nil, 1007)
		if in.Len() == 0 || in.Len() == len(tail) {
			break
		}
	}
	p.payload = all
}

func (p *refParser) control(op byte, payload []byte) bool {
	switch op {
	case 9:
		p.r.Ping(payload)
	case 10:
		p.r.Pong(payload)
	case 8:
		if len(payload) == 0 {
			p.r.Close(1005, "")
			return false
		}
		must(len(payload) > 1, 1002)
		code := int(binary.BigEndian.Uint16(payload))
		defined := code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014
		must(defined || code >= 3000 && code < 5000, 1002)
		must(utf8.Valid(payload[2:]), 1007)
		p.r.Close(code, string(payload[2:]))
		return false
	}
	return true
}

// mayBecomeText reports whether some bytes after b could make all of it UTF-8.
func mayBecomeText(b []byte) bool {
	if len(b) > 8 { // earlier bytes were checked before
		b = b[len(b)-8:]
		for len(b) > 0 && !utf8.RuneStart(b[0]) {
			b = b[1:]
		}
	}
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			return !utf8.FullRune(b)
		}
		b = b[n:]
	}
	return true
}

// drawFrame draws a frame that is mostly valid and sometimes not.
func drawFrame(t *rapid.T, s side) []byte {
	payload := rapid.OneOf(
		rapid.StringN(-1, -1, 40),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 40), func(b []byte) string { return string(b) }),
		rapid.Map(rapid.IntRange(0, 700), func(n int) string { return string(bytes.Repeat([]byte("é"), n)) }),
		rapid.SampledFrom([]string{"", "a", "\xc3", "\xa9", "\xe2\x82", "\xac", "\x03\xe8", "\x03\xe8bye", "\x03\x00"}),
	).Draw(t, "payload")
	first := rapid.SampledFrom([]byte{
		fin | text, fin | text, fin | binmsg, text, binmsg, cont, cont, fin | cont, fin | cont, fin | ping, fin | pong,
	}).Draw(t, "first")
	if rapid.IntRange(0, 19).Draw(t, "odd") == 0 {
		first = rapid.Byte().Draw(t, "any first")
	}
	if s.deflate && first&3 != 0 && rapid.Bool().Draw(t, "compress") {
		first |= rsv1
		if rapid.Bool().Draw(t, "final block") {
			payload = deflatedFinal(payload) + "\x00"
		} else {
			payload = deflated(payload)
		}
	}
	b := plain(first, payload)
	if s.role == ws.Server {
		b = masked(first, payload)
	}
	if rapid.IntRange(0, 29).Draw(t, "damage") == 0 {
		b[rapid.IntRange(0, len(b)-1).Draw(t, "where")] ^= byte(rapid.IntRange(1, 255).Draw(t, "how"))
	}
	return b
}

func TestAgainstReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := side{
			role:    rapid.SampledFrom([]ws.Role{ws.Server, ws.Client}).Draw(t, "role"),
			limit:   rapid.SampledFrom([]int{1, 50, 500, 5000}).Draw(t, "limit"),
			deflate: rapid.Bool().Draw(t, "deflate"),
		}
		var input []byte
		for range rapid.IntRange(1, 12).Draw(t, "frames") {
			input = append(input, drawFrame(t, s)...)
		}
		want := reference(s, input)
		if got := feedAll(s.endpoint(), drawChunks(t, input)...); !slices.Equal(got, want) {
			t.Fatalf("%x\ngot  %v\nwant %v", input, got, want)
		}
	})
}

// drawChunks splits b into chunks, some of them empty.
func drawChunks(t *rapid.T, b []byte) [][]byte {
	var chunks [][]byte
	most := rapid.SampledFrom([]int{1, 5, 100, 2000}).Draw(t, "longest chunk")
	for len(b) > 0 {
		n := rapid.IntRange(0, min(most, len(b))).Draw(t, "chunk")
		chunks = append(chunks, b[:n])
		b = b[n:]
		if len(chunks) > 400 {
			return append(chunks, b)
		}
	}
	return chunks
}
