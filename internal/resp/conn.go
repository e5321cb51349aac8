// Package resp is the client side of RESP3, the protocol of Redis: one connection, with pipelined
// commands, replies in their order, and published messages.
//
// It does not trust the server. Everything received is checked, no length is believed before the
// bytes are there, and bytes that no Redis sends end the connection with ErrProtocol.
package resp

import (
	"bufio"
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hearthws/hearth/internal/fifo"
)

// Options configure a connection: its login, and the bounds of the data that it accepts.
type Options struct {
	Username   string // default: the user "default", if there is a Password
	Password   string // default: no login
	DB         int    // database to select
	ClientName string // name in CLIENT LIST, without spaces; default: none

	// MaxString is the longest string in a reply, in bytes. Default 64 KiB.
	MaxString int

	// MaxElements is the largest number of elements of one array, set or map. Default 16384; a
	// Cluster has as many slots.
	MaxElements int

	// MaxReply bounds a whole reply, in bytes; each value in it costs 64 in addition to its text.
	// Default 16 MiB.
	MaxReply int

	// OnMessage receives the messages of subscribed channels, on the goroutine that reads from the
	// connection. It must not wait, and must release each message's Buffer. If it is nil, a message
	// ends the connection.
	OnMessage func(Message)

	// MaxMessage is the largest payload that OnMessage receives, in bytes. Of a larger one it
	// learns the size only.
	MaxMessage int

	// BeforeRead is called before each read from the connection, on the same goroutine as
	// OnMessage: OnMessage has received all messages that have arrived. It may be nil.
	BeforeRead func()
}

// A Conn is one connection to a server, logged in. Once it has failed it stays failed. A call that
// fails with anything but an Error ends the connection, because it is not known which replies
// belong to which commands afterwards.
//
// Safe for concurrent use.
type Conn struct {
	conn      net.Conn
	onMessage func(Message) // nil if there is none
	done      chan struct{} // closed when the reading goroutine has ended

	// Owned by the reading goroutine.
	reader    reader
	confirmed int // channels of the first pending command that have been confirmed

	writing sync.Mutex    // held while commands are queued and written, so that both have one order
	out     *bufio.Writer // guarded by writing

	mu      sync.Mutex // guards the fields below
	pending fifo.Queue[pendingReply]
	err     error // why the connection ended; nil while it has not
}

// A pendingReply is a command that has not been answered in full.
type pendingReply struct {
	call     *call
	confirm  string // kind of the pushes that confirm it, one per channel; "" for none
	channels int
}

// A call is the commands of one Pipeline. The reading goroutine writes it until done is closed.
type call struct {
	replies []Value
	left    int // commands without a reply
	err     error
	done    chan struct{}
}

// Connect logs in on a new network connection: HELLO with the name and password, and SELECT. It
// owns conn from then on, and closes it when it fails. An Error is the server's reply.
func Connect(ctx context.Context, conn net.Conn, o Options) (*Conn, error) {
	c := newConn(conn, o)
	hello := []string{"HELLO", "3"}
	if o.Password != "" {
		hello = append(hello, "AUTH", cmp.Or(o.Username, "default"), o.Password)
	}
	if o.ClientName != "" {
		hello = append(hello, "SETNAME", o.ClientName)
	}
	commands := [][]string{hello}
	if o.DB != 0 {
		commands = append(commands, []string{"SELECT", strconv.Itoa(o.DB)})
	}
	k := newCall(len(commands))
	// A server that rejects the connection sends an error before any command. Expect the replies
	// before reading, so that this error counts as the reply to HELLO and reaches the caller.
	_ = c.expect(k, commands) // fails only on a connection that has ended
	go c.read()               // ends when the connection is closed; Close waits for it
	replies, err := c.await(ctx, k, func() { c.write(commands) })
	for _, v := range slices.Backward(replies) { // a server that rejects HELLO may close behind it
		err = cmp.Or(v.Err(), err)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func newConn(conn net.Conn, o Options) *Conn {
	c := &Conn{conn: conn, onMessage: o.OnMessage, done: make(chan struct{}), out: bufio.NewWriterSize(conn, 1<<16)}
	c.reader = reader{
		readBuffer: readBuffer{spare: make(chan *Buffer, spareBuffers)},
		src:        conn, beforeRead: o.BeforeRead,
		maxMessage: o.MaxMessage,
		maxString:  cmp.Or(o.MaxString, 64<<10), maxElements: cmp.Or(o.MaxElements, 1<<14), maxReply: cmp.Or(o.MaxReply, 16<<20),
	}
	if c.reader.beforeRead == nil {
		c.reader.beforeRead = func() {}
	}
	return c
}

func newCall(commands int) *call {
	return &call{replies: make([]Value, 0, commands), left: commands, done: make(chan struct{})}
}

// Do sends one command and returns the reply. A command is its name, in upper case, and its
// arguments. An error reply is returned as an Error. If ctx ends first, the connection ends, too.
//
// SUBSCRIBE, PSUBSCRIBE, UNSUBSCRIBE and PUNSUBSCRIBE need at least one channel. They return null
// when the server has confirmed all.
func (c *Conn) Do(ctx context.Context, command ...string) (Value, error) {
	replies, err := c.Pipeline(ctx, command)
	if err != nil {
		return Value{}, err
	}
	return replies[0], replies[0].Err()
}

// Pipeline sends commands together and returns a reply for each, some of which may be errors. Its
// own error is that of the connection or of ctx; only the first commands may have a reply then.
// Commands of concurrent calls are not mixed.
func (c *Conn) Pipeline(ctx context.Context, commands ...[]string) ([]Value, error) {
	if len(commands) == 0 {
		return nil, nil
	}
	k := newCall(len(commands))
	return c.await(ctx, k, func() {
		c.writing.Lock()
		defer c.writing.Unlock()
		if err := c.expect(k, commands); err != nil {
			k.fail(err) // the reading goroutine does not know k
			return
		}
		c.write(commands)
	})
}

// await calls send and waits for the replies. The end of ctx ends the connection, and so the wait,
// even if send blocks.
func (c *Conn) await(ctx context.Context, k *call, send func()) ([]Value, error) {
	stop := context.AfterFunc(ctx, func() { c.end(ctx.Err()) })
	defer stop()
	send()
	<-k.done
	return k.replies, k.err
}

// expect queues a pendingReply for each command.
func (c *Conn) expect(k *call, commands [][]string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	for _, command := range commands {
		p := pendingReply{call: k}
		switch command[0] {
		case "SUBSCRIBE", "PSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE":
			p.confirm, p.channels = strings.ToLower(command[0]), len(command)-1
		}
		c.pending.Push(p)
	}
	return nil
}

// write writes commands. When it fails the connection ends, and the reading goroutine ends the
// calls.
func (c *Conn) write(commands [][]string) {
	for _, command := range commands { // out keeps the first error for Flush
		c.writeLength('*', len(command))
		for _, word := range command {
			c.writeLength('$', len(word))
			_, _ = c.out.WriteString(word)
			_, _ = c.out.WriteString(crlf)
		}
	}
	if err := c.out.Flush(); err != nil {
		c.end(err)
	}
}

func (c *Conn) writeLength(kind byte, n int) {
	b := append(c.out.AvailableBuffer(), kind)
	b = strconv.AppendInt(b, int64(n), 10)
	_, _ = c.out.Write(append(b, crlf...))
}

// Done returns a channel that is closed when the connection has ended and OnMessage is not called
// any more.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended: io.EOF if the server closed it, net.ErrClosed after Close.
// It returns nil before.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Abort closes the connection: all calls fail. It does not wait.
func (c *Conn) Abort() { c.end(net.ErrClosed) }

// Close closes the connection, and returns when OnMessage is not called any more. OnMessage must
// not call it.
func (c *Conn) Close() {
	c.Abort()
	<-c.done
}

// end closes the network connection. The first reason counts.
func (c *Conn) end(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	_ = c.conn.Close()
}

// read reads until the connection ends, and then fails the calls that are left.
func (c *Conn) read() {
	defer close(c.done)
	for {
		if err := c.readReply(); err != nil {
			c.end(err)
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.pending.Len() > 0 {
		c.pending.Pop().call.fail(c.err)
	}
}

// fail ends a call, unless it has ended.
func (k *call) fail(err error) {
	if k.err == nil && k.left > 0 {
		k.err = err
		close(k.done)
	}
}

// readReply reads one reply or push.
func (c *Conn) readReply() error {
	kind, err := c.reader.peek()
	if err != nil {
		return err
	}
	if kind == '>' {
		return c.handlePush()
	}
	oldest := c.oldest()
	isError := kind == '-' || kind == '!'
	switch {
	case oldest.call == nil:
		return protocolError("a reply without a command")
	case oldest.confirm != "" && (!isError || c.confirmed > 0):
		return protocolError("a plain reply to %s", oldest.confirm)
	}
	v, err := c.reader.value()
	if err == nil {
		c.answerOldest(v)
	}
	return err
}

// handlePush reads a push.
func (c *Conn) handlePush() error {
	kind, elements, err := c.reader.push()
	if err != nil {
		return err
	}
	switch string(kind) {
	case "message":
		return c.handleMessage(elements, 2) // channel, payload
	case "pmessage":
		return c.handleMessage(elements, 3) // pattern, channel, payload
	case "subscribe", "psubscribe", "unsubscribe", "punsubscribe":
		oldest := c.oldest()
		if oldest.confirm != string(kind) {
			return protocolError("%s, which was not requested", kind)
		}
		if err := c.reader.confirmation(elements); err != nil {
			return err
		}
		if c.confirmed++; c.confirmed == oldest.channels {
			c.answerOldest(Value{})
		}
		return nil
	case "smessage", "ssubscribe", "sunsubscribe", "invalidate":
		return protocolError("%s, which was not requested", kind)
	}
	for range elements { // of a kind that is not known
		if _, err := c.reader.value(); err != nil {
			return err
		}
	}
	return nil
}

// handleMessage reads a message and passes it to onMessage.
func (c *Conn) handleMessage(elements, want int) error {
	switch {
	case c.onMessage == nil:
		return protocolError("a message, which was not requested")
	case elements != want:
		return protocolError("a message with %d elements", elements)
	}
	m, err := c.reader.message(elements)
	if err == nil {
		c.onMessage(m)
	}
	return err
}

// oldest returns the command that has waited longest. Its call is nil if there is none.
func (c *Conn) oldest() pendingReply {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pending.Peek(); p != nil {
		return *p
	}
	return pendingReply{}
}

// answerOldest makes v the reply to the command that has waited longest.
func (c *Conn) answerOldest(v Value) {
	c.confirmed = 0
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.pending.Pop().call
	k.replies = append(k.replies, v)
	if k.left--; k.left == 0 {
		close(k.done)
	}
}
