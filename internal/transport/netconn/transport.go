// Package netconn is the portable transport: it serves any net.Conn, TLS included, with goroutines.
//
// What a connection costs: one goroutine that reads, with a buffer of 2 KiB (32 KiB from a pool, for as long as reads
// fill it), and one that writes, with up to 16 KiB from a pool, only while something waits. Each loop has a goroutine of
// its own, which calls Tick and then hands what was queued to the writers. An idle connection of plain TCP takes about
// 6 KiB; where that is too much there is the epoll transport.
package netconn

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hearthws/hearth/internal/transport"
)

// Transport serves any net.Conn. Made by New.
type Transport struct {
	// Set by New, then read-only.
	cfg     transport.Config
	loops   []*loop
	buffers buffers

	done     chan struct{}  // closed by Close, when no Adopt is under way any more
	wg       sync.WaitGroup // every goroutine of the transport
	adopting sync.WaitGroup // calls of Adopt; grows only under mu and while closed is false

	mu     sync.Mutex // guards the fields below; taken before a connection's, never after
	closed bool
	lastID uint64
	conns  map[uint64]*connection
}

var _ transport.Transport = (*Transport)(nil)

// New makes a transport and starts its loops. It fails when cfg has no Tick. Close ends it.
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
		t.wg.Go(l.run) // ended by done; Close waits
	}
	return t, nil
}

// Loops is the number of loops.
func (t *Transport) Loops() int { return len(t.loops) }

// Backlogged reports whether any connection of the loop may have bytes that wait.
func (t *Transport) Backlogged(loop int) bool { return t.loops[loop].backlogged.Load() > 0 }

// Wake makes the loop take a turn soon.
func (t *Transport) Wake(loop int) { t.loops[loop].signal() }

// Adopt takes over nc. It never returns ErrUnsupported. A TLS connection is closed for writing by CloseAfterFlush with a
// close_notify; one that cannot be closed for writing alone (net.Pipe) just waits for the peer.
func (t *Transport) Adopt(nc net.Conn, early []byte, open transport.Open) error {
	c, err := t.add(nc)
	if err != nil {
		return err
	}
	defer t.adopting.Done()
	_ = nc.SetDeadline(time.Time{}) // one that was left behind would cut it off
	c.handler = open(c)
	early = bytes.Clone(early)
	t.wg.Go(func() { c.read(early) }) // ended by the end of the connection, at the latest by Close, which waits
	return nil
}

// add makes the connection, and holds Close back until adopting.Done is called.
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

// leastBusy is the loop with the fewest connections, the next in turn among equals.
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

// Close cuts every connection and waits for every goroutine.
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

// addrPort is the address in a, an IPv4 one as such, or the zero AddrPort.
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
	gatherSize = 16 << 10 // what one write gathers from small pieces: a TLS record
	maxWrite   = 64 << 10 // what one write takes of a large piece, so that Buffered moves
)

// buffers are shared by all connections of a transport.
type buffers struct{ reads, writes *sync.Pool }

func newBuffers() buffers {
	pool := func(size int) *sync.Pool {
		return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
	}
	return buffers{reads: pool(largeRead), writes: pool(gatherSize)}
}
