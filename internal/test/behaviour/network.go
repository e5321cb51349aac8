package behaviour

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// network is the way from clients to the server, which fails on request.
type network struct {
	running sync.WaitGroup // the goroutines of links

	mu     sync.Mutex
	target *pipes         // where connections go; nil: they are rejected; guarded by mu
	links  map[*link]bool // guarded by mu
	frozen bool           // nothing passes; guarded by mu
	thawed chan struct{}  // closed when frozen ends; guarded by mu
	dials  int            // attempts to connect; guarded by mu
}

func newNetwork() *network { return &network{links: map[*link]bool{}} }

var errRefused = errors.New("connection refused")

// dial returns a connection to the server.
func (n *network) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	if err := n.connect(ctx, far); err != nil {
		near.Close()
		return nil, err
	}
	return near, nil
}

// connect connects conn to the server. It closes conn when it fails.
func (n *network) connect(ctx context.Context, conn net.Conn) error {
	n.mu.Lock()
	target := n.target
	n.dials++
	n.mu.Unlock()
	if target == nil {
		conn.Close()
		return errRefused
	}
	near, far := net.Pipe()
	var err error
	select {
	case target.conns <- far:
	case <-target.done:
		err = errRefused
	case <-ctx.Done():
		err = fmt.Errorf("connect: %w", ctx.Err())
	}
	if err != nil {
		conn.Close()
		return err
	}
	l := &link{n: n, client: conn, server: near, done: make(chan struct{})}
	n.mu.Lock()
	n.links[l] = true
	n.mu.Unlock()
	n.running.Go(func() { l.copy(l.client, l.server) }) // end with the link; close waits
	n.running.Go(func() { l.copy(l.server, l.client) })
	return nil
}

// cut ends all connections without a close frame.
func (n *network) cut() {
	n.mu.Lock()
	links := n.links
	n.links = map[*link]bool{}
	n.mu.Unlock()
	for l := range links {
		l.cut()
	}
}

// freeze stops all bytes, or lets them pass again.
func (n *network) freeze(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if on == n.frozen {
		return
	}
	n.frozen = on
	if on {
		n.thawed = make(chan struct{})
	} else {
		close(n.thawed)
	}
}

// to makes target the server. It returns the previous one.
func (n *network) to(target *pipes) (previous *pipes) {
	n.mu.Lock()
	defer n.mu.Unlock()
	previous, n.target = n.target, target
	return previous
}

// close ends everything.
func (n *network) close() {
	n.to(nil)
	n.cut()
	n.running.Wait()
}

// link is one connection through the network.
type link struct {
	n              *network
	client, server net.Conn
	once           sync.Once
	done           chan struct{} // closed by cut
}

func (l *link) cut() {
	l.once.Do(func() {
		close(l.done)
		l.client.Close()
		l.server.Close()
		l.n.mu.Lock()
		delete(l.n.links, l)
		l.n.mu.Unlock()
	})
}

// copy copies bytes until the link ends.
func (l *link) copy(dst io.Writer, src io.Reader) {
	defer l.cut()
	buf := make([]byte, 4<<10)
	for {
		k, err := src.Read(buf)
		if err != nil || !l.passes() {
			return
		}
		if _, err := dst.Write(buf[:k]); err != nil {
			return
		}
	}
}

// passes blocks while the network is frozen. It returns false if the link was cut.
func (l *link) passes() bool {
	for {
		l.n.mu.Lock()
		frozen, thawed := l.n.frozen, l.n.thawed
		l.n.mu.Unlock()
		if !frozen {
			return true
		}
		select {
		case <-thawed:
		case <-l.done:
			return false
		}
	}
}

// pipes is a net.Listener for connections in memory.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{} // closed by Close
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "behaviour"} }
