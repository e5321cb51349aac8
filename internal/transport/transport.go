// Package transport moves bytes between sockets and the layers above: it reads, it writes, it closes, and it knows
// nothing of WebSocket, sessions or rooms.
//
// Two implementations serve one contract, and pass one suite (transporttest): epoll runs event loops over plain TCP on
// Linux, netconn serves any net.Conn with a goroutine, for TLS and other systems.
//
// A transport has one or more loops. Each connection belongs to one of them for life. A loop's life is a sequence of
// turns; in each turn it first hands over what has been read (epoll only, netconn reads on a goroutine for each
// connection), then calls Tick once, and last writes to each connection everything that was queued for it, in one write
// where the socket takes it. "On the loop" below means: from within Tick of the connection's own loop.
//
// A turn also follows whenever a backlog shrinks (the socket took more of what waited), so that whoever paces itself by
// Buffered can look again from Tick.
package transport

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/hearthws/hearth/internal/clock"
)

// ErrClosed is returned by Adopt on a transport that has been closed, and is the cause given to Handler.Closed for
// connections that were cut by Abort or Close.
var ErrClosed = errors.New("transport: closed")

// ErrUnsupported is returned by Adopt for a connection that this transport cannot serve (epoll: TLS, for example).
// The connection is untouched then, and may be given to another transport.
var ErrUnsupported = errors.New("transport: connection type not supported")

// A Conn is one connection.
type Conn interface {
	// Write queues p, to go out at the end of this turn. It reports false, and keeps nothing of p, when p would bring
	// what waits in user space over the limit of Config.BackpressureLimit (an empty queue takes a p of any size), and when
	// the connection is Closing. p must never change afterwards: it is shared between connections.
	// On the loop only. Never blocks.
	Write(p []byte) bool

	// WriteNow is Write for a p that is the only thing that the connection gets in this turn: when nothing waits it may
	// go to the socket at once. On the loop only. Never blocks.
	WriteNow(p []byte) bool

	// Recall withdraws what was queued and has not begun to go out, and returns it, in the pieces in which it was
	// written or in larger ones. When the first n bytes of a piece are out, cut says where it may end: at n or later; what is
	// before that stays queued. Out is what the socket has been given, whether it has taken it yet or not: netconn gives it
	// up to 64 KiB at a time. After CloseAfterFlush nothing is taken back. On the loop only. Never blocks.
	Recall(cut func(piece []byte, n int) int) [][]byte

	// CloseAfterFlush queues p whatever the limit (p may be empty), refuses every later Write, and, once everything is written,
	// shuts the writing side down and waits for the peer to close. Handler.Data goes on being called until then.
	// A peer that has not closed Config.CloseTimeout after CloseAfterFlush is cut off, written or not. A second CloseAfterFlush does nothing.
	// On the loop only. Never blocks.
	CloseAfterFlush(p []byte)

	// Abort closes the socket without ceremony. Handler.Closed follows. Any goroutine; never blocks.
	Abort()

	// Pause stops reading: after the call that is under way Handler.Data is not called again until Resume. The peer is
	// held back by TCP. While paused a peer that vanishes may go unnoticed until Resume, or a Write. Any goroutine; never blocks.
	Pause()

	// Resume undoes Pause. Any goroutine; never blocks.
	Resume()

	// Closing reports whether the connection takes nothing any more, whatever its size: it is closed, or CloseAfterFlush has been
	// called. After a refused Write it tells a peer that has gone (true) from one that is too slow. On the loop only.
	Closing() bool

	// Buffered is the number of bytes that were accepted by Write and not yet taken by the kernel. Any goroutine.
	Buffered() int

	// NotifyBelow reports whether Buffered is n or more; if so, Handler.Drained is called once it is not. One more NotifyBelow before that
	// only changes n. Not before the first Data. On the loop only. Never blocks.
	NotifyBelow(n int) bool

	// RemoteAddr is the peer's address, perhaps without its IPv6 zone; the zero AddrPort if it has
	// none. Any goroutine.
	RemoteAddr() netip.AddrPort

	// Loop is the index of the connection's loop. Any goroutine.
	Loop() int
}

// A Handler receives what happens to one connection. Its methods are called one at a time, never concurrently with
// each other (but, with netconn, concurrently with Tick), must not block, and may call any method of the Conn that is
// not "on the loop only". Drained is another matter.
type Handler interface {
	// Data hands over bytes in the order of their arrival. b belongs to the transport, is valid until Data returns and
	// may be changed in place. now is a reading of Config.Clock, one for a turn.
	Data(b []byte, now clock.Instant)

	// PeerClosed says that the peer has closed its side in order: Data is not called again. There is a Tick between the last Data
	// and this. True: CloseAfterFlush will be called, behind what is still to be written, and until that is out the connection
	// stays, but not for longer than Config.CloseTimeout from now. False: it closes now. Not called after CloseAfterFlush.
	PeerClosed() bool

	// Drained is the answer to Conn.NotifyBelow: less waits, or nothing because the connection is closed. It is called by the
	// loop's goroutine before Tick, beside the other methods with netconn, and perhaps after Closed.
	Drained()

	// Closed is the last call, made exactly once: the socket is gone. err is io.EOF when the peer closed in order,
	// ErrClosed after Abort and Close, os.ErrDeadlineExceeded when Config.CloseTimeout ran out, the system's error
	// otherwise. What was queued and not written by then is lost.
	Closed(err error)
}

// Open makes the handler of a new connection. It is called once, before any other call for c, on the goroutine that
// called Adopt.
type Open func(c Conn) Handler

// Config is what every transport is made with.
type Config struct {
	// Loops is how many loops to run. Default 1.
	Loops int

	// BackpressureLimit is how many bytes may wait in user space for one connection. Default 1 MiB.
	BackpressureLimit int

	// CloseTimeout is how long a connection may take from CloseAfterFlush, or from the peer's end, to its own. Default 5 s.
	CloseTimeout time.Duration

	// Clock measures CloseTimeout. Default: one that does not notice standstills.
	Clock *clock.Clock

	// Tick is called by the loop's goroutine once in each turn: there, and only there, is it "on the loop".
	// It reports whether it left work undone: the next turn then comes without waiting. Required.
	Tick func(loop int) (more bool)
}

// WithDefaults returns c with its unset fields at their defaults, and an error when it has no Tick.
func (c Config) WithDefaults() (Config, error) {
	if c.Tick == nil {
		return c, errors.New("transport: Config.Tick is required")
	}
	if c.Loops <= 0 {
		c.Loops = 1
	}
	if c.BackpressureLimit <= 0 {
		c.BackpressureLimit = 1 << 20
	}
	if c.CloseTimeout <= 0 {
		c.CloseTimeout = 5 * time.Second
	}
	if c.Clock == nil {
		c.Clock = clock.New()
	}
	return c, nil
}

// A Transport serves connections.
type Transport interface {
	// Adopt takes over nc, whose peer has already sent early (which may be empty, and is handed to the handler's Data
	// before anything that is read). On success nc belongs to the transport and must not be used any more. On error nc
	// is untouched and stays the caller's, and open has not been called or its handler gets Closed.
	// Any goroutine; does not wait for the peer.
	Adopt(nc net.Conn, early []byte, open Open) error

	// Wake makes the loop take a turn soon. Cheap when the loop is awake. Anything done before Wake is visible to that
	// turn's Tick. Any goroutine; never blocks.
	Wake(loop int)

	// Loops is the number of loops.
	Loops() int

	// Backlogged reports whether any connection of the loop may have Buffered bytes: so who looks for the slowest of many
	// need not look at each of them. Any goroutine; never blocks.
	Backlogged(loop int) bool

	// Close cuts every connection (each handler gets Closed), then ends and waits for every goroutine of the transport.
	// Adopt fails from then on. Not to be called from a Handler or from Tick.
	Close() error
}
