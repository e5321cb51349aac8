package transporttest

import (
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/transport"
)

// testClosing checks that Closing distinguishes a closed connection from a slow peer after a
// rejected write.
func testClosing(t *testing.T, b Backend) {
	const limit = 100 << 10
	r := b.start(t, transport.Config{BackpressureLimit: limit})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	fillQueue(t, m, limit, 1000)
	p := pattern(1, limit)
	// The kernel may have taken some bytes since, so the first of these writes need not be
	// rejected.
	rejected := false
	for range 1000 {
		m.on(func() {
			rejected = !m.conn.Write(p) || !m.conn.WriteNow(p)
			if m.conn.Closing() {
				t.Error("Closing of a connection with a full queue = true")
			}
		})
		if rejected {
			break
		}
	}
	if !rejected {
		t.Error("a connection whose client does not read took 100 MB")
	}
	if b.Reset != nil {
		b.Reset(m.nc)
	} else {
		_ = m.nc.Close()
	}
	_ = m.awaitClosed()
	m.on(func() { wantClosing(t, m) })
}

// testClosingNoticedByWrite resets connections to which a loop is writing. A write can be rejected
// only because the connection is closed: the queue is below the limit.
func testClosingNoticedByWrite(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	for range 20 {
		m := r.connect(b, []byte{1}, nil)
		m.awaitData(1)
		m.conn.Pause() // so that only a write can notice the reset
		b.Reset(m.nc)
		p := pattern(1, 100)
		rejected := false
		for end := time.Now().Add(testTimeout); !rejected && time.Now().Before(end); {
			m.on(func() {
				for range 3 {
					if !m.conn.Write(p) || !m.conn.WriteNow(p) {
						rejected = true
						wantClosing(t, m)
						return
					}
				}
			})
		}
		if !rejected {
			t.Fatal("writes are still accepted after a reset")
		}
		_ = m.awaitClosed()
	}
}

// testClosingAfterClose checks that a connection rejects writes after CloseAfterFlush.
func testClosingAfterClose(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	m.on(func() {
		if m.conn.Closing() {
			t.Error("Closing of a new connection = true")
		}
		m.conn.CloseAfterFlush([]byte("bye"))
		wantClosing(t, m)
	})
}

// wantClosing checks that m's connection is Closing and rejects writes. On the loop.
func wantClosing(t *testing.T, m *member) {
	if !m.conn.Closing() {
		t.Errorf("a write was rejected with %d bytes queued, and Closing = false", m.conn.Buffered())
	}
	if m.conn.Write([]byte{1}) || m.conn.WriteNow([]byte{1}) {
		t.Error("a connection accepted a write, and Closing = true")
	}
}
