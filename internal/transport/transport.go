// Package transport reads from sockets, writes to them and closes them. It moves bytes, and does
// not know WebSocket, sessions or rooms.
//
// Two implementations have the same contract and pass the same tests (transporttest). Package epoll
// runs event loops over plain TCP on Linux. Package netconn serves any net.Conn with goroutines,
// for TLS and other systems.
//
// A transport has one or more loops. Each connection belongs to one loop for its lifetime. A loop
// takes one turn after the other. In each turn, it first passes on the bytes that it has read (only
// epoll; netconn reads on a goroutine per connection). Then it calls Tick once. Last, it writes all
// queued bytes to each connection, in one write where the socket takes them. Below, "on the loop"
// means: from within Tick of the connection's own loop.
//
// The loop also takes a turn whenever the socket has taken some of the queued bytes, so that code
// that paces itself by Buffered can check again from Tick.
package transport

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/hearthws/hearth/internal/clock"
)

// ErrClosed is returned by Adopt after Close. Handler.Closed receives it for connections that were
// cut by Abort or Close.
var ErrClosed = errors.New("transport: closed")

// ErrUnsupported is returned by Adopt for a connection that this transport cannot serve, such as
// TLS with epoll. The connection is untouched and can be given to another transport.
var ErrUnsupported = errors.New("transport: connection type not supported")

// A Conn is one connection.
type Conn interface {
	// Write queues p to be written at the end of this turn. It returns false and keeps nothing of p
	// if the queue would exceed Config.BackpressureLimit (an empty queue accepts a p of any size),
	// or if the connection is Closing. p must never change afterwards: connections share it. On the
	// loop only. Never blocks.
	Write(p []byte) bool

	// WriteNow is like Write, but may pass p to the socket at once if the queue is empty. Use it
	// when p is all that the connection gets in this turn. On the loop only. Never blocks.
	WriteNow(p []byte) bool

	// Recall removes the queued pieces that the transport has not begun to write, and returns them.
	// The pieces are those passed to Write, or several of them joined. If the first n bytes of a
	// piece have been passed to the socket, cut returns where the piece may end, n or later; Recall
	// leaves the bytes before that in the queue. Bytes count as passed to the socket even if it has
	// not taken them yet: netconn passes up to 64 KiB at a time. After CloseAfterFlush, Recall
	// returns nothing. On the loop only. Never blocks.
	Recall(cut func(piece []byte, n int) int) [][]byte

	// CloseAfterFlush queues p without regard to the limit (p may be empty). All later writes are
	// rejected. When the queue is empty, it shuts down the writing side and waits for the peer to
	// close; until then the transport still calls Handler.Data. If the peer has not closed within
	// Config.CloseTimeout of CloseAfterFlush, the connection is cut, even if bytes are still
	// queued. A second call does nothing. On the loop only. Never blocks.
	CloseAfterFlush(p []byte)

	// Abort closes the socket at once; queued bytes are lost. The transport then calls
	// Handler.Closed. Any goroutine. Never blocks.
	Abort()

	// Pause stops reading. A call of Handler.Data that has begun goes on; the next one follows only
	// after Resume. TCP then slows down the peer. While a connection is paused, the loss of the
	// peer may go unnoticed until Resume or a write. Any goroutine. Never blocks.
	Pause()

	// Resume starts reading again after Pause. Any goroutine. Never blocks.
	Resume()

	// Closing reports whether the connection rejects all writes: it is closed, or CloseAfterFlush
	// was called. After a rejected Write, it distinguishes a connection that ends (true) from a
	// slow peer (false). On the loop only.
	Closing() bool

	// Buffered returns the number of bytes that Write has accepted and the kernel has not taken
	// yet. Any goroutine.
	Buffered() int

	// NotifyBelow reports whether Buffered is n or more. If so, the transport calls Handler.Drained
	// once when Buffered falls below n. Another call before that only changes n. It must not be
	// called before the first Data. On the loop only. Never blocks.
	NotifyBelow(n int) bool

	// RemoteAddr returns the peer's address, or the zero AddrPort if it has none. It may lack the
	// zone of an IPv6 address. Any goroutine.
	RemoteAddr() netip.AddrPort

	// Loop returns the index of the connection's loop. Any goroutine.
	Loop() int
}

// A Handler receives the events of one connection. The transport calls its methods one at a time,
// except Drained; with netconn, a call may run at the same time as Tick. The methods must not
// block. They may call all methods of the Conn that are not "on the loop only".
type Handler interface {
	// Data receives bytes in the order of their arrival. b belongs to the transport and is valid
	// until Data returns; Data may change it in place. now is a reading of Config.Clock, taken once
	// per turn.
	Data(b []byte, now clock.Instant)

	// PeerClosed is called when the peer has closed its side in order. Data is not called again.
	// There is a Tick between the last Data and this call. If it returns true, the connection stays
	// open until CloseAfterFlush has been called and everything is written, but not longer than
	// Config.CloseTimeout from now. If it returns false, the connection closes now. It is not
	// called after CloseAfterFlush.
	PeerClosed() bool

	// Drained is called once after NotifyBelow has returned true, when Buffered has fallen below n
	// or the connection is closed. The loop's goroutine calls it before Tick; with netconn, this
	// may be during a call of another method, and after Closed.
	Drained()

	// Closed is the last call, made exactly once, when the socket is closed. err is io.EOF when the
	// peer closed in order, ErrClosed after Abort and Close, os.ErrDeadlineExceeded when
	// Config.CloseTimeout has passed, and the system's error otherwise. Bytes that are still queued
	// are lost.
	Closed(err error)
}

// An Open function returns the handler of a new connection. It is called once, before any other
// call for c, on the goroutine that called Adopt.
type Open func(c Conn) Handler

// Config configures a transport.
type Config struct {
	// Loops is the number of loops. Default 1.
	Loops int

	// BackpressureLimit is the largest number of bytes that may be queued in user space for one
	// connection. Default 1 MiB.
	BackpressureLimit int

	// CloseTimeout is the longest time that a connection stays open after CloseAfterFlush, or after
	// the peer has closed its side. Default 5 s.
	CloseTimeout time.Duration

	// Clock measures CloseTimeout. Default: a clock that does not notice standstills.
	Clock *clock.Clock

	// Tick is called by the loop's goroutine once per turn. All code "on the loop" runs within it.
	// If it returns true, it has work left, and the next turn begins without waiting. Required.
	Tick func(loop int) (more bool)
}

// WithDefaults returns c with defaults in place of unset fields. It returns an error if c has no
// Tick.
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
	// Adopt takes over nc. early is what the peer has already sent; it may be empty. The transport
	// passes it to the handler's Data before the bytes that it reads. After success nc belongs to
	// the transport, and the caller must not use it again. After an error nc is untouched and still
	// the caller's; if open was called, its handler gets Closed. Any goroutine. Does not wait for
	// the peer.
	Adopt(nc net.Conn, early []byte, open Open) error

	// Wake makes the loop take a turn soon. It is cheap when the loop is awake. The Tick of that
	// turn sees everything that was done before Wake. Any goroutine. Never blocks.
	Wake(loop int)

	// Loops returns the number of loops.
	Loops() int

	// Backlogged reports whether any connection of the loop may have Buffered bytes. If it returns
	// false, a search for the slowest connection can skip all connections of this loop. Any
	// goroutine. Never blocks.
	Backlogged(loop int) bool

	// Close cuts all connections (each handler gets Closed), then ends all goroutines of the
	// transport and waits for them. Adopt fails from then on. It must not be called from a Handler
	// or from Tick.
	Close() error
}
