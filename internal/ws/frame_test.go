package ws_test

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hearthws/hearth/internal/ws"
)

func TestAppendFrame(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 125, 126, 65535, 65536} {
		payload := bytes.Repeat([]byte("x"), n)
		got := ws.AppendFrame([]byte("before"), ws.OpBinary, payload)
		if want := append([]byte("before"), plain(fin|binmsg, string(payload))...); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: header %x", n, got[6:min(len(got), 20)])
		}
		if got, want := ws.AppendHeader(nil, ws.OpText, true, n), plain(fin|rsv1|text, string(payload)); !bytes.HasPrefix(want, got) || len(want) != len(got)+n {
			t.Errorf("%d bytes, compressed: header %x", n, got)
		}
	}
}

func TestAppendMasked(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 7, 125, 126, 65535, 65536} {
		payload := bytes.Repeat([]byte("x"), n)
		frame := ws.AppendMaskedFrame([]byte("before"), ws.OpText, false, payload)
		want := says(longText("text", string(payload)))
		if got := feedAll(side{}.endpoint(), frame[6:]); !slices.Equal(got, want) {
			t.Errorf("%d bytes: got %v", n, got)
		}
	}
	compressed := ws.AppendMaskedFrame(nil, ws.OpText, true, []byte(deflated("hi")))
	if got := feedAll(side{deflate: true}.endpoint(), compressed); !slices.Equal(got, says(`text "hi"`)) {
		t.Errorf("compressed: got %v", got)
	}
	if a, b := ws.AppendMaskedFrame(nil, ws.OpPing, false, nil), ws.AppendMaskedFrame(nil, ws.OpPing, false, nil); bytes.Equal(a, b) {
		t.Error("two frames with the same key") // once in 2^32 runs
	}
}

func TestAppendClose(t *testing.T) {
	t.Parallel()
	euro := strings.Repeat("€", 41) // 123 bytes
	for _, c := range []struct {
		code   int
		reason string
		want   string
	}{
		{1000, "", `close 1000 ""`},
		{4001, "Authentication timeout", `close 4001 "Authentication timeout"`},
		{1005, "never sent", `close 1005 ""`},
		{1006, "", `close 1005 ""`},
		{0, "", `close 1005 ""`},
		{-1, "", `close 1005 ""`},
		{70000, "", `close 1005 ""`},
		{1000, euro, fmt.Sprintf("close 1000 %q", euro)},
		{1000, "x" + euro, fmt.Sprintf("close 1000 %q", "x"+strings.Repeat("€", 40))},
		{1000, "xx" + euro, fmt.Sprintf("close 1000 %q", "xx"+strings.Repeat("€", 40))},
		{1000, strings.Repeat("😀", 1000), fmt.Sprintf("close 1000 %q", strings.Repeat("😀", 30))},
		{1000, "a\xffb", `close 1000 "a�b"`},
		{1000, strings.Repeat("\x80", 500), fmt.Sprintf("close 1000 %q", "�")},
	} {
		if got := feedAll(side{role: ws.Client}.endpoint(), ws.AppendClose(nil, c.code, c.reason)); !slices.Equal(got, says(c.want)) {
			t.Errorf("AppendClose(%d, %.20q): got %v, want %v", c.code, c.reason, got, c.want)
		}
		if got := feedAll(side{}.endpoint(), ws.AppendMaskedClose([]byte("before"), c.code, c.reason)[6:]); !slices.Equal(got, says(c.want)) {
			t.Errorf("AppendMaskedClose(%d, %.20q): got %v, want %v", c.code, c.reason, got, c.want)
		}
	}
}

func FuzzAppendClose(f *testing.F) {
	f.Add(1000, "bye")
	f.Add(4000, strings.Repeat("é", 100))
	f.Fuzz(func(t *testing.T, code int, reason string) {
		b := ws.AppendClose(nil, code, reason)
		var r recorder
		e := ws.NewEndpoint(ws.Client, 0, false)
		if err := e.Feed(b, &r); err != nil || len(r.events) != 1 {
			t.Fatalf("%v, %v", err, r.events)
		}
		if utf8.ValidString(reason) && len(b) > 4 && !strings.HasPrefix(reason, string(b[4:])) {
			t.Fatalf("reason became %q", b[4:])
		}
	})
}

func TestMask(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 300 {
		for offset := range 9 {
			key := rng.Uint32()
			buf := make([]byte, offset+n)
			for i := range buf {
				buf[i] = byte(rng.Uint32())
			}
			want := bytes.Clone(buf)
			for i := range n {
				want[offset+i] ^= byte(key >> (i % 4 * 8))
			}
			after := ws.Mask(buf[offset:], key)
			if !bytes.Equal(buf, want) || after != bits.RotateLeft32(key, -n%4*8) {
				t.Fatalf("%d bytes at %d: %x, want %x; key %x became %x", n, offset, buf, want, key, after)
			}
		}
	}
}
