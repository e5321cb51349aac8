package transporttest

import (
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/transport"
)

// testClosing checks that a refused write tells a peer that is too slow from one that has gone.
func testClosing(t *testing.T, b Backend) {
	const limit = 100 << 10
	r := b.start(t, transport.Config{BackpressureLimit: limit})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	fillQueue(t, m, limit, 1000)
	p := pattern(1, limit)
	// The kernel may have taken some of it since, so the first of these writes need not be refused.
	refused := false
	for range 1000 {
		m.on(func() {
			refused = !m.conn.Write(p) || !m.conn.WriteNow(p)
			if m.conn.Closing() {
				t.Error("a connection that is full is taken for one that is gone")
			}
		})
		if refused {
			break
		}
	}
	if !refused {
		t.Error("a connection that does not read took a hundred megabytes")
	}
	if b.Reset != nil {
		b.Reset(m.nc)
	} else {
		_ = m.nc.Close()
	}
	_ = m.awaitClosed()
	m.on(func() { wantClosing(t, m) })
}

// testClosingNoticedByWrite resets connections to which a loop is writing. Whatever is refused then is refused because
// they are gone: nothing waits for a client that has read all.
func testClosingNoticedByWrite(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	for range 20 {
		m := r.connect(b, []byte{1}, nil)
		m.awaitData(1)
		m.conn.Pause() // so that only a write can find out
		b.Reset(m.nc)
		p := pattern(1, 100)
		refused := false
		for end := time.Now().Add(testTimeout); !refused && time.Now().Before(end); {
			m.on(func() {
				for range 3 {
					if !m.conn.Write(p) || !m.conn.WriteNow(p) {
						refused = true
						wantClosing(t, m)
						return
					}
				}
			})
		}
		if !refused {
			t.Fatal("writes to a connection that was reset go on being accepted")
		}
		_ = m.awaitClosed()
	}
}

// testClosingAfterClose checks that a connection takes nothing after CloseAfterFlush.
func testClosingAfterClose(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	m.on(func() {
		if m.conn.Closing() {
			t.Error("a new connection is gone")
		}
		m.conn.CloseAfterFlush([]byte("bye"))
		wantClosing(t, m)
	})
}

// wantClosing checks that m's connection is gone, and takes nothing. On the loop.
func wantClosing(t *testing.T, m *member) {
	if !m.conn.Closing() {
		t.Errorf("a write was refused with %d bytes waiting, and the connection is not gone", m.conn.Buffered())
	}
	if m.conn.Write([]byte{1}) || m.conn.WriteNow([]byte{1}) {
		t.Error("a connection that is gone accepted a write")
	}
}
