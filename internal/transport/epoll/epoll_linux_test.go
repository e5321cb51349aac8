package epoll_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/transport/epoll"
	"github.com/hearthws/hearth/internal/transport/transporttest"
	"go.uber.org/goleak"
)

const testTimeout = time.Minute

func TestMain(m *testing.M) {
	if transporttest.Drain() {
		return
	}
	goleak.VerifyTestMain(m)
}

var backend = transporttest.Backend{
	New:       func(cfg transport.Config) (transport.Transport, error) { return epoll.New(cfg) },
	Dial:      transporttest.TCP,
	HalfClose: true,
	Reset:     transporttest.Reset,
}

func TestSuite(t *testing.T) { transporttest.Run(t, backend) }

func BenchmarkFanOut(b *testing.B) { transporttest.BenchmarkFanOut(b, backend) }
func BenchmarkWake(b *testing.B)   { transporttest.BenchmarkWake(b, backend) }
func BenchmarkEcho(b *testing.B)   { transporttest.BenchmarkEcho(b, backend) }

// discard is a handler that ignores all events except Closed.
type discard struct{ closed chan error }

func (discard) Data([]byte, clock.Instant) {}
func (discard) PeerClosed() bool           { return false }
func (discard) Drained()                   {}
func (d discard) Closed(err error)         { d.closed <- err }

func idle(int) bool { return false }

func start(t *testing.T, loops int) *epoll.Transport {
	t.Helper()
	tr, err := epoll.New(transport.Config{Loops: loops, Tick: idle})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

func TestOnlyTCP(t *testing.T) {
	t.Parallel()
	tr := start(t, 1)
	server, client := transporttest.TCP(t)
	defer server.Close()
	defer client.Close()
	open := func(transport.Conn) transport.Handler {
		t.Error("open was called")
		return nil
	}
	for _, nc := range []net.Conn{tls.Server(server, nil), struct{ net.Conn }{server}} {
		if err := tr.Adopt(nc, nil, open); !errors.Is(err, transport.ErrUnsupported) {
			t.Errorf("Adopt(%T) = %v, want ErrUnsupported", nc, err)
		}
	}
}

// TestDescriptors checks that no descriptor stays open. It is not parallel, because it counts the
// sockets, epolls and eventfds of the whole process.
func TestDescriptors(t *testing.T) {
	count := func() (n int) {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			to, _ := os.Readlink("/proc/self/fd/" + name.Name())
			if strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "anon_inode:") {
				n++
			}
		}
		return n
	}
	round := func() {
		tr, err := epoll.New(transport.Config{Loops: 3, Tick: idle})
		if err != nil {
			t.Fatal(err)
		}
		ln := listen(t)
		if _, err := tr.Listen(ln, func(epoll.RawConn) transport.Handler { return discard{make(chan error, 1)} }); err != nil {
			t.Fatal(err)
		}
		var clients []net.Conn
		for i := range 100 {
			server, client := transporttest.TCP(t)
			d := discard{make(chan error, 1)}
			if err := tr.Adopt(server, []byte("early"), func(c transport.Conn) transport.Handler { return d }); err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				_ = client.Close()
				<-d.closed
			} else {
				clients = append(clients, client)
			}
		}
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		for _, c := range clients {
			_ = c.Close()
		}
	}
	round() // in the first round, the runtime opens some of its own
	before := count()
	for range 3 {
		round()
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestWriteInData checks that Data may write, since epoll calls it on the loop.
func TestWriteInData(t *testing.T) {
	t.Parallel()
	tr := start(t, 1)
	server, client := transporttest.TCP(t)
	defer client.Close()
	if err := tr.Adopt(server, nil, func(c transport.Conn) transport.Handler { return &echo{c: c} }); err != nil {
		t.Fatal(err)
	}
	exchange(t, client, "hello")
	exchange(t, client, "again")
}

type echo struct{ c transport.Conn }

func (e *echo) Data(b []byte, _ clock.Instant) { e.c.Write(bytes.Clone(b)) }
func (e *echo) PeerClosed() bool               { return false }
func (e *echo) Drained()                       {}
func (e *echo) Closed(error)                   {}

func exchange(t *testing.T, client net.Conn, text string) {
	t.Helper()
	if err := client.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Error(err)
	}
	if _, err := client.Write([]byte(text)); err != nil {
		t.Error(err)
		return
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(client, got); err != nil || string(got) != text {
		t.Errorf("got %q, %v; want %q", got, err, text)
	}
}

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func TestListen(t *testing.T) {
	t.Parallel()
	tr := start(t, 3)
	ln := listen(t)
	addr := ln.Addr().String()
	var mu sync.Mutex
	loops := make(map[int]int)
	lr, err := tr.Listen(ln, func(c epoll.RawConn) transport.Handler {
		mu.Lock()
		defer mu.Unlock()
		loops[c.Loop()]++
		return &echo{c: c}
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	clients := make([]net.Conn, 120)
	for i := range clients {
		wg.Go(func() {
			client, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			clients[i] = client
			exchange(t, client, client.LocalAddr().String())
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	mu.Lock()
	for i := range 3 {
		if loops[i] < 35 {
			t.Errorf("connections per loop: %v", loops)
		}
	}
	mu.Unlock()
	if err := lr.Close(); err != nil {
		t.Error(err)
	}
	if again, err := net.Listen("tcp", addr); err != nil {
		t.Errorf("listen again on the port: %v", err)
	} else {
		_ = again.Close()
	}
	for _, c := range clients {
		exchange(t, c, "still here")
		_ = c.Close()
	}
	if err := lr.Close(); err != nil {
		t.Error(err)
	}
}

func TestListenAfterClose(t *testing.T) {
	t.Parallel()
	tr := start(t, 1)
	_ = tr.Close()
	ln := listen(t)
	defer ln.Close()
	if _, err := tr.Listen(ln, nil); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Listen = %v, want ErrClosed", err)
	}
}

// TestListenerAfterTransport checks that the listener can be closed after the transport.
func TestListenerAfterTransport(t *testing.T) {
	t.Parallel()
	tr := start(t, 2)
	lr, err := tr.Listen(listen(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = tr.Close()
	if err := lr.Close(); err != nil {
		t.Error(err)
	}
}

// switcher is a handler that looks at the first byte: on an e it makes an echo the handler,
// otherwise it detaches the connection.
type switcher struct {
	c        epoll.RawConn
	detached chan net.Conn
	t        *testing.T
}

func (s *switcher) Data(b []byte, _ clock.Instant) {
	if b[0] == 'e' {
		e := &echo{c: s.c}
		s.c.SetHandler(e)
		e.Data(b, 0)
		return
	}
	nc, err := s.c.Detach()
	if err != nil {
		s.t.Errorf("Detach: %v", err)
	}
	s.detached <- nc
}
func (s *switcher) PeerClosed() bool { return false }
func (s *switcher) Drained()         {}
func (s *switcher) Closed(err error) {
	s.t.Errorf("Closed(%v) for a replaced handler", err)
}

func TestSetHandlerAndDetach(t *testing.T) {
	t.Parallel()
	tr := start(t, 2)
	ln := listen(t)
	addr := ln.Addr().String()
	detached := make(chan net.Conn, 1)
	_, err := tr.Listen(ln, func(c epoll.RawConn) transport.Handler { return &switcher{c, detached, t} })
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		one, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, one, "echo")
		exchange(t, one, "echo again")
		two, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := two.Write([]byte("GET")); err != nil {
			t.Fatal(err)
		}
		nc := <-detached
		if got, want := nc.RemoteAddr().String(), two.LocalAddr().String(); got != want {
			t.Errorf("RemoteAddr = %v, want %v", got, want)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = nc.SetDeadline(time.Now().Add(testTimeout))
			_, _ = io.Copy(nc, nc)
			_ = nc.Close()
		})
		exchange(t, two, "served by package net")
		_ = two.Close()
		wg.Wait()
		_ = one.Close()
	}
}

// TestQuiet checks that the loop sleeps when connections are in states that epoll could report
// again and again. It counts turns.
func TestQuiet(t *testing.T) {
	t.Parallel()
	var turns atomic.Int32
	todo := make(chan func(), 1)
	tr, err := epoll.New(transport.Config{BackpressureLimit: 64 << 20, CloseTimeout: testTimeout, Tick: func(int) bool {
		turns.Add(1)
		select {
		case f := <-todo:
			f()
		default:
		}
		return false
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	for name, prepare := range map[string]func(c transport.Conn){
		"paused, peer gone":            func(c transport.Conn) { c.Pause() },
		"backlogged, paused":           func(c transport.Conn) { c.Write(make([]byte, 16<<20)); c.Pause() },
		"finished, backlogged":         func(c transport.Conn) { c.CloseAfterFlush(make([]byte, 16<<20)) },
		"finished, backlogged, paused": func(c transport.Conn) { c.CloseAfterFlush(make([]byte, 16<<20)); c.Pause() },
	} {
		server, client := transporttest.TCP(t)
		defer client.Close()
		closed := make(chan error, 1)
		done := make(chan struct{})
		err := tr.Adopt(server, nil, func(c transport.Conn) transport.Handler {
			todo <- func() { prepare(c); close(done) }
			return discard{closed}
		})
		if err != nil {
			t.Fatal(err)
		}
		tr.Wake(0)
		<-done
		if _, err := client.Write([]byte("unread")); err != nil {
			t.Error(err)
		}
		if err := client.(*net.TCPConn).CloseWrite(); err != nil {
			t.Error(err)
		}
		before := turns.Load()
		select {
		case err := <-closed:
			t.Errorf("%s: closed with %v", name, err)
		case <-time.After(100 * time.Millisecond):
		}
		if n := turns.Load() - before; n > 20 {
			t.Errorf("%s: %d turns", name, n)
		}
	}
}
