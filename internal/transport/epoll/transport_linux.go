package epoll

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/transport"
	"golang.org/x/sys/unix"
)

// Supported reports whether New can succeed on this system.
const Supported = true

// Transport serves TCP connections with event loops. New makes one.
type Transport struct {
	// Set by New, then read-only.
	cfg   transport.Config
	loops []*loop

	serial   atomic.Uint32  // of the newest connection or acceptor
	running  sync.WaitGroup // the loops
	adopting sync.WaitGroup // calls of Adopt and Listen; added to with mu held, while not closed

	mu     sync.Mutex // guards closed
	closed bool
}

var _ transport.Transport = (*Transport)(nil)

// New makes a transport and starts its loops. It fails if cfg has no Tick, or if the system has no
// descriptors left. Call Close to end it.
func New(cfg transport.Config) (*Transport, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, err
	}
	t := &Transport{cfg: cfg}
	for i := range cfg.Loops {
		l, err := newLoop(t, i)
		if err != nil {
			for _, l := range t.loops {
				l.closeDescriptors()
			}
			return nil, fmt.Errorf("start event loop: %w", err)
		}
		t.loops = append(t.loops, l)
	}
	reserveDescriptors(t.loops[0].ep)
	for _, l := range t.loops {
		t.running.Go(l.run) // ended by Close, which waits for it
	}
	return t, nil
}

// Loops returns the number of loops.
func (t *Transport) Loops() int { return len(t.loops) }

// Backlogged reports whether any connection of the loop may have Buffered bytes.
func (t *Transport) Backlogged(loop int) bool { return t.loops[loop].backlogged.Load() > 0 }

// Wake makes the loop take a turn soon.
func (t *Transport) Wake(loop int) { t.loops[loop].wake() }

// Adopt takes over nc. It returns ErrUnsupported if nc is not a *net.TCPConn.
func (t *Transport) Adopt(nc net.Conn, early []byte, open transport.Open) error {
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		return transport.ErrUnsupported
	}
	if !t.beginAdopt() {
		return transport.ErrClosed
	}
	defer t.adopting.Done()
	fd, err := duplicate(tc)
	if err != nil {
		return fmt.Errorf("adopt connection: %w", err)
	}
	// The transport writes all that it has, so the kernel must not wait for more. It is the default
	// of package net, which the application may have changed. This fails only if the peer has
	// closed the connection, which the loop will notice.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	var remote netip.AddrPort
	if a, ok := tc.RemoteAddr().(*net.TCPAddr); ok {
		remote = a.AddrPort()
	}
	l := t.leastBusy()
	c := t.newConnection(l, fd, remote)
	c.handler = open(c)
	_ = tc.Close() // Go's poller forgets it; the socket stays open
	l.post(command{kind: register, c: c, early: bytes.Clone(early)})
	return nil
}

// beginAdopt makes Close wait for adopting.Done. It returns false if the transport is closed.
func (t *Transport) beginAdopt() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.adopting.Add(1)
	}
	return !t.closed
}

// newConnection makes a connection of l, and counts it there until unregister.
func (t *Transport) newConnection(l *loop, fd int, remote netip.AddrPort) *connection {
	l.count.Add(1)
	c := &connection{loop: l, fd: int32(fd), serial: t.serial.Add(1)}
	if remote.IsValid() {
		c.ip, c.port = remote.Addr().As16(), remote.Port()
	}
	return c
}

// leastBusy returns the loop with the fewest connections. Among equals, each call begins with
// another loop.
func (t *Transport) leastBusy() *loop {
	best := t.loops[int(t.serial.Load())%len(t.loops)]
	for _, l := range t.loops {
		if l.count.Load() < best.count.Load() {
			best = l
		}
	}
	return best
}

// Close cuts all connections and waits for the loops.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.adopting.Wait() // from here on, all adopted connections are in the commands of their loops
	for _, l := range t.loops {
		l.stopping.Store(true)
		l.wake()
	}
	t.running.Wait()
	return nil
}
