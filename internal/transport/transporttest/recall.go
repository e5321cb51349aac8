package transporttest

import (
	"bytes"
	"io"
	"testing"

	"github.com/hearthws/hearth/internal/transport"
)

// testRecall recalls the bytes that are queued for a client that does not read, and writes others
// in their place. The client must get the bytes that were sent, up to the end of a unit, and then
// the others. No byte may be lost or arrive twice.
func testRecall(t *testing.T, b Backend) {
	const unit, limit = 100, 300 << 10
	up := func(piece []byte, n int) int {
		if n <= 0 || n >= len(piece) {
			t.Errorf("cut was called for a piece of %d bytes with %d bytes sent", len(piece), n)
		}
		return (n + unit - 1) / unit * unit
	}
	for _, piece := range []int{unit, 7 * unit, 900 * unit} {
		r := b.start(t, transport.Config{BackpressureLimit: limit})
		m := r.connect(b, nil, nil)
		m.setDeadline(testTimeout)
		m.on(func() {
			if taken := m.conn.Recall(up); taken != nil {
				t.Errorf("Recall of an empty queue returned %d pieces", len(taken))
			}
			if m.conn.Write(make([]byte, unit)); len(m.conn.Recall(up)) != 1 || m.conn.Buffered() != 0 {
				t.Errorf("Recall of one piece: %d bytes are still queued", m.conn.Buffered())
			}
		})
		m.awaitNoBacklog()
		written := fillQueue(t, m, limit, piece)
		mark, now := bytes.Repeat([]byte{'!'}, unit), bytes.Repeat([]byte{'?'}, unit)
		var taken []byte
		m.on(func() {
			before := m.conn.Buffered()
			for _, p := range m.conn.Recall(up) {
				taken = append(taken, p...)
			}
			// The socket may take some bytes meanwhile.
			if after := m.conn.Buffered(); before-after < len(taken) {
				t.Errorf("%d bytes were queued, %d were recalled, and %d are queued", before, len(taken), after)
			}
			m.conn.Write(now)
			if back := m.conn.Recall(up); len(back) != 1 || !bytes.Equal(back[0], now) {
				t.Errorf("Recall of the last write returned %d pieces, not that write", len(back))
			}
			if !m.conn.Write(mark) {
				t.Error("the write after Recall was rejected")
			}
		})
		if len(taken) == 0 || len(taken)%unit != 0 || !bytes.HasSuffix(written, taken) {
			t.Fatalf("pieces of %d: the %d recalled bytes are not the last ones written", piece, len(taken))
		}
		want := append(written[:len(written)-len(taken)], mark...)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(m.nc, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("pieces of %d: the client did not get the sent bytes and the mark (%v)", piece, err)
		}
		m.awaitFlushed()
	}
}

// testRecallAfterClose checks that Recall returns nothing after CloseAfterFlush.
func testRecallAfterClose(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	m.on(func() {
		m.conn.Write([]byte("all"))
		m.conn.CloseAfterFlush([]byte(" of it"))
		if taken := m.conn.Recall(func(_ []byte, n int) int { return n }); taken != nil {
			t.Errorf("Recall after CloseAfterFlush = %q", taken)
		}
	})
	got, err := io.ReadAll(m.nc)
	if string(got) != "all of it" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
