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

// fillQueue writes pieces to m, whose client does not read, until the connection rejects them in
// many turns in a row. It checks each result against the limit, and returns the accepted bytes.
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
						t.Errorf("rejected %d bytes with %d queued and a limit of %d", piece, before, limit)
					}
					return
				}
				stuck = 0
				if after := m.conn.Buffered(); after > limit {
					t.Errorf("%d bytes are queued, with a limit of %d", after, limit)
				}
				accepted = append(accepted, p...)
				seed++
				p = pattern(seed, piece)
			}
		})
	}
	return accepted
}

// awaitFlushed waits until no bytes are queued.
func (m *member) awaitFlushed() {
	m.r.t.Helper()
	for end := time.Now().Add(testTimeout); m.conn.Buffered() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			m.r.t.Fatalf("%d bytes are still queued", m.conn.Buffered())
		}
	}
}

// awaitNoBacklog waits until the loop is not backlogged.
func (m *member) awaitNoBacklog() {
	m.r.t.Helper()
	for end := time.Now().Add(testTimeout); m.r.tr.Backlogged(m.conn.Loop()); runtime.Gosched() {
		if time.Now().After(end) {
			m.r.t.Fatal("Backlogged = true, and no bytes are queued")
		}
	}
}

// testBacklogged checks that Backlogged is true while a connection has queued bytes, and false
// after that, in whatever way the connection goes on.
func testBacklogged(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{BackpressureLimit: 100 << 10})
	for range 2 { // a wrong count in the first round shows in the second
		reads, goes, cut := r.connect(b, nil, nil), r.connect(b, nil, nil), r.connect(b, nil, nil)
		for _, m := range []*member{reads, goes, cut} {
			m.setDeadline(testTimeout)
			m.awaitNoBacklog()
			want := fillQueue(t, m, 100<<10, 1000)
			if m.conn.Buffered() == 0 || !r.tr.Backlogged(m.conn.Loop()) {
				t.Fatalf("%d bytes are queued, Backlogged = %v", m.conn.Buffered(), r.tr.Backlogged(m.conn.Loop()))
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

// testNotifyBelow checks that Drained is called once, whatever the reason why fewer bytes are
// queued.
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
				t.Error("NotifyBelow(1) with an empty queue = true")
			}
		})
		fillQueue(t, m, limit, 1000)
		var half int
		waits := false
		m.on(func() { // the kernel may take more meanwhile
			n := m.conn.Buffered()
			half = n / 2
			if m.conn.NotifyBelow(n + 1) {
				t.Errorf("%s: NotifyBelow of more than the %d queued bytes = true", name, n)
			}
			waits = m.conn.NotifyBelow(half-1) && m.conn.NotifyBelow(half)
			if left := m.conn.Buffered(); !waits && left >= half {
				t.Errorf("%s: %d bytes are queued, and NotifyBelow(%d) = false", name, left, half)
			}
		})
		m.on(func() {
			if left := m.conn.Buffered(); len(m.drains) > 0 && left >= half {
				t.Errorf("%s: Drained was called, and %d bytes are queued", name, left)
			}
		})
		if !waits {
			continue
		}
		end(m)
		select {
		case <-m.drains:
		case <-time.After(testTimeout):
			t.Fatalf("%s: Drained was not called, and %d bytes are queued", name, m.conn.Buffered())
		}
		m.on(func() {})
		if n := len(m.drains); n > 0 {
			t.Errorf("%s: Drained was called %d times too often", name, n)
		}
	}
}

// readAll makes the client read until the connection ends.
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
		// There is no lower bound: the kernel may have taken some bytes since.
		if w := m.conn.Buffered(); w > limit {
			t.Errorf("%d bytes are queued, with a limit of %d", w, limit)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(m.nc, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("the accepted bytes did not arrive (%v)", err)
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
			t.Error("an empty queue rejected a large write")
		}
		if m.conn.Write([]byte{1}) {
			t.Error("another byte was accepted")
		}
		if !m.conn.Write(nil) {
			t.Log("an empty write was rejected")
		}
	})
	if w := m.conn.Buffered(); w <= limit || w > size {
		t.Errorf("%d bytes are queued, want more than %d and at most %d", w, limit, size)
	}
	got := make([]byte, size)
	if _, err := io.ReadFull(m.nc, got); err != nil || !bytes.Equal(got, large) {
		t.Fatalf("the large write did not arrive (%v)", err)
	}
	m.awaitFlushed()
	m.on(func() {
		if !m.conn.Write([]byte{1}) {
			t.Error("Write = false after everything was written")
		}
	})
}

// testSlowReaderAlone checks that a client that reads nothing does not affect another one.
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
		t.Fatalf("the slow client did not get the accepted bytes (%v)", err)
	}
}

// stream makes the client send size bytes. sent is the number of bytes sent so far. done is closed
// at the end.
func (m *member) stream(size int) (want []byte, sent *atomic.Int64, done <-chan struct{}) {
	want, sent = pattern(5, size), new(atomic.Int64)
	ended := make(chan struct{})
	go func() { // ended by the last byte or the client's deadline; callers wait for done
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

// awaitStall waits until n has not changed for 100 ms.
func awaitStall(n *atomic.Int64) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for last := int64(-1); n.Load() != last; <-tick.C {
		last = n.Load()
	}
}

// testPause checks that Pause stops the client from sending, and loses no bytes.
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
		t.Errorf("the client could send everything to a paused connection")
	}
	if n := m.received() - 1; n > 0 {
		t.Errorf("Data got %d bytes while paused", n)
	}
	m.conn.Resume()
	if got := m.awaitData(1 + size)[1:]; !bytes.Equal(got, want) {
		t.Error("bytes lost or out of order after Resume")
	}
	r.await(done, "the client")
}

// testPauseInData pauses in each Data, and checks that the next one follows only after Resume.
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
