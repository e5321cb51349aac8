package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
)

// fallbackQueue is how many connections may wait for net/http to accept them. Further ones are
// closed.
const fallbackQueue = 1024

// fallbackListener is the net.Listener from which net/http accepts the connections that the event
// loops do not serve.
type fallbackListener struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{} // closed by Close

	mu     sync.Mutex // guards the fields below, and sending on conns
	closed bool
}

func newFallbackListener(addr net.Addr) *fallbackListener {
	return &fallbackListener{addr: addr, conns: make(chan net.Conn, fallbackQueue), done: make(chan struct{})}
}

// push queues a connection, or closes it if the queue is full or the listener is closed. It does
// not block.
func (l *fallbackListener) push(nc net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		select {
		case l.conns <- nc:
			return
		default:
		}
	}
	nc.Close()
}

// Accept returns the next connection. It blocks until there is one, or Close is called.
func (l *fallbackListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close closes the listener, and the connections that were not accepted.
func (l *fallbackListener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		close(l.done)
	}
	for {
		select {
		case nc := <-l.conns:
			nc.Close()
		default:
			return nil
		}
	}
}

// Addr returns the address of the listener that the event loops accept from.
func (l *fallbackListener) Addr() net.Addr { return l.addr }

// prefixConn is a connection whose first bytes have already been read.
type prefixConn struct {
	net.Conn
	prefix []byte // the bytes that Read still has to return; owned by the reading goroutine

	// The verdict about the first request, or nil; owned by the goroutine that serves the requests.
	verdict *verdict
}

// prefixConnKey is the key of a request's prefixConn in its context.
type prefixConnKey struct{}

// withPrefixConn adds c to the context of its requests if there is a verdict about the first. It is
// http.Server.ConnContext.
func withPrefixConn(ctx context.Context, c net.Conn) context.Context {
	if p, ok := c.(*prefixConn); ok && p.verdict != nil {
		return context.WithValue(ctx, prefixConnKey{}, p)
	}
	return ctx
}

// takeVerdict returns the verdict about a request, or nil if there is none. It must be called for
// every request of a connection, since the verdict is only about the first.
func takeVerdict(r *http.Request) *verdict {
	p, ok := r.Context().Value(prefixConnKey{}).(*prefixConn)
	if !ok {
		return nil
	}
	v := p.verdict
	p.verdict = nil
	return v
}

// Read returns the prefix first.
func (c *prefixConn) Read(p []byte) (int, error) {
	if len(c.prefix) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.prefix)
	if c.prefix = c.prefix[n:]; len(c.prefix) == 0 {
		c.prefix = nil
	}
	return n, nil
}

// CloseWrite is called by net/http after a response when it does not read the rest of the request.
// Without it, net/http would reset the connection, and the client might lose the part of the
// response that it has not read.
func (c *prefixConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}
