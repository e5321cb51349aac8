// Package epoll is the transport for very many connections: event loops over plain TCP, on Linux.
//
// A loop is one goroutine that owns its connections. In each turn, it asks the kernel which
// connections are ready. It reads at most once from each of them, into a buffer that all
// connections share. Then it calls Tick, and writes all queued bytes to each connection, in one
// system call where the socket takes them. An idle connection takes 80 bytes and an entry in a
// table. It has no goroutine, no buffer and no timer, and Go's poller does not know its descriptor.
//
// On other systems New returns transport.ErrUnsupported, and Supported is false.
package epoll

import (
	"net"

	"github.com/hearthws/hearth/internal/transport"
)

// A RawConn is a connection that a loop has accepted (see Transport.Listen). Its protocol is not
// known yet.
//
// All methods of its Handler are called on the loop, so they may call the methods that are "on the
// loop only".
type RawConn interface {
	transport.Conn

	// SetHandler makes h the handler of all later events. It must be called within Data, or on the
	// loop.
	SetHandler(h transport.Handler)

	// Detach removes the connection from the transport and returns it as a connection of package
	// net, without the bytes that were read. Its handler gets no further call, not even Closed.
	// Detach must be called within Data or Do, before anything is written. After an error the
	// connection stays in the transport, and should be aborted.
	Detach() (net.Conn, error)

	// Do makes the loop call f soon, before Tick, unless the connection is closed by then. Any
	// goroutine.
	Do(f func())
}
