// Package netconn is the portable transport: it serves any net.Conn, TLS included, with goroutines.
//
// A connection has a goroutine that reads, with a buffer of 2 KiB, or of 32 KiB from a pool while
// reads fill it. While bytes are queued it has a second goroutine that writes, with 16 KiB from a
// pool. Each loop has a goroutine of its own, which calls Tick and then starts the writers. An idle
// connection of plain TCP takes about 6 KiB. The epoll transport takes less.
package netconn

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hearthws/hearth/internal/transport"
)

// Transport serves any net.Conn. New makes one.
type Transport struct {
	// Set by New, then read-only.
	cfg     transport.Config
	loops   []*loop
	buffers buffers

	done     chan struct{}  // closed by Close, after the last Adopt has returned
	wg       sync.WaitGroup // all goroutines of the transport
	adopting sync.WaitGroup // calls of Adopt; added to with mu held, while not closed

	mu     sync.Mutex // guards the fields below; locked before that of a connection
	closed bool
	lastID uint64
	conns  map[uint64]*connection
}

var _ transport.Transport = (*Transport)(nil)

// New makes a transport and starts its loops. It fails if cfg has no Tick. Call Close to end it.
func New(cfg transport.Config) (*Transport, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, err
	}
	t := &Transport{
		cfg:     cfg,
		buffers: newBuffers(),
		done:    make(chan struct{}),
		conns:   make(map[uint64]*connection),
	}
	for i := range cfg.Loops {
		t.loops = append(t.loops, &loop{t: t, index: i, wake: make(chan struct{}, 1)})
	}
	for _, l := range t.loops {
		t.wg.Go(l.run) // ended by done; Close waits for it
	}
	return t, nil
}

// Loops returns the number of loops.
func (t *Transport) Loops() int { return len(t.loops) }

// Backlogged reports whether any connection of the loop may have Buffered bytes.
func (t *Transport) Backlogged(loop int) bool { return t.loops[loop].backlogged.Load() > 0 }

// Wake makes the loop take a turn soon.
func (t *Transport) Wake(loop int) { t.loops[loop].signal() }

// Adopt takes over nc. It never returns ErrUnsupported. CloseAfterFlush sends close_notify on a TLS
// connection. If the writing side cannot be closed alone (net.Pipe), it only waits for the peer.
func (t *Transport) Adopt(nc net.Conn, early []byte, open transport.Open) error {
	c, err := t.add(nc)
	if err != nil {
		return err
	}
	defer t.adopting.Done()
	_ = nc.SetDeadline(time.Time{}) // an old deadline would cut the connection
	c.handler = open(c)
	early = bytes.Clone(early)
	t.wg.Go(func() { c.read(early) }) // ends with the connection; Close cuts it and waits
	return nil
}

// add makes a connection, and makes Close wait for adopting.Done.
func (t *Transport) add(nc net.Conn) (*connection, error) {
	c := &connection{nc: nc, raw: nc, remote: addrPort(nc.RemoteAddr())}
	if w, ok := nc.(interface{ NetConn() net.Conn }); ok {
		c.raw = w.NetConn()
	}
	c.changed.L = &c.mu
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, transport.ErrClosed
	}
	t.lastID++
	c.id = t.lastID
	c.loop = t.leastBusy()
	c.loop.count.Add(1)
	t.conns[c.id] = c
	t.adopting.Add(1)
	return c, nil
}

// leastBusy returns the loop with the fewest connections. Among equals, each call begins with
// another loop.
func (t *Transport) leastBusy() *loop {
	best := t.loops[t.lastID%uint64(len(t.loops))]
	for _, l := range t.loops {
		if l.count.Load() < best.count.Load() {
			best = l
		}
	}
	return best
}

func (t *Transport) remove(c *connection) {
	c.loop.count.Add(-1)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c.id)
}

func (t *Transport) lookup(id uint64) *connection {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conns[id]
}

// Close cuts all connections and waits for all goroutines.
func (t *Transport) Close() error {
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	t.mu.Unlock()
	t.adopting.Wait()
	if first {
		t.mu.Lock()
		for _, c := range t.conns {
			c.fail(transport.ErrClosed)
		}
		t.mu.Unlock()
		close(t.done)
	}
	t.wg.Wait()
	return nil
}

// addrPort returns the address in a, or the zero AddrPort. An IPv4 address is not in the form of
// IPv6.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case nil:
	case interface{ AddrPort() netip.AddrPort }:
		ap = a.AddrPort()
	default:
		ap, _ = netip.ParseAddrPort(a.String())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

const (
	smallRead  = 2 << 10
	largeRead  = 32 << 10
	gatherSize = 16 << 10 // of small pieces joined for one write: a TLS record
	maxWrite   = 64 << 10 // of a large piece in one write, so that Buffered falls step by step
)

// buffers has the buffers that all connections of a transport share.
type buffers struct{ reads, writes *sync.Pool }

func newBuffers() buffers {
	pool := func(size int) *sync.Pool {
		return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
	}
	return buffers{reads: pool(largeRead), writes: pool(gatherSize)}
}
