//go:build !linux

package epoll

import (
	"net"

	"github.com/hearthws/hearth/internal/transport"
)

// Supported reports whether New can succeed on this system.
const Supported = false

// Transport does not exist on this system.
type Transport struct{}

// A Listener does not exist on this system.
type Listener struct{}

// New returns transport.ErrUnsupported.
func New(transport.Config) (*Transport, error) { return nil, transport.ErrUnsupported }

// Adopt returns transport.ErrUnsupported.
func (*Transport) Adopt(net.Conn, []byte, transport.Open) error { return transport.ErrUnsupported }

// Listen returns transport.ErrUnsupported.
func (*Transport) Listen(*net.TCPListener, func(RawConn) transport.Handler) (*Listener, error) {
	return nil, transport.ErrUnsupported
}

// Wake does nothing.
func (*Transport) Wake(int) {}

// Loops returns 0.
func (*Transport) Loops() int { return 0 }

// Backlogged returns false.
func (*Transport) Backlogged(int) bool { return false }

// Close does nothing.
func (*Transport) Close() error { return nil }

// Close does nothing.
func (*Listener) Close() error { return nil }
