package node

import (
	"errors"
	"net"
	"sync"
)

// fallbackQueue is how many connections may wait for net/http to accept them; more are cut.
const fallbackQueue = 1024

// fallbackListener is the net.Listener of the connections that the engine has accepted and has no use for.
type fallbackListener struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{} // closed by Close

	mu     sync.Mutex // guards the fields below, and sending on conns
	closed bool
}

// push does not block.
func (h *fallbackListener) push(nc net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		select {
		case h.conns <- nc:
			return
		default:
		}
	}
	nc.Close()
}

func (h *fallbackListener) Accept() (net.Conn, error) {
	select {
	case nc := <-h.conns:
		return nc, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *fallbackListener) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed = true
		close(h.done)
	}
	for { // whoever was pushed and not accepted
		select {
		case nc := <-h.conns:
			nc.Close()
		default:
			return nil
		}
	}
}

func (h *fallbackListener) Addr() net.Addr { return h.addr }

// prefixConn is a connection of which something has been read already.
type prefixConn struct {
	net.Conn
	prefix []byte // owned by the reading goroutine
}

func (b *prefixConn) Read(p []byte) (int, error) {
	if len(b.prefix) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.prefix)
	if b.prefix = b.prefix[n:]; len(b.prefix) == 0 {
		b.prefix = nil
	}
	return n, nil
}

// CloseWrite is how net/http ends an answer behind which it does not read on. Without it the connection would be reset, and what
// the client has not read by then might be lost.
func (b *prefixConn) CloseWrite() error {
	if c, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}
