package hearth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/internal/node"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// State is how far a client has come: protocol.StateAuthenticated for the clients that an application sees, and
// protocol.StateDisconnected after they have gone.
type State = protocol.State

// Client is one authenticated connection. The server makes it; callbacks and Local.Client return it. It may be kept: after
// the client has gone, it still returns what it last was, and sends return ErrNotConnected. The zero Client is one that has
// gone.
//
// All methods may be called from any goroutine, and do not block unless that is documented.
type Client[M any] struct {
	// Set when the client is authenticated, then read-only.
	initial M
	s       *session.Session // nil: the zero Client
	user    string

	metadata atomic.Pointer[M] // &initial at first
}

func newClient[M any](s *session.Session, id Identity[M]) *Client[M] {
	c := &Client[M]{initial: id.Metadata, s: s, user: id.UserID}
	c.metadata.Store(&c.initial)
	return c
}

// ID returns the client's id, a random UUID with a checksum (docs/protocol.md §4). It names one connection, not one user.
func (c *Client[M]) ID() string {
	if c.s == nil {
		return ""
	}
	return c.s.ID()
}

// UserID returns the user id that Authenticate gave the client; empty for an anonymous client.
func (c *Client[M]) UserID() string { return c.user }

// Metadata returns what Authenticate or the last SetMetadata gave the client.
func (c *Client[M]) Metadata() M {
	if m := c.metadata.Load(); m != nil {
		return *m
	}
	return c.initial
}

// SetMetadata replaces the client's metadata. Metadata, on any goroutine, returns the old value or the new one. To change
// one part of it, read and set it in callbacks of this client, which run one after the other, or under a lock.
//
// So an event of the application's own can renew credentials on an open connection: `authenticate` works once. The user
// id cannot be changed.
func (c *Client[M]) SetMetadata(m M) { c.metadata.Store(&m) }

// State returns how far the client has come.
func (c *Client[M]) State() State {
	if c.s == nil {
		return protocol.StateDisconnected
	}
	return c.s.State()
}

// Rooms returns the names of the rooms that the client is in, the room of its own id first. After the client has gone they
// are the rooms that it was in at the end, so that Disconnected, and a Message that was sent just before the end, find them.
// The slice is the caller's.
func (c *Client[M]) Rooms() []string {
	if c.s == nil {
		return nil
	}
	return c.s.Rooms()
}

// In reports whether Rooms has that room. Config.DefaultRooms and the room of the client's own id count: a handler that
// takes the name of a room from the client must also check that the name is one that clients may write to.
func (c *Client[M]) In(room string) bool { return c.s != nil && c.s.In(room) }

// Encrypted reports whether everything that is sent to the client is encrypted (docs/protocol.md §10). Once true it stays
// true.
func (c *Client[M]) Encrypted() bool { return c.s != nil && c.s.Encrypted() }

// Backpressured reports whether the client reads too slowly, so that messages for it were dropped, and has not caught up
// since.
func (c *Client[M]) Backpressured() bool { return c.s != nil && c.s.Backpressured() }

// ConnectedAt returns when the connection was opened. The time has a monotonic reading: differences to time.Now are exact
// even if the wall clock was set meanwhile, and its wall reading is by the clock as it is set now.
func (c *Client[M]) ConnectedAt() time.Time {
	if c.s == nil {
		return time.Time{}
	}
	return c.s.ConnectedAt()
}

// LastActivity returns when the client's last message came, with a monotonic reading as for ConnectedAt. If the whole
// process has stood still since (stopped, or in a paused virtual machine), it is later by that time.
func (c *Client[M]) LastActivity() time.Time {
	if c.s == nil {
		return time.Time{}
	}
	return c.s.LastActivity()
}

// RemoteAddr returns the client's address. Its port is 0 if the address comes from Upgrade.ClientAddr.
func (c *Client[M]) RemoteAddr() netip.AddrPort {
	if c.s == nil {
		return netip.AddrPort{}
	}
	return c.s.RemoteAddr()
}

// Send queues an event for this client; see Sender for event and data. ErrNotConnected if the client has gone,
// ErrQueueFull if the send queue has no room. It does not block.
func (c *Client[M]) Send(event string, data any) error {
	err := protocol.CheckEvent(event)
	var raw json.RawMessage
	if err == nil {
		raw, err = protocol.EncodeData(data)
	}
	switch {
	case err != nil:
	case c.s == nil:
		err = ErrNotConnected
	default:
		err = c.s.Send(node.Encode(event, raw))
	}
	if err != nil {
		return fmt.Errorf("hearth: send %q to client: %w", event, err)
	}
	return nil
}

// Reply queues the reply to a message of this client: an event of the same name and with the same id, so that the client
// can tell which request it answers. See Send for data and errors; ErrNoID if the message has no id.
func (c *Client[M]) Reply(m Message, data any) error {
	raw, err := protocol.EncodeData(data)
	switch {
	case err != nil:
	case m.ID == nil:
		err = ErrNoID
	case c.s == nil:
		err = ErrNotConnected
	default:
		err = c.s.Send(node.EncodeReply(m.Event, raw, m.ID))
	}
	if err != nil {
		return fmt.Errorf("hearth: reply to %q: %w", m.Event, err)
	}
	return nil
}

// tell queues an error event; id is that of the message that caused it.
func (c *Client[M]) tell(e *ClientError, id json.RawMessage) error {
	if c.s == nil {
		return ErrNotConnected
	}
	return sendClientError(c.s, e, id)
}

// EnableEncryption encrypts everything that is sent to this client from now on, for good, after a key exchange of the
// application's own. It encrypts with cipher; if that is nil, Config.Transform does all. The event, unless it is empty, is
// the last message that goes out unencrypted: it may tell the client what it needs.
//
// It waits for a turn of the client's event loop, until ctx is done at the latest. The results:
//
//   - nil: what was sent before and had not begun to go out follows the event, encrypted. Nothing more leaves unencrypted.
//     What was handed to the operating system or to a TLS library has gone out; with TransportNetConn that can be 64 KiB.
//   - ErrNotConnected, ErrEncrypted: nothing has changed.
//   - any other error: the client may be encrypted or not. Disconnect it.
//
// With Encryption.Only, a client must send nothing between the offer of its keys and the event: an unencrypted
// message in that time closes it.
func (c *Client[M]) EnableEncryption(ctx context.Context, cipher *seal.Cipher, event string, data any) error {
	if c.s == nil {
		return fmt.Errorf("hearth: enable encryption: %w", ErrNotConnected)
	}
	if event == "" {
		return wrap("enable encryption", c.s.Encrypt(ctx, cipher, nil))
	}
	raw, err := protocol.EncodeData(data)
	if err == nil {
		err = c.s.Encrypt(ctx, cipher, node.Encode(event, raw))
	}
	return wrap("enable encryption", err)
}

// Join makes the client a member of the rooms without asking ValidateRooms. When it returns nil, what is sent to the rooms
// from then on, on any server, reaches the client. It stops at the first room that fails: ErrTooManyRooms,
// ErrNotConnected, or an invalid name.
//
// It may wait for the broker: until ctx is done, or less (redis.Config.HoldTimeout), and not while the broker is known to
// be down. If the broker does not answer in time, the client is a member all the same: it gets what this server sends, and
// what other servers send from the time at which the broker works again. That gap is reported to Config.BrokerLost and, with
// Config.Resync, to the client.
func (c *Client[M]) Join(ctx context.Context, rooms ...string) error {
	if c.s == nil {
		return fmt.Errorf("hearth: join: %w", ErrNotConnected)
	}
	return wrap("join", c.s.Join(ctx, rooms...))
}

// Leave removes the client from the rooms. Rooms that it is not in are ignored.
func (c *Client[M]) Leave(rooms ...string) {
	if c.s != nil {
		c.s.Leave(rooms...)
	}
}

// Disconnect closes the client after what was sent to it has gone out, for which it has Timeouts.Close. The code must be
// 1000, 1001, 1007 to 1014, or one of the application's own, 3000 to 4999; clients give 4001 to 4004 the meaning of the
// protocol (docs/protocol.md §5). The reason is cut to 123 bytes. Messages of the client that wait for their
// handlers are dropped (Stats.MessagesDiscarded). ErrNotConnected if the client has gone.
func (c *Client[M]) Disconnect(code int, reason string) error {
	err := protocol.CheckCloseCode(code)
	if err == nil && (c.s == nil || !c.s.Close(code, reason)) {
		err = ErrNotConnected
	}
	return wrap("disconnect", err)
}

// AuthRequest is what Config.Authenticate knows about a client.
type AuthRequest[A any] struct {
	// ClientID is the id of the new client.
	ClientID string

	// RemoteAddr is the client's address, as Client.RemoteAddr returns it.
	RemoteAddr netip.AddrPort

	// Subprotocol is the subprotocol that was selected in the opening handshake; empty if none.
	Subprotocol string

	// FromRequest is what Upgrade.FromRequest returned for the request of the opening handshake; nil without it.
	FromRequest any

	// Credentials are the data of the client's `authenticate`, decoded.
	Credentials A

	// Raw is the same data as it was sent; {} if there was none. It must not be changed.
	Raw json.RawMessage
}

// HandshakeRequest is what Config.Handshake knows about a client, which Authenticate has accepted.
type HandshakeRequest[M any] struct {
	// ClientID is the client's id.
	ClientID string

	// RemoteAddr is the client's address, as Client.RemoteAddr returns it.
	RemoteAddr netip.AddrPort

	// UserID is that of the Identity that Authenticate returned.
	UserID string

	// Metadata is that of the Identity that Authenticate returned.
	Metadata M

	// Raw is the data of `authenticate` as it was sent; {} if there was none. It must not be changed.
	Raw json.RawMessage
}

// Identity is what Config.Authenticate returns for a client that it accepts.
type Identity[M any] struct {
	// UserID is the id by which ToUser finds the client, together with the user's other clients. Empty: anonymous.
	UserID string

	// Metadata is kept with the client: see Client.Metadata.
	Metadata M
}

// MarshalJSON returns m as protocol.Envelope does.
func (m Message) MarshalJSON() ([]byte, error) { return protocol.Envelope(m).MarshalJSON() }

// UnmarshalJSON reads what a client might send. The error is that of protocol.ParseEnvelope.
func (m *Message) UnmarshalJSON(b []byte) error { return (*protocol.Envelope)(m).UnmarshalJSON(b) }
