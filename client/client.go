// Package client connects Go programs to a Hearth server, and keeps them connected.
//
//	c, err := client.New(client.Config{URL: "wss://example.com/ws", Credentials: Login{Token: token}})
//	if err != nil { … }
//	defer c.Close()
//	client.On(c, "said", func(line Line) { … })
//	room, err := c.Join("chat:tea", client.RoomConfig{Last: 20})
//	if err := c.Connect(ctx); err != nil { … }
//	err = c.Send(ctx, "say", "hello")
//	lines, err := client.Request[[]Line](ctx, c, "history", Query{Room: "chat:tea"})
//
// A client authenticates, sends heartbeats, notices that its server is gone, connects again after a
// random time, joins its rooms again and recovers what it has missed in those with history. If that
// is not possible it says so (RoomStatus.Unrecovered). It needs the extension of the protocol
// (docs/protocol.md §13) for this. With a server that does not have the extension, such as the
// reference, it does what the basic protocol allows: see State.Extension.
//
// # Delivery
//
// Messages of a room with history reach their handlers in order and once, also if the connection is
// lost in between, or Unrecovered reports a gap. All other messages are delivered at most once:
// after a connection was lost, a program should load the data that it shows again, unless all of it
// is from rooms with history. OnState and RoomConfig.Changed report when. Send is at most once too.
// A program that must know uses Request.
//
// # Callbacks
//
// One goroutine calls all callbacks of a client (On, Config.OnState, RoomConfig.Changed), one after
// the other, in the order in which things happened. A callback may call any function of this
// package. While it blocks, messages wait, up to Config.Buffer bytes. Then the client does not read
// from the server until the callback has returned, so a Request that a callback makes may fail.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"sync"

	"github.com/hearthws/hearth/protocol"
)

// Client is a connection to a server that is restored when it is lost. New makes it. All methods
// are safe for concurrent use.
type Client struct {
	cfg    Config
	log    *slog.Logger
	ctx    context.Context // ends with Close, and when the client gives up
	cancel context.CancelFunc
	calls  *dispatcher
	out    *queue
	asking chan struct{}  // of capacity 1: held while CredentialsFunc runs
	wg     sync.WaitGroup // the goroutines of run and of connections

	mu        sync.Mutex
	started   bool                  // Connect was called; guarded by mu
	state     State                 // guarded by mu
	changed   chan struct{}         // closed when state changes, and replaced; guarded by mu
	handlers  map[string][]*handler // by event; guarded by mu
	questions questions
	rooms     map[string]*Room // by name; guarded by mu
	// left are the names of rooms that were left, and that a session that is resumed may still
	// have. Guarded by mu.
	left    map[string]bool
	pending map[string]*request // by id; written to conn, not answered; guarded by mu
	lastID  uint64              // guarded by mu
	conn    *conn               // nil while not connected; guarded by mu
	ticket  string              // to resume the session; empty: none; guarded by mu
}

// New makes a client from a copy of cfg. It does not connect; Connect does. It returns an error if
// cfg is invalid. A client must be closed.
func New(cfg Config) (*Client, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c := &Client{
		cfg: cfg, log: cfg.Logger, calls: newDispatcher(cfg.Buffer), out: newQueue(cfg.QueueMessages, cfg.QueueFull),
		changed: make(chan struct{}), handlers: map[string][]*handler{}, questions: questions{byEvent: map[string]func(context.Context, Message) (any, error){}}, rooms: map[string]*Room{}, left: map[string]bool{},
		pending: map[string]*request{}, asking: make(chan struct{}, 1),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	go c.calls.run() // ends with Close, or when the client gives up; nothing waits, see Done
	return c, nil
}

// Connect starts the client, and waits until it is connected. It returns nil then, the error of ctx
// if ctx is done before, or an error that wraps ErrClosed and says why the client has given up. If
// ctx is done, the client still tries to connect, until Close. Connect may be called several times:
// later calls only wait. Register handlers and join rooms before, to miss nothing.
func (c *Client) Connect(ctx context.Context) error {
	c.mu.Lock()
	if !c.started && c.state.Phase != Closed {
		c.started = true
		c.wg.Go(c.run) // ends with c.ctx, or when it gives up; Close waits
	}
	for c.state.Phase != Connected {
		if c.state.Phase == Closed {
			err := closed(c.state.Err)
			c.mu.Unlock()
			return fmt.Errorf("client: connect: %w", err)
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("client: connect: %w", ctx.Err())
		}
		c.mu.Lock()
	}
	c.mu.Unlock()
	return nil
}

// State returns the present state.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Dropped returns the number of messages that Send has accepted and that were dropped: because of
// DropOldest, because they were too large for the server, or because they waited when the client
// was closed.
func (c *Client) Dropped() uint64 { return c.out.dropped.Load() }

// Close closes the connection with code 1000, ends all requests with ErrClosed, and frees
// everything. It waits for all goroutines of the client, except for a callback that has begun: so a
// callback may call it. It begins no more callbacks, and drops the messages that wait to be sent.
// It may be called several times.
func (c *Client) Close() {
	c.shut(nil)
	c.calls.close(true)
	c.wg.Wait()
}

// Done returns a channel that is closed when the client is closed, by Close or because it has given
// up, and the last callback has returned.
func (c *Client) Done() <-chan struct{} { return c.calls.done }

// shut ends the client. err is nil for Close, or why the client gives up; then OnState reports it.
func (c *Client) shut(err error) {
	c.mu.Lock()
	if c.state.Phase == Closed {
		c.mu.Unlock()
		return
	}
	c.setLocked(State{Phase: Closed, Err: err})
	for name, r := range maps.All(c.rooms) {
		delete(c.rooms, name)
		r.setLocked(RoomStatus{State: RoomLeft, Err: closed(err), Position: r.status.Position})
	}
	c.conn = nil
	c.failLocked(closed(err))
	c.mu.Unlock()
	c.out.close()
	c.calls.close(err == nil)
	c.cancel()
}

// setLocked changes the state and reports it.
func (c *Client) setLocked(s State) {
	c.state = s
	close(c.changed)
	c.changed = make(chan struct{})
	if f := c.cfg.OnState; f != nil {
		c.calls.add(call{f: func() { f(s) }})
	}
}

// failLocked ends the requests that wait for an answer.
func (c *Client) failLocked(err error) {
	for id, r := range c.pending {
		delete(c.pending, id)
		r.end(answer{err: err})
	}
}

// nextIDLocked returns an id for a request.
func (c *Client) nextIDLocked() string {
	c.lastID++
	return strconv.FormatUint(c.lastID, 36)
}

// closed returns an error that wraps ErrClosed, and the reason if there is one.
func closed(reason error) error {
	if reason == nil {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrClosed, reason)
}

// The errors to test for with errors.Is. Functions return them wrapped, with the operation.
var (
	// ErrClosed means that Close was called, or that the client has given up: it then wraps the
	// reason, such as a *CloseError.
	ErrClosed = errors.New("the client is closed")

	// ErrDisconnected means that the connection was lost before a request was answered. The server
	// may have handled the request, or not.
	ErrDisconnected = errors.New("the connection was lost before the answer")

	// ErrQueueFull means that Config.QueueMessages messages wait to be sent.
	ErrQueueFull = errors.New("too many messages wait to be sent")

	// ErrTooLarge means that the message is larger than the server accepts.
	ErrTooLarge = errors.New("the message is larger than the server accepts")

	// ErrNotEncrypted means that Config.Encryption is set, and the server does not encrypt. The
	// client has sent nothing except its credentials, and gives up.
	ErrNotEncrypted = errors.New("the server does not encrypt")

	// ErrStop makes the client give up, if Config.CredentialsFunc returns it, wrapped or not.
	ErrStop = errors.New("there are no credentials")

	// ErrJoined means that the client has joined the room, or is joining it.
	ErrJoined = errors.New("the room was joined before")
)

// CloseError is the close of a connection: by the server with a close frame, or without one, which
// has code 1006.
type CloseError struct {
	Code   int    // docs/protocol.md §5, or a code of the application
	Reason string // from the server
}

// Error returns the code and the reason.
func (e *CloseError) Error() string { return fmt.Sprintf("closed with %d %q", e.Code, e.Reason) }

// Error is an error that the server has sent in answer to a request or a join.
type Error struct {
	Code    string // for programs, such as "forbidden"; may be empty
	Message string // for people; may be empty
}

// Error returns the code and the message.
func (e *Error) Error() string {
	switch {
	case e.Code == "":
		return e.Message
	case e.Message == "":
		return e.Code
	}
	return e.Code + ": " + e.Message
}

// position is a shorter name.
type position = protocol.Position
