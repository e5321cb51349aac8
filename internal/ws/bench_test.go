package ws_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/hearthws/hearth/internal/ws"
)

// event returns a payload of about n bytes that looks like real traffic: JSON with repeated keys
// and differing values.
func event(n int) string {
	var b strings.Builder
	b.WriteString(`{"event":"positions","data":[`)
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, `{"id":"%08x","name":"user %d","x":%.3f,"active":%t},`, int64(i)*2654435761, i*7919%1000, float64(i*31%977)/7, i%3 == 0)
	}
	b.WriteString(`null]}`)
	return b.String()
}

var benchSizes = []int{16, 100, 1000, 10_000, 100_000}

func BenchmarkFeed(b *testing.B) {
	for _, n := range benchSizes {
		for name, first := range map[string]byte{"text": fin | text, "binary": fin | binmsg} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				frame := masked(first, strings.Repeat("x", n))
				benchFeed(b, frame, len(frame))
			})
		}
	}
}

// BenchmarkFeedMany feeds a full read buffer of small frames.
func BenchmarkFeedMany(b *testing.B) {
	frames := strings.Repeat(string(masked(fin|text, strings.Repeat("x", 100))), 600)
	benchFeed(b, []byte(frames), len(frames))
}

// BenchmarkFeedCut feeds a message in chunks: one allocation for the state, and those for the
// payload.
func BenchmarkFeedCut(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			frame := masked(fin|text, strings.Repeat("x", n))
			benchFeed(b, frame, len(frame)/2+1)
		})
	}
}

func BenchmarkFeedDeflated(b *testing.B) {
	for _, n := range benchSizes[1:] {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			frame := masked(fin|rsv1|text, deflated(event(n)))
			benchFeed(b, frame, len(frame))
		})
	}
}

// benchFeed feeds frames in chunks repeatedly. It includes copying them again each time, because
// they are unmasked in place.
func benchFeed(b *testing.B, frames []byte, chunk int) {
	e := ws.NewEndpoint(ws.Server, 1<<20, true)
	buf := make([]byte, len(frames))
	q := &countingHandler{}
	b.SetBytes(int64(len(frames)))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, frames)
		for rest := buf; len(rest) > 0; {
			n := min(chunk, len(rest))
			if err := e.Feed(rest[:n], q); err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
	}
}

func BenchmarkMask(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := make([]byte, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				ws.Mask(p, 0x3d21fa37)
			}
		})
	}
}

func BenchmarkNewMessage(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := []byte(event(n))
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				ws.NewMessage(p)
			}
		})
	}
}

// BenchmarkBuildSeries measures one of 64 messages that go out together.
func BenchmarkBuildSeries(b *testing.B) {
	for _, n := range benchSizes[:3] {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := []byte(event(n))
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%64 == 0 {
					ws.BuildSeries(64, 64*len(p), func(dst []byte, _ int) []byte { return append(dst, p...) })
				}
			}
		})
	}
}

// BenchmarkDeflated makes and compresses a message, which happens once for all receivers.
func BenchmarkDeflated(b *testing.B) {
	for _, n := range benchSizes[2:] {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := []byte(event(n))
			size := 0
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				size = len(ws.NewMessage(p).Deflated())
			}
			b.ReportMetric(float64(size)/float64(len(p)), "ratio")
		})
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	p := []byte(event(100))
	buf := make([]byte, 0, 1000)
	b.ReportAllocs()
	for b.Loop() {
		buf = ws.AppendFrame(buf[:0], ws.OpText, p)
	}
}

func BenchmarkAppendMaskedFrame(b *testing.B) {
	p := []byte(event(100))
	buf := make([]byte, 0, 1000)
	b.ReportAllocs()
	for b.Loop() {
		buf = ws.AppendMaskedFrame(buf[:0], ws.OpText, false, p)
	}
}

func BenchmarkUpgrade(b *testing.B) {
	r := &http.Request{Method: "GET", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "example.com", Header: http.Header{
		"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Key": {sampleKey}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Extensions": {"permessage-deflate; client_max_window_bits"},
	}}
	buf := make([]byte, 0, 500)
	b.ReportAllocs()
	for b.Loop() {
		a, err := ws.Upgrade(r)
		if err != nil {
			b.Fatal(err)
		}
		buf = ws.AppendResponse(buf[:0], a, nil)
	}
	_, _ = io.Discard.Write(buf)
}
