// Package epoll is the transport for very many connections: event loops over plain TCP, on Linux.
//
// A loop is one goroutine that owns its connections. In each turn it asks the kernel what is ready, reads at most once
// from each ready connection, into one buffer that all share, calls Tick, and writes to each connection what was queued
// for it, in one system call where the socket takes it. An idle connection is 96 bytes and a place in a map: it has
// no goroutine, no buffer and no timer, and its descriptor is not known to Go's poller.
//
// On other systems New returns transport.ErrUnsupported, and Supported is false.
package epoll

import (
	"net"

	"github.com/hearthws/hearth/internal/transport"
)

// A RawConn is a connection that was accepted by a loop itself (see Transport.Listen), and so is not yet known to speak
// any protocol.
//
// As all its Handler's methods are called on the loop, they may call those methods of it that are "on the loop only".
type RawConn interface {
	transport.Conn

	// SetHandler makes h the handler, from the next call on. It must be called within Data, or on the loop.
	SetHandler(h transport.Handler)

	// Detach takes the connection out of the transport and returns it as one of package net, without what has been
	// read. Its handler gets no further call, not even Closed. It must be called within Data or Do, before anything was
	// written; on error the connection stays, and should be aborted.
	Detach() (net.Conn, error)

	// Do has the loop call f soon, before Tick. It does not when the connection has ended by then. Any goroutine.
	Do(f func())
}
