package transporttest

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hearthws/hearth/internal/transport"
)

// testStorm connects many clients and closes all of them at once, in different ways.
func testStorm(t *testing.T, b Backend) {
	clients := b.Clients
	r := b.start(t, transport.Config{Loops: 2})
	members := make([]*member, clients)
	var wg sync.WaitGroup
	for part := range 8 {
		wg.Go(func() {
			for i := part; i < clients; i += 8 {
				members[i] = r.connect(b, pattern(i, i%5), nil)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for part := range 8 {
		wg.Go(func() {
			for i := part; i < clients; i += 8 {
				switch m := members[i]; {
				case i%4 == 0:
					m.conn.Abort()
				case i%4 == 1 && b.Reset != nil:
					b.Reset(m.nc)
				case i%4 == 2:
					r.post(m.conn.Loop(), func() { m.conn.CloseAfterFlush(nil) })
					fallthrough
				default:
					_ = m.nc.Close()
				}
			}
		})
	}
	wg.Wait()
	for _, m := range members {
		_ = m.awaitClosed()
	}
}

// testReuse opens and closes connections, so that their descriptors are used again at once. It
// checks that no bytes reach the wrong connection.
func testReuse(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{Loops: 2})
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for i := range b.Clients / 10 {
				m := r.connect(b, nil, echo)
				m.setDeadline(testTimeout)
				want := pattern(part*1000+i, 100)
				if _, err := m.nc.Write(want); err != nil {
					t.Error(err)
					return
				}
				got := make([]byte, len(want))
				if _, err := io.ReadFull(m.nc, got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("echo: %v", err)
					return
				}
				if i%2 == 0 {
					m.conn.Abort()
					_ = m.awaitClosed()
				} else {
					_ = m.nc.Close()
				}
			}
		})
	}
	wg.Wait()
}

func testAdoptAfterClose(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	if err := r.tr.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	server, client := b.Dial(t)
	defer client.Close()
	defer server.Close()
	err := r.tr.Adopt(server, nil, func(transport.Conn) transport.Handler {
		t.Error("open was called")
		return nil
	})
	if !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Adopt = %v, want ErrClosed", err)
	}
	go func() { _, _ = client.Write([]byte("alive")) }() // ended by the read below
	got := make([]byte, 5)
	if _, err := io.ReadFull(server, got); err != nil {
		t.Errorf("the connection was not left open: %v", err)
	}
	r.tr.Wake(0)
	if err := r.tr.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// testCloseUnderLoad closes the transport while clients send and receive, others connect, and
// goroutines call Wake.
func testCloseUnderLoad(t *testing.T, b Backend) {
	clients, strangers := min(b.Clients/10, 30), min(b.Clients/10, 60)
	r := b.start(t, transport.Config{Loops: 2})
	var all []*member
	var wg sync.WaitGroup
	talk := func(m *member) {
		wg.Go(func() {
			p := pattern(1, 3000)
			for {
				if _, err := m.nc.Write(p); err != nil {
					return
				}
			}
		})
		wg.Go(func() { _, _ = io.Copy(io.Discard, m.nc) })
	}
	warm := make(chan struct{}, 1)
	for range clients {
		m := r.connect(b, nil, func(m *member, b []byte) {
			m.reply(b)
			select {
			case warm <- struct{}{}:
			default:
			}
		})
		all = append(all, m)
		talk(m)
	}
	r.await(warm, "the first bytes")
	late := make([]*member, strangers)
	for i := range late {
		server, client := b.Dial(t)
		late[i] = r.member(nil)
		late[i].nc = client
		wg.Go(func() {
			if err := r.tr.Adopt(server, []byte("hi"), late[i].open); err != nil {
				if !errors.Is(err, transport.ErrClosed) {
					t.Errorf("Adopt: %v", err)
				}
				_ = server.Close()
			}
			_ = client.Close()
		})
		wg.Go(func() {
			for range 100 {
				r.tr.Wake(i % 2)
			}
		})
	}
	for range 3 {
		wg.Go(func() {
			if err := r.tr.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	if err := r.tr.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	for _, m := range all {
		if n := m.closedCalls.Load(); n != 1 {
			t.Errorf("Closed was called %d times", n)
		}
	}
	wg.Wait()
	for _, m := range late {
		if n := m.closedCalls.Load(); m.conn != nil && n != 1 {
			t.Errorf("Closed was called %d times for a late connection", n)
		}
	}
}

// testCloseSoon closes the transport during a turn after which the loop would sleep.
func testCloseSoon(t *testing.T, b Backend) {
	for range b.Clients / 10 {
		r := b.start(t, transport.Config{})
		m := r.connect(b, nil, func(m *member, _ []byte) {
			m.r.tr.Wake(0)
			close(m.signal)
			for range 20 {
				runtime.Gosched()
			}
		})
		m.setDeadline(testTimeout)
		if _, err := m.nc.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		r.await(m.signal, "Data")
		done := make(chan struct{})
		go func() { // ended by Close, waited for below
			defer close(done)
			if err := r.tr.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		}()
		r.await(done, "Close: a call of Wake was lost")
		_ = m.nc.Close()
	}
}

// testWakeStorm makes goroutines wait for many turns, while the loop sleeps in between. If a call
// of Wake is lost, the test hangs.
func testWakeStorm(t *testing.T, b Backend) {
	const each = 3000
	r := b.start(t, transport.Config{Loops: 2})
	r.connect(b, nil, nil)
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			done := make(chan struct{})
			for i := range each {
				r.post(g%2, func() { done <- struct{}{} })
				if i%7 == g {
					runtime.Gosched()
				}
				<-done
			}
		})
	}
	all := make(chan struct{})
	go func() { wg.Wait(); close(all) }() // ended by the goroutines above
	r.await(all, "all turns: a call of Wake was lost")
}

func testTickMore(t *testing.T, b Backend) {
	const turns = 1000
	var left atomic.Int32
	done := make(chan struct{})
	r := b.start(t, transport.Config{Tick: func(int) bool {
		switch n := left.Add(-1); {
		case n > 0:
			return true
		case n == 0:
			close(done)
		}
		return false
	}})
	left.Store(turns)
	r.tr.Wake(0)
	r.await(done, "turns without Wake")
	server, client := b.Dial(t)
	m := r.member(nil)
	m.peerClosed = func(*member) bool { return false }
	if err := r.tr.Adopt(server, nil, m.open); err != nil { // the loop still runs
		t.Fatalf("Adopt: %v", err)
	}
	_ = client.Close()
	_ = m.awaitClosed()
}

func testNoTick(t *testing.T, b Backend) {
	if _, err := b.New(transport.Config{}); err == nil {
		t.Error("New without a Tick succeeded")
	}
}
