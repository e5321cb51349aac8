package ws_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hearthws/hearth/internal/ws"
)

// FuzzFeed checks that the result does not depend on how the input is split, that it equals the
// reference parser's, and that memory stays within the limits.
func FuzzFeed(f *testing.F) {
	f.Add(join(masked(fin|text, "hello"), masked(fin|ping, "p")), []byte{3, 1}, false, true)
	f.Add(join(masked(text, "h\xc3"), masked(fin|ping, ""), masked(fin|cont, "\xa9")), []byte{1}, false, false)
	f.Add(join(masked(rsv1|binmsg, deflated("hello hello")[:4]), masked(fin|cont, deflated("hello hello")[4:])), []byte{7}, false, true)
	f.Add(masked(fin|rsv1|text, deflatedFinal("a")+deflatedFinal("b")), []byte{200}, false, true)
	f.Add(join(plain(fin|text, strings.Repeat("x", 200)), plain(fin|closing, closePayload(1001, "bye"))), []byte{100, 2}, true, false)
	f.Fuzz(func(t *testing.T, input, drawChunks []byte, client, deflate bool) {
		s := side{limit: 2000, deflate: deflate}
		if client {
			s.role = ws.Client
		}
		want := reference(s, input)
		if got := feedAll(s.endpoint(), input); !slices.Equal(got, want) {
			t.Fatalf("whole: got %v, want %v", got, want)
		}
		var r recorder
		e := s.endpoint()
		for rest, i := bytes.Clone(input), 0; len(rest) > 0; i++ {
			n := 1
			if len(drawChunks) > 0 {
				n = min(int(drawChunks[i%len(drawChunks)])+1, len(rest))
			}
			if err := e.Feed(rest[:n], &r); err != nil {
				r.events = append(r.events, errorEvent(err))
			}
			if held := ws.Held(e); held > 2*(2000+2000/8+64)+ws.MaxControlPayload {
				t.Fatalf("holds %d bytes", held)
			}
			rest = rest[n:]
		}
		if !slices.Equal(r.events, want) {
			t.Fatalf("cut: got %v, want %v", r.events, want)
		}
	})
}

// FuzzInflate checks that the output never exceeds the limit, and that compressed input is inflated
// to the original.
func FuzzInflate(f *testing.F) {
	f.Add([]byte(deflated("hello hello hello")), 100)
	f.Add([]byte(deflated(strings.Repeat("\x00", 100000))), 1000)
	f.Add([]byte(strings.Repeat("\x03\x00", 100)), 10)
	f.Add([]byte("\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"), 5)
	f.Fuzz(func(t *testing.T, data []byte, limit int) {
		limit = int(uint(limit) % (1 << 20))
		out, held, err := ws.Inflate(data, limit)
		if len(out) > limit || held > max(limit+1, 4<<10) {
			t.Fatalf("%d bytes in a buffer of %d, limit %d", len(out), held, limit)
		}
		if err != nil {
			if e := errorEvent(err); e != "error 1007" && e != "error 1009" {
				t.Fatal(e)
			}
		}
		back, _, err := ws.Inflate([]byte(deflated(string(data))), len(data))
		if err != nil || !bytes.Equal(back, data) {
			t.Fatalf("round trip: %x, %v", back, err)
		}
		if !utf8.Valid(data) {
			return
		}
		want := says(longText("text", string(data)))
		if got := feedAll(side{ws.Client, len(data) + 1, true}.endpoint(), ws.NewMessage(data).Deflated()); !slices.Equal(got, want) {
			t.Fatalf("message: got %v, want %v", got, want)
		}
	})
}
