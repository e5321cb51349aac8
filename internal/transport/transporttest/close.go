package transporttest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/transport"
)

// testHalfClosedReply answers clients that send one message and close their side.
func testHalfClosedReply(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{Loops: 2})
	for range 50 {
		m := r.connect(b, nil, echo)
		m.setDeadline(testTimeout)
		if _, err := m.nc.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		m.closeWrite()
		if got, err := io.ReadAll(m.nc); err != nil || string(got) != "last words" {
			t.Fatalf("got %q, %v", got, err)
		}
		if err := m.awaitClosed(); err != io.EOF {
			t.Errorf("closed with %v, want EOF", err)
		}
	}
}

// testHalfClosedClose checks what happens when a WebSocket client sends its Close frame and a FIN
// together.
func testHalfClosedClose(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	for range 50 {
		m := r.connect(b, nil, func(m *member, b []byte) {
			p := bytes.Clone(b)
			r.post(m.conn.Loop(), func() { m.conn.CloseAfterFlush(p) })
		})
		m.setDeadline(testTimeout)
		if _, err := m.nc.Write([]byte("close")); err != nil {
			t.Fatal(err)
		}
		m.closeWrite()
		if got, err := io.ReadAll(m.nc); err != nil || string(got) != "close" {
			t.Fatalf("got %q, %v", got, err)
		}
		if err := m.awaitClosed(); err != io.EOF {
			t.Errorf("closed with %v, want EOF", err)
		}
	}
}

// testHalfClosedBacklog calls CloseAfterFlush on a connection whose peer has closed its side and
// reads slowly.
func testHalfClosedBacklog(t *testing.T, b Backend) {
	const size = 4 << 20
	r := b.start(t, transport.Config{BackpressureLimit: 2 * size, CloseTimeout: testTimeout})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	want := pattern(9, size)
	m.on(func() {
		m.conn.Write(want[:size-3])
		m.conn.CloseAfterFlush(want[size-3:])
	})
	m.closeWrite()
	if got, err := io.ReadAll(m.nc); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v, want %d", len(got), err, size)
	}
	if err := m.awaitClosed(); err != io.EOF {
		t.Errorf("closed with %v, want EOF", err)
	}
}

// testHalfClosedUnread checks that bytes are sent that were written before the peer closed its
// side, and between that and CloseAfterFlush.
func testHalfClosedUnread(t *testing.T, b Backend) {
	const size = 4 << 20
	r := b.start(t, transport.Config{BackpressureLimit: 2 * size, CloseTimeout: testTimeout})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	over := make(chan struct{})
	m.onPeerClosed(func(*member) bool {
		close(over)
		return true
	})
	want := pattern(9, size)
	m.on(func() { m.conn.Write(want[:size-10]) })
	m.closeWrite()
	r.await(over, "PeerClosed")
	m.on(func() { m.conn.Write(want[size-10 : size-3]) })
	m.on(func() { m.conn.CloseAfterFlush(want[size-3:]) })
	if got, err := io.ReadAll(m.nc); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v, want %d", len(got), err, size)
	}
	if err := m.awaitClosed(); err != io.EOF {
		t.Errorf("closed with %v, want EOF", err)
	}
}

// testHalfClosedUnwanted checks that the connection closes when the peer has closed its side and
// PeerClosed returns false.
func testHalfClosedUnwanted(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{CloseTimeout: time.Hour})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	m.onPeerClosed(func(*member) bool { return false })
	m.closeWrite()
	if got, err := io.ReadAll(m.nc); err != nil || len(got) > 0 {
		t.Errorf("got %q, %v", got, err)
	}
	if err := m.awaitClosed(); err != io.EOF {
		t.Errorf("closed with %v, want EOF", err)
	}
}

// testHalfClosedTimeout checks that a connection is cut after the timeout if the peer has closed
// its side, and either does not read the rest or CloseAfterFlush is not called.
func testHalfClosedTimeout(t *testing.T, b Backend) {
	const timeout, size = 60 * time.Millisecond, 16 << 20 // more than the kernel buffers
	for name, end := range map[string]func(m *member){
		"unread":     func(m *member) { m.conn.CloseAfterFlush([]byte("bye")) },
		"unfinished": func(*member) {},
	} {
		r := b.start(t, transport.Config{CloseTimeout: timeout, BackpressureLimit: size})
		m := r.connect(b, nil, nil)
		m.setDeadline(testTimeout)
		m.onPeerClosed(func(m *member) bool {
			r.post(m.conn.Loop(), func() { end(m) })
			return true
		})
		m.on(func() { m.conn.Write(make([]byte, size)) })
		began := time.Now()
		m.closeWrite()
		if err := m.awaitClosed(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: closed with %v, want a timeout", name, err)
		}
		if d := time.Since(began); d < timeout-time.Millisecond {
			t.Errorf("%s: closed after %v, before the timeout", name, d)
		}
	}
}

func testPeerCloses(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	if _, err := m.nc.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	m.awaitData(5)
	_ = m.nc.Close()
	if err := m.awaitClosed(); err != io.EOF {
		t.Errorf("closed with %v, want EOF", err)
	}
}

func testReset(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	if _, err := m.nc.Write([]byte{0x81}); err != nil { // half a frame
		t.Fatal(err)
	}
	m.awaitData(1)
	b.Reset(m.nc)
	if err := m.awaitClosed(); err == io.EOF || err == transport.ErrClosed {
		t.Errorf("closed with %v, want the system's error", err)
	}
}

// testResetNoticedByWrite checks that writing notices a reset while nothing is read.
func testResetNoticedByWrite(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	m := r.connect(b, []byte{1}, nil)
	m.awaitData(1)
	m.conn.Pause()
	b.Reset(m.nc)
	p := pattern(1, 1000)
	for end := time.Now().Add(testTimeout); m.closedCalls.Load() == 0 && time.Now().Before(end); {
		m.on(func() { m.conn.Write(p); m.conn.WriteNow(p) })
	}
	if err := m.awaitClosed(); err == transport.ErrClosed {
		t.Errorf("closed with %v", err)
	}
}

func testCloseAfterFlush(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	m.on(func() {
		m.conn.Write([]byte("good"))
		m.conn.CloseAfterFlush([]byte("bye"))
		m.conn.CloseAfterFlush([]byte("again"))
		if m.conn.Write([]byte("x")) || m.conn.WriteNow([]byte("x")) {
			t.Error("Write accepted after CloseAfterFlush")
		}
	})
	if got, err := io.ReadAll(m.nc); err != nil || string(got) != "goodbye" {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := m.nc.Write([]byte("you too")); err != nil {
		t.Fatal(err)
	}
	if got := m.awaitData(7); string(got) != "you too" {
		t.Errorf("Data after CloseAfterFlush = %q, want the client's bytes", got)
	}
	_ = m.nc.Close()
	if err := m.awaitClosed(); err != io.EOF {
		t.Errorf("closed with %v, want EOF", err)
	}
}

func testCloseBacklogged(t *testing.T, b Backend) {
	const limit = 100 << 10
	r := b.start(t, transport.Config{BackpressureLimit: limit, CloseTimeout: testTimeout})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	want := fillQueue(t, m, limit, 1000)
	bye := pattern(2, 50<<10)
	m.on(func() { m.conn.CloseAfterFlush(bye) })
	if got, err := io.ReadAll(m.nc); err != nil || !bytes.Equal(got, append(want, bye...)) {
		t.Fatalf("got %d bytes, %v, want %d", len(got), err, len(want)+len(bye))
	}
	_ = m.nc.Close()
	if err := m.awaitClosed(); err != io.EOF {
		t.Errorf("closed with %v, want EOF", err)
	}
}

// expectCloseTimeout calls prepare and CloseAfterFlush, and checks that the connection is cut after
// the timeout.
func expectCloseTimeout(t *testing.T, b Backend, prepare func(m *member)) {
	t.Helper()
	const timeout = 60 * time.Millisecond
	r := b.start(t, transport.Config{CloseTimeout: timeout, BackpressureLimit: 100 << 10})
	m := r.connect(b, []byte{1}, nil)
	m.setDeadline(testTimeout)
	m.awaitData(1)
	prepare(m)
	var start time.Time
	m.on(func() {
		start = time.Now()
		m.conn.CloseAfterFlush([]byte("bye"))
	})
	if err := m.awaitClosed(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("closed with %v, want a timeout", err)
	}
	if d := time.Since(start); d < timeout-time.Millisecond {
		t.Errorf("closed after %v, before the timeout", d)
	}
}

func testCloseTimeout(t *testing.T, b Backend) { expectCloseTimeout(t, b, func(*member) {}) }

func testCloseTimeoutBacklogged(t *testing.T, b Backend) {
	expectCloseTimeout(t, b, func(m *member) { fillQueue(t, m, 100<<10, 1000) })
}

func testCloseTimeoutFlood(t *testing.T, b Backend) {
	var wg sync.WaitGroup
	defer wg.Wait()
	expectCloseTimeout(t, b, func(m *member) {
		wg.Go(func() {
			p := pattern(1, 10<<10)
			for {
				if _, err := m.nc.Write(p); err != nil {
					return // the connection was cut
				}
			}
		})
	})
}

func testCloseTimeoutPaused(t *testing.T, b Backend) {
	expectCloseTimeout(t, b, func(m *member) { m.conn.Pause() })
}

// testAbort aborts connections in every state, from many goroutines.
func testAbort(t *testing.T, b Backend) {
	for _, state := range []struct {
		name string
		set  func(m *member)
	}{
		{"idle", func(*member) {}},
		{"paused", func(m *member) { m.conn.Pause() }},
		{"backlogged", func(m *member) { fillQueue(t, m, 50<<10, 5000) }},
		{"finished", func(m *member) { m.on(func() { m.conn.CloseAfterFlush(nil) }) }},
	} {
		t.Run(state.name, func(t *testing.T) {
			r := b.start(t, transport.Config{BackpressureLimit: 50 << 10, CloseTimeout: testTimeout})
			m := r.connect(b, nil, nil)
			m.setDeadline(testTimeout)
			state.set(m)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(m.conn.Abort)
			}
			wg.Wait()
			if err := m.awaitClosed(); !errors.Is(err, transport.ErrClosed) {
				t.Errorf("closed with %v, want ErrClosed", err)
			}
			if n, err := io.Copy(io.Discard, m.nc); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the client's side is still open after %d bytes", n)
			}
		})
	}
}

func testAbortInOpen(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	server, client := b.Dial(t)
	defer client.Close()
	m := r.member(func(*member, []byte) { t.Error("Data after Abort") })
	err := r.tr.Adopt(server, []byte("early"), func(c transport.Conn) transport.Handler {
		m.conn = c
		c.Abort()
		r.on(c.Loop(), func() {})
		return m
	})
	if err != nil {
		t.Fatalf("Adopt: %v", err)
	}
	if err := m.awaitClosed(); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("closed with %v, want ErrClosed", err)
	}
}

func testAfterClosed(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{CloseTimeout: time.Millisecond})
	m := r.connect(b, nil, nil)
	m.on(func() { m.conn.Write([]byte("lost?")) })
	m.conn.Abort()
	_ = m.awaitClosed()
	for range 3 {
		m.conn.Abort()
		m.conn.Pause()
		m.conn.Resume()
		m.on(func() {
			if m.conn.Write([]byte("x")) || m.conn.WriteNow([]byte("x")) {
				t.Error("Write accepted after Closed")
			}
			m.conn.CloseAfterFlush([]byte("x"))
		})
	}
	if n := m.conn.Buffered(); n != 0 {
		t.Errorf("%d bytes are queued after Closed", n)
	}
}
