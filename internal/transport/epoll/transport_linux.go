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

// Supported says whether New can succeed on this system.
const Supported = true

// Transport serves TCP connections with event loops. Made by New.
type Transport struct {
	// Set by New, then read-only.
	cfg   transport.Config
	loops []*loop

	serial   atomic.Uint32  // of the newest connection or acceptor
	running  sync.WaitGroup // the loops
	adopting sync.WaitGroup // calls of Adopt and Listen; grows only under mu and while closed is false

	mu     sync.Mutex // guards closed
	closed bool
}

var _ transport.Transport = (*Transport)(nil)

// New makes a transport and starts its loops. It fails when cfg has no Tick, and when the system gives no descriptors.
// Close ends it.
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
		t.running.Go(l.run) // ended by Close, which waits
	}
	return t, nil
}

// Loops is the number of loops.
func (t *Transport) Loops() int { return len(t.loops) }

// Backlogged reports whether any connection of the loop may have bytes that wait.
func (t *Transport) Backlogged(loop int) bool { return t.loops[loop].backlogged.Load() > 0 }

// Wake makes the loop take a turn soon.
func (t *Transport) Wake(loop int) { t.loops[loop].wake() }

// Adopt takes over nc, which must be a *net.TCPConn: anything else is ErrUnsupported.
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
	// The default of package net, but what is written here is whole: never wait for more. It can only fail for a socket
	// that is gone, which the loop will find.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	var remote netip.AddrPort
	if a, ok := tc.RemoteAddr().(*net.TCPAddr); ok {
		remote = a.AddrPort()
	}
	l := t.leastBusy()
	c := t.newConnection(l, fd, remote)
	c.handler = open(c)
	_ = tc.Close() // takes it out of Go's poller; the socket lives on
	l.post(command{kind: register, c: c, early: bytes.Clone(early)})
	return nil
}

// begin holds Close back until adopting.Done, and reports whether there is still time.
func (t *Transport) beginAdopt() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.adopting.Add(1)
	}
	return !t.closed
}

func (t *Transport) newConnection(l *loop, fd int, remote netip.AddrPort) *connection {
	l.count.Add(1)
	c := &connection{loop: l, fd: int32(fd), serial: t.serial.Add(1)}
	if remote.IsValid() {
		c.ip, c.port = remote.Addr().As16(), remote.Port()
	}
	return c
}

// leastBusy is the loop with the fewest connections, the next in turn among equals.
func (t *Transport) leastBusy() *loop {
	best := t.loops[int(t.serial.Load())%len(t.loops)]
	for _, l := range t.loops {
		if l.count.Load() < best.count.Load() {
			best = l
		}
	}
	return best
}

// Close cuts every connection and waits for the loops.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.adopting.Wait() // all that were let in are in their loop's commands now
	for _, l := range t.loops {
		l.stopping.Store(true)
		l.wake()
	}
	t.running.Wait()
	return nil
}
