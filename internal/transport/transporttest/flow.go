package transporttest

import (
	"bytes"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/transport"
)

// fillQueue writes pieces to m, whose client does not read, until the connection has refused some in many turns in a row.
// It holds every answer against the limit, and returns what was accepted.
func fillQueue(t *testing.T, m *member, limit, piece int) []byte {
	t.Helper()
	var accepted []byte
	for seed, stuck := 0, 0; stuck < 50; stuck++ {
		p := pattern(seed, piece)
		m.on(func() {
			for range 200 {
				before := m.conn.Buffered()
				if !m.conn.Write(p) {
					if before+piece <= limit {
						t.Errorf("refused %d bytes with %d waiting and a limit of %d", piece, before, limit)
					}
					return
				}
				stuck = 0
				if after := m.conn.Buffered(); after > limit {
					t.Errorf("%d bytes wait, with a limit of %d", after, limit)
				}
				accepted = append(accepted, p...)
				seed++
				p = pattern(seed, piece)
			}
		})
	}
	return accepted
}

// awaitFlushed waits until nothing waits any more.
func (m *member) awaitFlushed() {
	m.r.t.Helper()
	for end := time.Now().Add(testTimeout); m.conn.Buffered() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			m.r.t.Fatalf("%d bytes still wait", m.conn.Buffered())
		}
	}
}

// awaitNoBacklog waits until the loop is not backlogged.
func (m *member) awaitNoBacklog() {
	m.r.t.Helper()
	for end := time.Now().Add(testTimeout); m.r.tr.Backlogged(m.conn.Loop()); runtime.Gosched() {
		if time.Now().After(end) {
			m.r.t.Fatal("the loop is backlogged, and nothing waits")
		}
	}
}

// testBacklogged: a loop is backlogged while a connection of its is, and no longer, whatever becomes of that one.
func testBacklogged(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{BackpressureLimit: 100 << 10})
	for range 2 { // what is counted wrong once is wrong for ever
		reads, goes, cut := r.connect(b, nil, nil), r.connect(b, nil, nil), r.connect(b, nil, nil)
		for _, m := range []*member{reads, goes, cut} {
			m.setDeadline(testTimeout)
			m.awaitNoBacklog()
			want := fillQueue(t, m, 100<<10, 1000)
			if m.conn.Buffered() == 0 || !r.tr.Backlogged(m.conn.Loop()) {
				t.Fatalf("%d bytes wait, backlogged: %v", m.conn.Buffered(), r.tr.Backlogged(m.conn.Loop()))
			}
			switch m {
			case reads:
				if _, err := io.CopyN(io.Discard, m.nc, int64(len(want))); err != nil {
					t.Fatal(err)
				}
			case goes:
				_ = m.nc.Close()
				_ = m.awaitClosed()
			case cut:
				m.conn.Abort()
				_ = m.awaitClosed()
			}
			m.awaitNoBacklog()
		}
	}
}

// testNotifyBelow: whoever waits for a connection to have less to write is told once, whatever the reason.
func testNotifyBelow(t *testing.T, b Backend) {
	const limit = 300 << 10
	for name, end := range map[string]func(m *member){
		"read":       func(m *member) { m.readAll() },
		"aborted":    func(m *member) { m.conn.Abort() },
		"gone":       func(m *member) { _ = m.nc.Close() },
		"taken back": func(m *member) { m.on(func() { m.conn.Recall(func(_ []byte, n int) int { return n }) }) },
	} {
		r := b.start(t, transport.Config{BackpressureLimit: limit})
		m := r.connect(b, []byte("early"), nil)
		m.setDeadline(testTimeout)
		m.awaitData(5)
		m.on(func() {
			if m.conn.NotifyBelow(1) {
				t.Error("something is to drain from a connection that has nothing to write")
			}
		})
		fillQueue(t, m, limit, 1000)
		var half int
		waits := false
		m.on(func() { // the kernel may take more meanwhile, if it has been slow
			n := m.conn.Buffered()
			half = n / 2
			if m.conn.NotifyBelow(n + 1) {
				t.Errorf("%s: %d bytes wait, and more were awaited", name, n)
			}
			waits = m.conn.NotifyBelow(half-1) && m.conn.NotifyBelow(half)
			if left := m.conn.Buffered(); !waits && left >= half {
				t.Errorf("%s: %d bytes wait, and that %d do was not awaited", name, left, half)
			}
		})
		m.on(func() {
			if left := m.conn.Buffered(); len(m.drains) > 0 && left >= half {
				t.Errorf("%s: drained, and %d bytes wait", name, left)
			}
		})
		if !waits {
			continue
		}
		end(m)
		select {
		case <-m.drains:
		case <-time.After(testTimeout):
			t.Fatalf("%s: not told, and %d bytes wait", name, m.conn.Buffered())
		}
		m.on(func() {})
		if n := len(m.drains); n > 0 {
			t.Errorf("%s: told %d times more", name, n)
		}
	}
}

// readAll has the client read for as long as there is a connection.
func (m *member) readAll() {
	var reading sync.WaitGroup
	reading.Go(func() { // ends with the connection
		_ = m.nc.SetReadDeadline(time.Time{})
		_, _ = io.Copy(io.Discard, m.nc)
	})
	m.r.t.Cleanup(func() {
		_ = m.nc.Close()
		reading.Wait()
	})
}

func testBackpressure(t *testing.T, b Backend) {
	const limit = 200 << 10
	r := b.start(t, transport.Config{BackpressureLimit: limit})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	for range 2 {
		want := fillQueue(t, m, limit, 1000)
		if w := m.conn.Buffered(); w > limit { // no less than fillQueue has seen refused, unless the kernel has taken some since
			t.Errorf("%d bytes wait, with a limit of %d", w, limit)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(m.nc, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("what was accepted did not arrive (%v)", err)
		}
		m.awaitFlushed()
	}
}

func testBackpressureLargeWrite(t *testing.T, b Backend) {
	const limit, size = 10 << 10, 8 << 20
	r := b.start(t, transport.Config{BackpressureLimit: limit})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	large := pattern(1, size)
	m.on(func() {
		if !m.conn.Write(large) {
			t.Error("an empty queue refused a large write")
		}
		if m.conn.Write([]byte{1}) {
			t.Error("a byte was accepted on top")
		}
		if !m.conn.Write(nil) {
			t.Log("an empty write was refused")
		}
	})
	if w := m.conn.Buffered(); w <= limit || w > size {
		t.Errorf("%d bytes wait", w)
	}
	got := make([]byte, size)
	if _, err := io.ReadFull(m.nc, got); err != nil || !bytes.Equal(got, large) {
		t.Fatalf("the large write did not arrive (%v)", err)
	}
	m.awaitFlushed()
	m.on(func() {
		if !m.conn.Write([]byte{1}) {
			t.Error("Write refused after everything was taken")
		}
	})
}

// testSlowReaderAlone has one client that reads nothing, and another that notices nothing of it.
func testSlowReaderAlone(t *testing.T, b Backend) {
	const limit = 64 << 10
	r := b.start(t, transport.Config{BackpressureLimit: limit})
	slow, other := r.connect(b, nil, nil), r.connect(b, nil, echo)
	other.setDeadline(testTimeout)
	want := fillQueue(t, slow, limit, 500)
	p := pattern(3, 1000)
	got := make([]byte, len(p))
	for range 200 {
		r.post(slow.conn.Loop(), func() { slow.conn.Write(p) })
		if _, err := other.nc.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(other.nc, got); err != nil || !bytes.Equal(got, p) {
			t.Fatalf("echo: %v", err)
		}
	}
	slow.setDeadline(testTimeout)
	got = make([]byte, len(want))
	if _, err := io.ReadFull(slow.nc, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the slow one did not get what was accepted (%v)", err)
	}
}

// stream has the client send size bytes. sent tells how many were taken so far, the channel closes at the end.
func (m *member) stream(size int) (want []byte, sent *atomic.Int64, done <-chan struct{}) {
	want, sent = pattern(5, size), new(atomic.Int64)
	ended := make(chan struct{})
	go func() { // ended by the last byte, or the deadline of the client's side; callers wait for it
		defer close(ended)
		for p := want; len(p) > 0; {
			n, err := m.nc.Write(p[:min(len(p), 8<<10)])
			if err != nil {
				m.r.t.Errorf("stream: %v", err)
				return
			}
			sent.Add(int64(n))
			p = p[n:]
		}
	}()
	return want, sent, ended
}

// awaitStall waits until n has stood still for a while.
func awaitStall(n *atomic.Int64) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for last := int64(-1); n.Load() != last; <-tick.C {
		last = n.Load()
	}
}

// testPause sees the client held back, and nothing lost by it.
func testPause(t *testing.T, b Backend) {
	const size = 8 << 20
	r := b.start(t, transport.Config{})
	m := r.connect(b, []byte{1}, nil)
	m.awaitData(1)
	m.setDeadline(testTimeout)
	m.conn.Pause()
	want, sent, done := m.stream(size)
	awaitStall(sent)
	if n := sent.Load(); n == size {
		t.Errorf("the client sent everything to a paused connection")
	}
	if n := m.received() - 1; n > 0 {
		t.Errorf("%d bytes were handed over while paused", n)
	}
	m.conn.Resume()
	if got := m.awaitData(1 + size)[1:]; !bytes.Equal(got, want) {
		t.Error("bytes lost or out of order after Resume")
	}
	r.await(done, "the client")
}

// testPauseInData pauses in every call, and is never called before it has resumed.
func testPauseInData(t *testing.T, b Backend) {
	const size = 1 << 20
	r := b.start(t, transport.Config{})
	var paused atomic.Bool
	var received atomic.Int64
	all := make(chan struct{})
	m := r.connect(b, []byte{1}, func(m *member, b []byte) {
		if paused.Swap(true) {
			t.Error("Data while paused")
		}
		m.conn.Pause()
		if received.Add(int64(len(b))) == 1+size {
			close(all)
		}
		r.post(m.conn.Loop(), func() {
			paused.Store(false)
			m.conn.Resume()
		})
	})
	m.setDeadline(testTimeout)
	_, _, done := m.stream(size)
	r.await(all, "the stream")
	r.await(done, "the client")
}

func testPauseToggles(t *testing.T, b Backend) {
	const size = 2 << 20
	r := b.start(t, transport.Config{})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	want, _, done := m.stream(size)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(4, uint64(i)))
			for range 3000 {
				if rnd.IntN(2) == 0 {
					m.conn.Pause()
				} else {
					m.conn.Resume()
				}
				runtime.Gosched()
			}
		})
	}
	wg.Wait()
	m.conn.Resume()
	if got := m.awaitData(size); !bytes.Equal(got, want) {
		t.Error("bytes lost or out of order")
	}
	r.await(done, "the client")
}
