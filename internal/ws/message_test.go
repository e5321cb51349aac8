package ws_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hearthws/hearth/internal/ws"
)

var messageSizes = []int{0, 1, 125, 126, 127, 255, 256, 257, 1000, 65535, 65536, 200000}

func TestMessage(t *testing.T) {
	t.Parallel()
	for _, n := range messageSizes {
		payload := strings.Repeat("abcdefghi ", n/10+1)[:n]
		built, err := ws.BuildMessage(n, func(dst []byte) ([]byte, error) { return append(dst, payload...), nil })
		if err != nil {
			t.Fatal(err)
		}
		grown, err := ws.BuildMessage(0, func(dst []byte) ([]byte, error) { return append(dst, payload...), nil })
		if err != nil {
			t.Fatal(err)
		}
		for how, m := range map[string]*ws.Message{"new": ws.NewMessage([]byte(payload)), "built": built, "grown": grown} {
			if !bytes.Equal(m.Frame(), plain(fin|text, payload)) || string(m.Payload()) != payload {
				t.Errorf("%s, %d bytes: frame %.20x, payload %.20x", how, n, m.Frame(), m.Payload())
			}
			want := says(longText("text", payload))
			if got := feedAll(side{ws.Client, 1 << 20, true}.endpoint(), m.Deflated()); !slices.Equal(got, want) {
				t.Errorf("%s, %d bytes, deflated: got %v, want %v", how, n, got, want)
			}
			if shrunk := len(m.Deflated()) < len(m.Frame()); shrunk != (n >= 256) {
				t.Errorf("%s, %d bytes: deflated to %d", how, n, len(m.Deflated()))
			}
		}
	}
}

// TestSeries checks that a series equals its messages in order: whole, compressed and split.
func TestSeries(t *testing.T) {
	t.Parallel()
	payload := func(i int) string { return strings.Repeat("abcdefghi ", messageSizes[i]/10+1)[:messageSizes[i]] }
	var frames []byte
	var said []string
	for i := range messageSizes {
		frames = append(frames, plain(fin|text, payload(i))...)
		said = append(said, says(longText("text", payload(i)))...)
	}
	for how, size := range map[string]int{"as expected": len(frames), "longer": 100, "shorter": 2 * len(frames)} {
		m := ws.BuildSeries(len(messageSizes), size, func(dst []byte, i int) []byte { return append(dst, payload(i)...) })
		if !bytes.Equal(m.Frame(), frames) || m.Count() != len(messageSizes) {
			t.Errorf("%s: %d messages, %d bytes of frames; want %d of %d", how, m.Count(), len(m.Frame()), len(messageSizes), len(frames))
		}
		if got := feedAll(side{ws.Client, 1 << 20, true}.endpoint(), m.Deflated()); !slices.Equal(got, said) {
			t.Errorf("%s, deflated: got %v, want %v", how, got, said)
		}
		if len(m.Deflated()) > len(frames)/10 {
			t.Errorf("%s: %d bytes deflated to %d", how, len(frames), len(m.Deflated()))
		}
		single := ws.NewMessage([]byte("single"))
		parts := m.Split([]*ws.Message{single})
		parts = single.Split(parts)
		if len(parts) != 2+len(messageSizes) || parts[0] != single || parts[len(parts)-1] != single {
			t.Fatalf("%s: split into %d messages", how, len(parts))
		}
		for i, part := range parts[1 : len(parts)-1] {
			if string(part.Payload()) != payload(i) || part.Count() != 1 {
				t.Errorf("%s: message %d is %.20q of %d", how, i, part.Payload(), part.Count())
			}
		}
	}
}

func TestMessageThatDoesNotShrink(t *testing.T) {
	t.Parallel()
	rng := rand.NewChaCha8([32]byte{})
	for _, n := range messageSizes {
		payload := make([]byte, n)
		_, _ = rng.Read(payload)
		m := ws.NewMessage(payload)
		if !bytes.Equal(m.Deflated(), m.Frame()) {
			t.Errorf("%d random bytes: deflated to %d", n, len(m.Deflated()))
		}
	}
}

func TestDeflatedIsMadeOnce(t *testing.T) {
	t.Parallel()
	m := ws.NewMessage([]byte(strings.Repeat("once ", 1000)))
	var wg sync.WaitGroup
	frames := make([][]byte, 16)
	for i := range frames {
		wg.Go(func() { frames[i] = m.Deflated() })
	}
	wg.Wait()
	for _, f := range frames {
		if &f[0] != &frames[0][0] {
			t.Fatal("two compressed frames")
		}
	}
}

func TestBuildMessageFails(t *testing.T) {
	t.Parallel()
	cause := errors.New("cannot marshal")
	if m, err := ws.BuildMessage(10, func(dst []byte) ([]byte, error) { return dst, cause }); m != nil || !errors.Is(err, cause) {
		t.Errorf("got %v, %v", m, err)
	}
	if m, err := ws.BuildMessage(10, func([]byte) ([]byte, error) { return nil, nil }); m != nil || err == nil {
		t.Errorf("nothing returned: got %v, %v", m, err)
	}
}

func TestMessageAllocations(t *testing.T) {
	payload := []byte(strings.Repeat("x", 100))
	for name, f := range map[string]func(){
		"NewMessage": func() { ws.NewMessage(payload) },
		"BuildMessage": func() {
			_, _ = ws.BuildMessage(100, func(dst []byte) ([]byte, error) { return append(dst, payload...), nil })
		},
		"BuildSeries": func() {
			ws.BuildSeries(100, 100*len(payload), func(dst []byte, _ int) []byte { return append(dst, payload...) })
		},
	} {
		if n := testing.AllocsPerRun(100, f); n > 2 {
			t.Errorf("%s: %v allocations, want one for the Message and one for its frames", name, n)
		}
	}
}
