package transporttest

import (
	"bytes"
	"io"
	"testing"

	"github.com/hearthws/hearth/internal/transport"
)

// testRecall withdraws what waits for a client that does not read, writes something else in its place, and wants the client
// to get what was out, up to the end of a unit, and then that: nothing twice, nothing lost.
func testRecall(t *testing.T, b Backend) {
	const unit, limit = 100, 300 << 10
	up := func(piece []byte, n int) int {
		if n <= 0 || n >= len(piece) {
			t.Errorf("asked where a piece of %d bytes may end of which %d are out", len(piece), n)
		}
		return (n + unit - 1) / unit * unit
	}
	for _, piece := range []int{unit, 7 * unit, 900 * unit} {
		r := b.start(t, transport.Config{BackpressureLimit: limit})
		m := r.connect(b, nil, nil)
		m.setDeadline(testTimeout)
		m.on(func() {
			if taken := m.conn.Recall(up); taken != nil {
				t.Errorf("%d pieces were taken back from a connection that had none", len(taken))
			}
			if m.conn.Write(make([]byte, unit)); len(m.conn.Recall(up)) != 1 || m.conn.Buffered() != 0 {
				t.Errorf("of all that was written %d bytes were not taken back", m.conn.Buffered())
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
			if after := m.conn.Buffered(); before-after < len(taken) { // more, if the socket has taken something meanwhile
				t.Errorf("%d bytes waited, %d were taken back, and %d wait", before, len(taken), after)
			}
			m.conn.Write(now)
			if back := m.conn.Recall(up); len(back) != 1 || !bytes.Equal(back[0], now) {
				t.Errorf("what has just been written was not taken back, but %d pieces", len(back))
			}
			if !m.conn.Write(mark) {
				t.Error("what takes their place was refused")
			}
		})
		if len(taken) == 0 || len(taken)%unit != 0 || !bytes.HasSuffix(written, taken) {
			t.Fatalf("pieces of %d: %d bytes were taken back, which are not the last of those written", piece, len(taken))
		}
		want := append(written[:len(written)-len(taken)], mark...)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(m.nc, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("pieces of %d: the client did not get what was out and the mark (%v)", piece, err)
		}
		m.awaitFlushed()
	}
}

// testRecallAfterClose: what is to go out before a connection ends does.
func testRecallAfterClose(t *testing.T, b Backend) {
	r := b.start(t, transport.Config{})
	m := r.connect(b, nil, nil)
	m.setDeadline(testTimeout)
	m.on(func() {
		m.conn.Write([]byte("all"))
		m.conn.CloseAfterFlush([]byte(" of it"))
		if taken := m.conn.Recall(func(_ []byte, n int) int { return n }); taken != nil {
			t.Errorf("taken back after CloseAfterFlush: %q", taken)
		}
	})
	got, err := io.ReadAll(m.nc)
	if string(got) != "all of it" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
