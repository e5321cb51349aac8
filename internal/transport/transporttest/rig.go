package transporttest

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/transport"
)

// testTimeout is how long a test waits for an event that must happen. No test waits for it to pass.
const testTimeout = time.Minute

// A rig is a transport with a queue of functions per loop, which Tick calls.
type rig struct {
	t  testing.TB
	tr transport.Transport

	inboxes []inbox
}

type inbox struct {
	mu    sync.Mutex
	todo  []func()
	spare []func() // owned by Tick
}

// start makes a transport, and closes it when the test ends.
func (b Backend) start(t testing.TB, cfg transport.Config) *rig {
	t.Helper()
	r := &rig{t: t, inboxes: make([]inbox, max(cfg.Loops, 1))}
	r.open(b, cfg)
	t.Cleanup(func() { _ = r.tr.Close() })
	return r
}

func (r *rig) open(b Backend, cfg transport.Config) {
	r.t.Helper()
	if cfg.Tick == nil {
		cfg.Tick = r.tick
	}
	tr, err := b.New(cfg)
	if err != nil {
		r.t.Fatalf("New: %v", err)
	}
	r.tr = tr
}

func (r *rig) tick(loop int) bool {
	in := &r.inboxes[loop]
	in.mu.Lock()
	todo := in.todo
	in.todo = in.spare[:0]
	in.mu.Unlock()
	for _, f := range todo {
		f()
	}
	clear(todo)
	in.spare = todo
	return false
}

// post makes the loop call f.
func (r *rig) post(loop int, f func()) {
	in := &r.inboxes[loop]
	in.mu.Lock()
	in.todo = append(in.todo, f)
	in.mu.Unlock()
	r.tr.Wake(loop)
}

// on makes the loop call f, and waits for that.
func (r *rig) on(loop int, f func()) {
	r.t.Helper()
	done := make(chan struct{})
	r.post(loop, func() { f(); close(done) })
	r.await(done, "a turn of the loop")
}

func (r *rig) await(done <-chan struct{}, what string) {
	r.t.Helper()
	timer := time.NewTimer(testTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		r.t.Fatalf("timed out waiting for %s", what)
	}
}

// A member is the handler of one connection. It keeps the bytes that arrive, and checks the rules
// for calls of a handler.
type member struct {
	r          *rig
	conn       transport.Conn
	nc         net.Conn                  // the client's side
	data       func(m *member, b []byte) // called instead of keeping b; set before Adopt
	peerClosed func(m *member) bool      // if set, replaces CloseAfterFlush
	closed     chan struct{}             // closed by Closed

	drains chan struct{} // one element per Drained
	signal chan struct{} // data may close it

	busy          atomic.Int32 // calls of the handler that have not returned
	sawPeerClosed atomic.Bool  // PeerClosed was called
	closedCalls   atomic.Int32 // calls of Closed

	mu      sync.Mutex // guards the fields below
	got     bytes.Buffer
	err     error
	arrived sync.Cond // bytes have arrived, or the connection is closed
}

func (r *rig) member(data func(m *member, b []byte)) *member {
	m := &member{r: r, data: data, closed: make(chan struct{}), signal: make(chan struct{}), drains: make(chan struct{}, 10)}
	m.arrived.L = &m.mu
	return m
}

func (m *member) enter(what string) {
	if m.busy.Add(1) != 1 {
		m.r.t.Errorf("%s during another call", what)
	}
	if m.sawPeerClosed.Load() && what != "Closed" {
		m.r.t.Errorf("%s after PeerClosed", what)
	}
	if m.closedCalls.Load() != 0 {
		m.r.t.Errorf("%s after Closed", what)
	}
}

func (m *member) Data(b []byte, now clock.Instant) {
	m.enter("Data")
	defer m.busy.Add(-1)
	if len(b) == 0 {
		m.r.t.Error("Data with no bytes")
	}
	if now <= 0 {
		m.r.t.Error("Data without a clock reading")
	}
	if m.data != nil {
		m.data(m, b)
	} else {
		m.mu.Lock()
		m.got.Write(b)
		m.arrived.Broadcast()
		m.mu.Unlock()
	}
	clear(b) // the handler may change it
}

func (m *member) PeerClosed() bool {
	m.enter("PeerClosed")
	m.sawPeerClosed.Store(true)
	defer m.busy.Add(-1)
	if m.peerClosed != nil {
		return m.peerClosed(m)
	}
	m.r.post(m.conn.Loop(), func() { m.conn.CloseAfterFlush(nil) })
	return true
}

func (m *member) Drained() { m.drains <- struct{}{} }

func (m *member) Closed(err error) {
	m.enter("Closed")
	defer m.busy.Add(-1)
	if err == nil {
		m.r.t.Error("Closed with a nil error")
	}
	m.mu.Lock()
	m.err = err
	m.arrived.Broadcast()
	m.mu.Unlock()
	if m.closedCalls.Add(1) == 1 {
		close(m.closed)
	}
}

// awaitClosed waits for Closed and returns its error.
func (m *member) awaitClosed() error {
	m.r.t.Helper()
	m.r.await(m.closed, "Closed")
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// awaitData waits for n bytes, and returns all bytes that have arrived.
func (m *member) awaitData(n int) []byte {
	m.r.t.Helper()
	late := false
	defer time.AfterFunc(testTimeout, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		late = true
		m.arrived.Broadcast()
	}).Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.got.Len() < n && m.err == nil && !late {
		m.arrived.Wait()
	}
	if m.got.Len() < n {
		m.r.t.Fatalf("%d bytes arrived, want %d (closed: %v)", m.got.Len(), n, m.err)
	}
	return bytes.Clone(m.got.Bytes())
}

func (m *member) received() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.got.Len()
}

// on calls f on the member's loop and waits for it.
func (m *member) on(f func()) {
	m.r.t.Helper()
	m.r.on(m.conn.Loop(), f)
}

// onPeerClosed makes PeerClosed call f. Call it before the client closes its side.
func (m *member) onPeerClosed(f func(m *member) bool) {
	m.r.t.Helper()
	m.on(func() { m.peerClosed = f })
}

// reply makes the loop write a copy of b.
func (m *member) reply(b []byte) {
	b = bytes.Clone(b)
	m.r.post(m.conn.Loop(), func() { m.conn.Write(b) })
}

// echo is a data function that sends everything back.
func echo(m *member, b []byte) { m.reply(b) }

// connect makes a connection, adopts the server's side with early, and returns its member.
func (r *rig) connect(b Backend, early []byte, data func(m *member, b []byte)) *member {
	r.t.Helper()
	server, client := b.Dial(r.t)
	m := r.member(data)
	m.nc = client
	r.t.Cleanup(func() { _ = client.Close() })
	if err := r.tr.Adopt(server, early, m.open); err != nil {
		r.t.Fatalf("Adopt: %v", err)
	}
	return m
}

func (m *member) open(c transport.Conn) transport.Handler {
	m.conn = c
	return m
}

// setDeadline sets a deadline on the client's side, so that a test fails instead of hanging.
func (m *member) setDeadline(d time.Duration) {
	if err := m.nc.SetDeadline(time.Now().Add(d)); err != nil {
		m.r.t.Errorf("set deadline: %v", err)
	}
}

// closeWrite closes the writing side of the client.
func (m *member) closeWrite() {
	m.r.t.Helper()
	if err := m.nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		m.r.t.Errorf("CloseWrite: %v", err)
	}
}

// pattern returns n bytes that depend on seed and on their position.
func pattern(seed, n int) []byte {
	p := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range p {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		p[i] = byte(x)
	}
	return p
}
