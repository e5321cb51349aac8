package redis

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// cutUp is a connection that gives its text in pieces of the given lengths, the last of them again and again.
type cutUp struct {
	net.Conn
	text   string
	pieces []int
}

func (c *cutUp) Read(p []byte) (int, error) {
	if c.text == "" {
		return 0, io.EOF
	}
	n := 1
	if len(c.pieces) > 0 {
		n = max(c.pieces[0], 1)
	}
	if len(c.pieces) > 1 {
		c.pieces = c.pieces[1:]
	}
	n = copy(p, c.text[:min(n, len(c.text))])
	c.text = c.text[n:]
	return n, nil
}

// sieved is what a sieve makes of text.
type sieved struct {
	messages []string // channel, payload and size
	passed   string
	err      error // nil for the end of the text
}

func sieveAll(text string, most int, pieces ...int) (out sieved) {
	var waiting []incoming // of one read, as in a batch
	g := newGuard(&cutUp{text: text, pieces: pieces}, &hooks{
		max:     most,
		message: func(m incoming) { waiting = append(waiting, m) },
		reading: func() {
			for _, m := range waiting {
				out.messages = append(out.messages, fmt.Sprintf("%s %s %d", m.channel, m.payload, m.size))
				m.chunk.release()
			}
			waiting = nil
		},
	})
	g.out.note([]byte(questions))
	p := make([]byte, 512)
	for {
		n, err := g.Read(p)
		out.passed += string(p[:n])
		if err != nil {
			if out.err = err; errors.Is(err, io.EOF) {
				out.err = nil
			}
			return out
		}
	}
}

func push(parts ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ">%d\r\n", len(parts))
	for _, p := range parts {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(p), p)
	}
	return b.String()
}

const (
	hello   = "%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n$7\r\nmodules\r\n*0\r\n"
	confirm = ">3\r\n$9\r\nsubscribe\r\n$12\r\nws:broadcast\r\n:1\r\n"
)

// questions are those to which hello, confirm, and whatever else comes are the answers.
var questions = command("HELLO", "3") + command("SUBSCRIBE", "ws:broadcast") + strings.Repeat(command("GET", "x"), 20)

func TestSieve(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 200<<10)
	for name, tt := range map[string]struct {
		text     string
		messages []string
		passed   string
		garbage  bool
	}{
		"nothing":               {text: ""},
		"replies":               {text: hello + confirm + "-ERR no\r\n+OK\r\n:-7\r\n_\r\n#t\r\n,1.5\r\n(12345678901234567890\r\n$-1\r\n*-1\r\n~1\r\n$0\r\n\r\n=7\r\ntxt:abc\r\n!3\r\nERR\r\n", passed: "*"},
		"a message":             {text: push("message", "c", "hi"), messages: []string{"c hi 2"}},
		"of a pattern":          {text: push("pmessage", "c*", "c1", "hi"), messages: []string{"c1 hi 2"}},
		"between replies":       {text: hello + push("message", "c", "1") + confirm + push("message", "d", "2") + "+OK\r\n", messages: []string{"c 1 1", "d 2 1"}, passed: hello + confirm + "+OK\r\n"},
		"line ends within":      {text: push("message", "c\r\n>3", ">3\r\n$7\r\nmessage\r\n"), messages: []string{"c\r\n>3 >3\r\n$7\r\nmessage\r\n 17"}},
		"empty":                 {text: push("message", "", ""), messages: []string{"  0"}},
		"larger than a chunk":   {text: push("message", "c", large) + push("message", "c", "2"), messages: []string{"c " + large + " 204800", "c 2 1"}},
		"too large":             {text: push("message", "c", large+large) + push("message", "c", "2") + hello, messages: []string{"  409600", "c 2 1"}, passed: hello},
		"an array named so":     {text: "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n", passed: "*"},
		"cut off":               {text: push("message", "c", "1") + push("message", "c", "2")[:20], messages: []string{"c 1 1"}},
		"an attribute":          {text: "|1\r\n+a\r\n:1\r\n+b\r\n", garbage: true},
		"HTTP":                  {text: "HTTP/1.1 400 Bad Request\r\n\r\n", garbage: true},
		"no type":               {text: "\r\n", garbage: true},
		"no line end":           {text: strings.Repeat("+", 70<<10), garbage: true},
		"LF only":               {text: "+OK\n", garbage: true},
		"a large length":        {text: "$999999999999\r\n", garbage: true},
		"a large array":         {text: "*1000000000\r\n", garbage: true},
		"arrays of arrays":      {text: strings.Repeat("*1000000\r\n", 3), garbage: true},
		"a negative length":     {text: "$-7\r\n", garbage: true},
		"no digits":             {text: "$\r\n", garbage: true},
		"a streamed string":     {text: "$?\r\n", garbage: true},
		"a message of a number": {text: ">3\r\n$7\r\nmessage\r\n:7\r\n$2\r\nhi\r\n", garbage: true},
		"a message too long":    {text: ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$99999999999\r\n", garbage: true},
		"a channel too long":    {text: push("message", large, "1") + push("message", "c", "2") + hello, messages: []string{"  204801", "c 2 1"}, passed: hello},
		"of a pattern, so":      {text: push("pmessage", "c*", large, large) + push("message", "c", "2"), messages: []string{"  409600", "c 2 1"}},
		"and nothing in it":     {text: push("message", large, "") + push("message", "c", "2"), messages: []string{"  204800", "c 2 1"}},
		"so, and cut off":       {text: push("message", large, "1")[:70<<10]},
		"so, and garbage":       {text: push("message", large, "1")[:26+200<<10+2] + ":1\r\n", garbage: true},
		"garbage behind it":     {text: push("message", "c", "1") + "nonsense\r\n", messages: []string{"c 1 1"}, garbage: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.passed == "*" {
				tt.passed = tt.text
			}
			for _, pieces := range [][]int{{1 << 20}, {1}, {2}, {7}, {1, 3, 5, 1000}, {4096}} {
				if len(tt.text) > 10<<10 && pieces[0] < 100 {
					continue // the same, and slow
				}
				got := sieveAll(tt.text, 300<<10, pieces...)
				if !slices.Equal(got.messages, tt.messages) {
					t.Errorf("in pieces of %v: messages %.100q, want %.100q", pieces, got.messages, tt.messages)
				}
				if got.passed != tt.passed && !tt.garbage {
					t.Errorf("in pieces of %v: passed %q, want %q", pieces, got.passed, tt.passed)
				}
				if errors.Is(got.err, errGarbage) != tt.garbage {
					t.Errorf("in pieces of %v: error %v", pieces, got.err)
				}
			}
		})
	}
}

// takerOf is a sieve that reads text in pieces of 16 KiB, and whose messages are taken before it reads again.
func takerOf(text string) *guard {
	var waiting []*chunk
	return newGuard(&cutUp{text: text, pieces: []int{16 << 10}}, &hooks{
		max:     1 << 20,
		message: func(m incoming) { waiting = append(waiting, m.chunk) },
		reading: func() {
			for _, c := range waiting {
				c.release()
			}
			waiting = waiting[:0]
		},
	})
}

// TestSieveKeepsLittle: messages that nobody takes any more leave their memory to the next.
func TestSieveKeepsLittle(t *testing.T) { // not parallel: allocations are counted
	text := strings.Repeat(push("message", "ws:room:lobby", strings.Repeat("x", 250)), 200)
	allocs := testing.AllocsPerRun(20, func() {
		s := takerOf(text)
		if _, err := s.Read(make([]byte, 512)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
	if allocs > 20 {
		t.Errorf("%v allocations for 200 messages", allocs)
	}
}

// FuzzSieve: however it is cut, the same comes out; nothing panics.
func FuzzSieve(f *testing.F) {
	for _, text := range []string{hello + confirm, push("message", "c", "hi") + push("pmessage", "c*", "c", "hi"), "*1\r\n$3\r\nabc\r\n", "HTTP/1.1", hello + push("message", "c", strings.Repeat("x", 200)) + ":7\r\n"} {
		f.Add([]byte(text), 3, 5)
	}
	f.Fuzz(func(t *testing.T, text []byte, a, b int) {
		if len(text) > 8<<10 {
			t.Skip("long texts are cut byte by byte: slow, and nothing new")
		}
		whole := sieveAll(string(text), 100, 1<<20)
		cut := sieveAll(string(text), 100, a%100, b%100)
		if !slices.Equal(whole.messages, cut.messages) || whole.passed != cut.passed || fmt.Sprint(whole.err) != fmt.Sprint(cut.err) {
			t.Errorf("whole: %+v\ncut: %+v", whole, cut)
		}
		if !bytes.HasPrefix(text, []byte(whole.passed)) && len(whole.messages) == 0 {
			t.Errorf("passed %q", whole.passed)
		}
	})
}

// BenchmarkSieve is what it costs to take a message of 250 bytes out.
func BenchmarkSieve(b *testing.B) {
	one := push("message", "ws:room:lobby", strings.Repeat("x", 250))
	text := strings.Repeat(one, 1000)
	b.ReportAllocs()
	b.SetBytes(int64(len(one)))
	for n := 0; n < b.N; n += 1000 {
		s := takerOf(text)
		_, _ = s.Read(nil)
	}
}
