package netconn_test

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/transport/netconn"
)

// recorder is a handler, with its transport, for tests in fake time.
type recorder struct {
	tr   *netconn.Transport
	clk  *clock.Clock
	todo chan func() // run by Tick
	conn transport.Conn

	mu     sync.Mutex // guards record
	record record
}

// record is what the handler has seen.
type record struct {
	got    string
	at     clock.Instant // of the last Data
	closed error
	end    time.Time // of Closed
}

func (s *recorder) Data(b []byte, now clock.Instant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record.got += string(b)
	s.record.at = now
}

func (s *recorder) PeerClosed() bool { return false }
func (s *recorder) Drained()         {}

func (s *recorder) Closed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record.closed, s.record.end = err, time.Now()
}

// settled waits until all goroutines block, and returns the record.
func (s *recorder) settled() record {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record
}

// on calls f on the loop. f has returned after synctest.Wait.
func (s *recorder) on(f func()) {
	s.todo <- f
	s.tr.Wake(0)
}

// withConnection runs test in a bubble, with a connection over net.Pipe.
func withConnection(t *testing.T, timeout time.Duration, test func(t *testing.T, s *recorder, client net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &recorder{todo: make(chan func(), 10)}
		tick := func(int) bool {
			for {
				select {
				case f := <-s.todo:
					f()
				default:
					return false
				}
			}
		}
		s.clk = clock.New()
		var err error
		if s.tr, err = netconn.New(transport.Config{CloseTimeout: timeout, Tick: tick, Clock: s.clk}); err != nil {
			t.Fatal(err)
		}
		defer s.tr.Close()
		server, client := net.Pipe()
		defer client.Close()
		if err := s.tr.Adopt(server, nil, func(c transport.Conn) transport.Handler { s.conn = c; return s }); err != nil {
			t.Fatal(err)
		}
		test(t, s, client)
	})
}

// TestCloseTimeoutIsExact checks the timeout for three kinds of connections that do not end by
// themselves.
func TestCloseTimeoutIsExact(t *testing.T) {
	t.Parallel()
	const timeout = 90 * time.Second
	for name, prepare := range map[string]func(s *recorder){
		"silent":     func(*recorder) {},
		"paused":     func(s *recorder) { s.conn.Pause() },
		"backlogged": func(s *recorder) { s.conn.Write([]byte("never read")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			withConnection(t, timeout, func(t *testing.T, s *recorder, _ net.Conn) {
				time.Sleep(time.Hour) // of fake time: nothing happens to an idle connection
				start := time.Now()
				s.on(func() { prepare(s); s.conn.CloseAfterFlush([]byte("bye")) })
				time.Sleep(timeout - time.Nanosecond)
				if p := s.settled(); p.closed != nil {
					t.Fatalf("closed with %v after %v", p.closed, p.end.Sub(start))
				}
				time.Sleep(time.Nanosecond)
				if p := s.settled(); !errors.Is(p.closed, os.ErrDeadlineExceeded) || p.end.Sub(start) != timeout {
					t.Errorf("closed with %v after %v, want a timeout after %v", p.closed, p.end.Sub(start), timeout)
				}
			})
		})
	}
}

// TestDeadlineLeftBehind adopts a connection that has a deadline.
func TestDeadlineLeftBehind(t *testing.T) {
	t.Parallel()
	withConnection(t, time.Second, func(t *testing.T, s *recorder, _ net.Conn) {
		server, client := net.Pipe()
		defer client.Close()
		if err := server.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		other := &recorder{}
		if err := s.tr.Adopt(server, nil, func(transport.Conn) transport.Handler { return other }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if p := other.settled(); p.got != "hello" || p.at != s.clk.Now() {
			t.Errorf("got %q at %v, now %v", p.got, p.at, s.clk.Now())
		}
	})
}

// TestPausedForHours checks that a connection can be resumed after a long time.
func TestPausedForHours(t *testing.T) {
	t.Parallel()
	withConnection(t, time.Second, func(t *testing.T, s *recorder, client net.Conn) {
		s.conn.Pause()
		go func() { _, _ = io.WriteString(client, "hello") }() // ended by the read after Resume
		time.Sleep(5 * time.Hour)
		if p := s.settled(); p.got != "" {
			t.Errorf("%q arrived while paused", p.got)
		}
		s.conn.Resume()
		if p := s.settled(); p.got != "hello" {
			t.Errorf("%q arrived after Resume", p.got)
		}
	})
}
