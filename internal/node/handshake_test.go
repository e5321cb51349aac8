package node

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/transport"
)

const handshake = "GET /ws HTTP/1.1\r\nHost: hearth.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// testConn is a connection that sends a request. It implements the methods of epoll.RawConn that a
// handshakeConn calls.
type testConn struct {
	transport.Conn
	handler  transport.Handler
	wasCut   atomic.Bool
	detached []byte // the bytes that were read before net/http got it; nil if it did not get it
}

func (c *testConn) RemoteAddr() netip.AddrPort     { return netip.MustParseAddrPort("192.0.2.1:1") }
func (c *testConn) SetHandler(h transport.Handler) { c.handler = h }
func (c *testConn) Do(f func())                    { f() }
func (c *testConn) Detach() (net.Conn, error)      { return &detachedConn{conn: c}, nil }
func (c *testConn) Abort()                         { c.wasCut.Store(true) }
func (c *testConn) send(s string)                  { c.handler.Data([]byte(s), 0) }
func (c *testConn) isCut() bool                    { return c.wasCut.Load() }
func (c *testConn) pending() bool                  { return !c.isCut() && c.detached == nil }
func (h *handshakes) connect() *testConn           { c := &testConn{}; c.handler = h.open(c); return c }

// detachedConn is a testConn that was passed to net/http.
type detachedConn struct {
	net.Conn
	conn *testConn
}

func (d *detachedConn) Close() error { d.conn.Abort(); return nil }

// newTestHandshakes makes the handshakes of a node that is not running, so every request goes to
// net/http.
func newTestHandshakes(t *testing.T, limit int) *handshakes {
	n, err := New(Config{
		Path: "/ws", Transport: NetConn, Loops: 1, Log: slog.New(slog.DiscardHandler),
		Upgrade: Upgrade{CheckOrigin: func(*http.Request) bool { return true }},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := newHandshakes(n, newFallbackListener(nil), limit, 0)
	t.Cleanup(h.close)
	return h
}

// drainFallback accepts the connections that were passed to net/http, and returns their number.
func (h *handshakes) drainFallback() (n int) {
	for {
		select {
		case nc := <-h.fallback.conns:
			p := nc.(*prefixConn)
			p.Conn.(*detachedConn).conn.detached = p.prefix
			n++
		default:
			return n
		}
	}
}

// TestHandshakeTimeout: a request must be complete ten seconds after the connection was opened,
// even if bytes keep arriving.
func TestHandshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHandshakes(t, 0)
		silent, slow := h.connect(), h.connect()
		time.Sleep(headerTimeout / 2)
		late, quick := h.connect(), h.connect()
		for range 4 {
			slow.send("GET / HTTP/1.1\r\nX: y\r\n")
			time.Sleep(time.Second)
		}
		quick.send("GET / HTTP/1.1\r\n\r\n")
		time.Sleep(time.Second - 1)
		synctest.Wait()
		if silent.isCut() || slow.isCut() {
			t.Error("cut too early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if h.drainFallback(); !silent.isCut() || !slow.isCut() || late.isCut() || quick.pending() {
			t.Errorf("cut: silent %v, slow %v, late %v; quick is pending: %v", silent.isCut(), slow.isCut(), late.isCut(), quick.pending())
		}
		time.Sleep(headerTimeout / 2)
		synctest.Wait()
		if !late.isCut() || quick.isCut() {
			t.Errorf("cut: late %v, quick %v", late.isCut(), quick.isCut())
		}
		again := h.connect() // after the queue was empty
		time.Sleep(headerTimeout)
		synctest.Wait()
		if !again.isCut() {
			t.Error("not cut")
		}
	})
}

// TestHandshakeFlood: when there are too many connections, the oldest is cut.
func TestHandshakeFlood(t *testing.T) {
	t.Parallel()
	h := newTestHandshakes(t, 3)
	var all []*testConn
	for range 5 {
		all = append(all, h.connect())
	}
	all[3].send("GET / HTTP/1.1\r\n\r\n")
	all[2].handler.Closed(io.EOF)
	all = append(all, h.connect(), h.connect(), h.connect())
	h.drainFallback()
	for i, gone := range []bool{true, true, false, false, true, false, false, false} {
		if all[i].isCut() != gone {
			t.Errorf("%d is cut: %v", i, !gone)
		}
	}
	h.close()
	if !all[7].isCut() || all[3].isCut() {
		t.Errorf("after close: %v, %v", all[7].isCut(), all[3].isCut())
	}
}

// TestHandshakeSize: the size of a request is bounded, and larger ones are passed to net/http.
func TestHandshakeSize(t *testing.T) {
	t.Parallel()
	h := newTestHandshakes(t, 0)
	c := h.connect()
	said := 0
	for h.drainFallback() == 0 {
		c.send("X: 34567\r\n")
		if said += 10; said > maxHeaderBytes+100 {
			t.Fatalf("%d bytes are kept", said)
		}
	}
	if len(c.detached) != said || said < maxHeaderBytes {
		t.Errorf("%d of %d bytes were passed on", len(c.detached), said)
	}
}

// TestFallbackClose: a connection that is passed to net/http during Close is closed.
func TestFallbackClose(t *testing.T) {
	t.Parallel()
	for range 200 {
		h := newTestHandshakes(t, 0)
		c := h.connect()
		done := make(chan struct{})
		go func() { // ends at once
			defer close(done)
			c.send("GET / HTTP/1.1\r\n\r\n")
		}()
		_ = h.fallback.Close()
		<-done
		if h.drainFallback(); !c.isCut() {
			t.Fatal("a connection was not closed")
		}
	}
}

func TestHeaderEnd(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{
		"": -1, "\n": -1, "\r\n": -1, "\n\n": 2, "\r\n\r\n": 4, "\n\r\n": 3, "\r\n\n": 3, "a\r\n\rb\n": -1, "a\r\n\r": -1,
		"a\r\nb\r\n\r\nc\r\n\r\n": 8, "a\n\nb": 3, "\n\r": -1,
	} {
		if got := headerEnd([]byte(in), 0); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
		for from := range in { // continue where an earlier call found no end
			if first := headerEnd([]byte(in[:from]), 0); first < 0 {
				if got := headerEnd([]byte(in), max(0, from-3)); got != want {
					t.Errorf("%q from %d: %d, want %d", in, from, got, want)
				}
			}
		}
	}
}

// FuzzHandshake: a request that the loops accept as a handshake reaches a handler of net/http's
// server unchanged.
func FuzzHandshake(f *testing.F) {
	for _, s := range []string{
		"", "\r\n", "Host: x\r\n", "X: \x01\r\n", "X Y: z\r\n", " folded\r\n", "Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n",
		"Origin: a\r\nOrigin: b\r\n", "X: a\rb\r\n", "X\x80: y\r\n", "X: \x80\r\n", ": x\r\n", "X\r\n", "Expect: 100-continue\r\n",
	} {
		f.Add(strings.Replace(handshake, "Upgrade: w", s+"Upgrade: w", 1), uint8(7))
		f.Add(s+handshake, uint8(0))
	}
	f.Add(strings.ReplaceAll(handshake, "\r", ""), uint8(1))
	f.Add(strings.Replace(handshake, "/ws", "http://u@x:1/ws?a#b", 1), uint8(1))
	n, err := New(Config{Path: "/ws", Transport: NetConn, Loops: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	n.state = running
	f.Fuzz(func(t *testing.T, request string, cut uint8) {
		at := min(int(cut), len(request))
		end := headerEnd([]byte(request[:at]), 0)
		if end < 0 {
			end = headerEnd([]byte(request), max(0, at-3))
		}
		if whole := headerEnd([]byte(request), 0); end != whole {
			t.Fatalf("the header ends at %d; split at %d, it ends at %d", whole, at, end)
		}
		c := &handshakeConn{handshakes: &handshakes{n: n}, conn: &testConn{}}
		u, ok := c.parseUpgrade([]byte(request), end)
		if !ok {
			return
		}
		r := viaNetHTTP(request[:end])
		if r == nil {
			t.Fatalf("net/http rejects %q", request)
		}
		if r.URL.Path != n.cfg.Path || r.Host != u.r.Host || strings.Join(r.Header["Origin"], "|") != strings.Join(u.r.Header["Origin"], "|") {
			t.Errorf("net/http: %+v, here: %+v", r, u.r)
		}
	})
}

// viaNetHTTP returns the request that a handler of net/http gets, or nil if net/http rejects it.
func viaNetHTTP(request string) (got *http.Request) {
	ln := newFallbackListener(nil)
	there, here := net.Pipe()
	defer here.Close()
	srv := &http.Server{
		Handler:  http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
	}
	served := make(chan struct{})
	go func() { // ends with srv.Close
		defer close(served)
		_ = srv.Serve(ln)
	}()
	ln.push(there)
	go func() { _, _ = here.Write([]byte(request)) }() // ends with here
	_, _ = http.ReadResponse(bufio.NewReader(here), nil)
	_ = srv.Close()
	<-served
	return got
}

// BenchmarkHandshakeBytewise: the cost of a request that arrives byte by byte grows only linearly
// with its size.
func BenchmarkHandshakeBytewise(b *testing.B) {
	b.ReportAllocs()
	request := []byte(strings.Replace(handshake, "Upgrade: w", "X: "+strings.Repeat("y", 15<<10)+"\r\nUpgrade: w", 1))
	for range b.N {
		c := &handshakeConn{}
		for i := range request[:len(request)-1] {
			seen := len(c.buf)
			c.buf = append(c.buf, request[i])
			if headerEnd(c.buf, max(0, seen-3)) >= 0 {
				b.Fatal("too early")
			}
		}
	}
}
