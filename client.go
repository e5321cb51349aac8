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

// State is the state of a client: protocol.StateAuthenticated for the clients that an application
// sees, and protocol.StateDisconnected after they have disconnected.
type State = protocol.State

// Client is one authenticated connection. The server creates it; callbacks and Local.Client return
// it. A program may keep it: after the client has disconnected, methods still return its last
// values, and sends return ErrNotConnected. The zero Client behaves as a disconnected one.
//
// All methods are safe for concurrent use, and do not block unless their documentation says so.
type Client[M any] struct {
	// Set when the client is authenticated, then read-only.
	initial M
	s       *session.Session // nil: the zero Client
	user    string
	resumed bool

	metadata atomic.Pointer[M] // &initial at first
}

func newClient[M any](s *session.Session, id Identity[M]) *Client[M] {
	c := &Client[M]{initial: id.Metadata, s: s, user: id.UserID}
	c.metadata.Store(&c.initial)
	return c
}

// ID returns the client's id, a random UUID with a checksum (docs/protocol.md §4). It identifies
// one connection, not one user.
func (c *Client[M]) ID() string {
	if c.s == nil {
		return ""
	}
	return c.s.ID()
}

// UserID returns the user id that Authenticate returned; empty for an anonymous client.
func (c *Client[M]) UserID() string { return c.user }

// Resumed reports whether this connection continues the session of an earlier one: the client came
// with a ticket, and Authenticate was not called (Config.Resume).
func (c *Client[M]) Resumed() bool { return c.resumed }

// Moved reports whether another connection, on any server, has resumed the session of this client.
// It is false until Left is called for the rooms that the client was in at the end, and does not
// change from then on. With Resume.Grace, these calls wait for the client to resume. Without it,
// they are usually made before, and Moved is true only if the server closed this connection because
// of the other one.
func (c *Client[M]) Moved() bool { return c.s != nil && session.Moved(c.s) }

// Metadata returns the value from Authenticate or from the last SetMetadata.
func (c *Client[M]) Metadata() M {
	if m := c.metadata.Load(); m != nil {
		return *m
	}
	return c.initial
}

// SetMetadata replaces the client's metadata. Metadata, called on any goroutine, returns the old
// value or the new one. To change one part of the value, read and set it in callbacks of this
// client, which run one at a time, or under a lock.
//
// New credentials of a client with the extension replace the metadata, too (Config.Authenticate).
// For other clients, an application can use SetMetadata to renew credentials on an open connection,
// with an event of its own. The user id cannot be changed.
func (c *Client[M]) SetMetadata(m M) {
	c.metadata.Store(&m)
	if c.s != nil {
		session.Changed(c.s)
	}
}

// ExpiresAt returns when the client's credentials expire (Identity.ExpiresAt), without a monotonic
// reading. It is zero if they do not expire.
func (c *Client[M]) ExpiresAt() time.Time {
	if c.s == nil {
		return time.Time{}
	}
	return session.ExpiresAt(c.s)
}

// State returns the state of the client.
func (c *Client[M]) State() State {
	if c.s == nil {
		return protocol.StateDisconnected
	}
	return c.s.State()
}

// Rooms returns the names of the rooms that the client is in, with the room of its own id first.
// After the client has disconnected, it returns the rooms that the client was in at the end, for
// Disconnected and for messages that are handled late. The caller may change the slice.
func (c *Client[M]) Rooms() []string {
	if c.s == nil {
		return nil
	}
	return c.s.Rooms()
}

// In reports whether the client is in that room. Config.DefaultRooms and the room of the client's
// own id count, so a handler that takes the name of a room from the client must also check that
// clients may write to that room.
func (c *Client[M]) In(room string) bool { return c.s != nil && c.s.In(room) }

// Encrypted reports whether everything that is sent to the client is encrypted (docs/protocol.md
// §10). Once true, it stays true.
func (c *Client[M]) Encrypted() bool { return c.s != nil && c.s.Encrypted() }

// Backpressured reports whether messages for the client were dropped because it reads too slowly,
// and it has not read the rest yet.
func (c *Client[M]) Backpressured() bool { return c.s != nil && c.s.Backpressured() }

// ConnectedAt returns the time at which the connection was opened. It has a monotonic reading, so
// the difference to time.Now is exact even if the wall clock was set meanwhile. Its wall reading
// follows the current setting of the clock.
func (c *Client[M]) ConnectedAt() time.Time {
	if c.s == nil {
		return time.Time{}
	}
	return c.s.ConnectedAt()
}

// LastActivity returns the time of the client's last message, with a monotonic reading as for
// ConnectedAt. If the whole process has been suspended since then (stopped, or in a paused virtual
// machine), the time is later by the length of the suspension.
func (c *Client[M]) LastActivity() time.Time {
	if c.s == nil {
		return time.Time{}
	}
	return c.s.LastActivity()
}

// RemoteAddr returns the client's address. The port is 0 if the address comes from
// Upgrade.ClientAddr.
func (c *Client[M]) RemoteAddr() netip.AddrPort {
	if c.s == nil {
		return netip.AddrPort{}
	}
	return c.s.RemoteAddr()
}

// Send queues an event for this client; see Sender for event and data. It does not block. It
// returns ErrNotConnected if the client has disconnected, and ErrQueueFull if the send queue is
// full.
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

// Reply queues the reply to a message of this client: an event with the same name and the same id,
// by which the client finds the request. See Send for data and errors. It returns ErrNoID if the
// message has no id.
//
// A client with the extension (docs/protocol.md §13) gets exactly one answer to a message with an
// id. If the handler returns without an answer, the server sends one. So Reply returns ErrReplied
// if the message has been answered: by Reply, by an error, or because the handler has returned. To
// reply after the handler has returned, on another goroutine, let the handler return ErrReplyLater.
// m must be the Message that the handler got, or a copy of it.
func (c *Client[M]) Reply(m Message, data any) error {
	raw, err := protocol.EncodeData(data)
	switch {
	case err != nil:
	case m.ID == nil:
		err = ErrNoID
	case c.s == nil:
		err = ErrNotConnected
	default:
		err = session.Answer(c.s, m.request, node.EncodeReply(m.Event, raw, m.ID))
	}
	if err != nil {
		return fmt.Errorf("hearth: reply to %q: %w", m.Event, err)
	}
	return nil
}

// tell queues an error event with the id of the message that caused the error.
func (c *Client[M]) tell(e *ClientError, id json.RawMessage) error {
	if c.s == nil {
		return ErrNotConnected
	}
	return c.s.Send(node.EncodeClientError(protocol.ClientError{Code: e.Code, Message: e.Message}, id))
}

// EnableEncryption encrypts all later messages to this client, permanently, after a key exchange
// that the application has made. It encrypts with cipher; if cipher is nil, Config.Transform
// encrypts. The event, unless it is empty, is the last unencrypted message: it can carry what the
// client needs to derive the key.
//
// It blocks until the client's event loop has made the change, or until ctx is done. The results:
//   - nil: earlier messages that had not begun to leave follow the event, encrypted. Nothing more
//     leaves unencrypted. Bytes that were given to the operating system or to a TLS library have
//     left; with TransportNetConn these can be 64 KiB.
//   - ErrNotConnected, ErrEncrypted: nothing has changed.
//   - any other error: the client may be encrypted or not. Disconnect it.
//
// With Encryption.Only, a client must not send any message between its key and the event: an
// unencrypted message in that time closes it.
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

// Join makes the client a member of the rooms without calling ValidateRooms. When it returns nil,
// every later message to the rooms, from any server, reaches the client. It stops at the first room
// that fails: ErrTooManyRooms, ErrNotConnected, or an invalid name.
//
// It may block until the broker confirms the rooms, for at most redis.Config.HoldTimeout and until
// ctx is done. It does not block while the broker is known to be down. If the broker does not
// confirm in time, the client is a member nevertheless: it receives the messages of this server,
// and those of other servers once the broker works again. The gap is reported to Config.BrokerLost
// and, with Config.Resync, to the client.
func (c *Client[M]) Join(ctx context.Context, rooms ...string) error {
	if c.s == nil {
		return fmt.Errorf("hearth: join: %w", ErrNotConnected)
	}
	return wrap("join", c.s.Join(ctx, rooms...))
}

// Leave removes the client from the rooms. It ignores rooms that the client is not in.
func (c *Client[M]) Leave(rooms ...string) {
	if c.s != nil {
		c.s.Leave(rooms...)
	}
}

// Disconnect closes the client after the messages that are queued for it have been sent, for which
// it has Timeouts.Close. It does not wait for that. The code must be 1000, 1001, 1007 to 1014, or a
// code of the application, 3000 to 4999. Clients of the protocol give 4001 to 4006 a meaning
// (docs/protocol.md §5). The reason is cut to 123 bytes. Messages of the client that wait for their
// handlers are dropped (Stats.MessagesDiscarded). The client cannot resume its session: its tickets
// become useless. It returns ErrNotConnected if the client has disconnected.
func (c *Client[M]) Disconnect(code int, reason string) error {
	err := protocol.CheckCloseCode(code)
	if err == nil && (c.s == nil || !c.s.Close(code, reason)) {
		err = ErrNotConnected
	}
	return wrap("disconnect", err)
}

// AuthRequest describes the client that Config.Authenticate decides about.
type AuthRequest[A any] struct {
	// ClientID is the id of the new client.
	ClientID string

	// RemoteAddr is the client's address, as Client.RemoteAddr returns it.
	RemoteAddr netip.AddrPort

	// Subprotocol is the subprotocol that was selected in the opening handshake, or empty.
	Subprotocol string

	// FromRequest is the result of Upgrade.FromRequest for the request of the opening handshake, or
	// nil without that callback.
	FromRequest any

	// Again means that the client is authenticated already and sends new credentials. Subprotocol
	// and FromRequest are empty then: they are not kept.
	Again bool

	// UserID is the user id of the client if Again is set. The client keeps its old credentials
	// unless Authenticate returns the same.
	UserID string

	// Credentials are the decoded data of the client's `authenticate`.
	Credentials A

	// Raw is the same data as it was sent, or {} if there was none. It must not be changed.
	Raw json.RawMessage
}

// ResumeRequest describes the client that Config.Resumed decides about, as it was when its ticket
// was issued.
type ResumeRequest[M any] struct {
	// ClientID is the id of the client, which it keeps.
	ClientID string

	// RemoteAddr is the address of the new connection, as Client.RemoteAddr returns it.
	RemoteAddr netip.AddrPort

	// UserID is the user id of the client; empty for an anonymous client.
	UserID string

	// Metadata is the metadata of the client.
	Metadata M

	// Rooms are the rooms that the client was in.
	Rooms []string

	// ExpiresAt is when the credentials of the client expire; zero if they do not.
	ExpiresAt time.Time

	// Issued is when the ticket was issued, by the clock of the server that issued it.
	Issued time.Time
}

// HandshakeRequest describes the client for which Config.Handshake makes keys. Authenticate has
// accepted it.
type HandshakeRequest[M any] struct {
	// ClientID is the client's id.
	ClientID string

	// RemoteAddr is the client's address, as Client.RemoteAddr returns it.
	RemoteAddr netip.AddrPort

	// UserID is the user id that Authenticate returned.
	UserID string

	// Metadata is the metadata that Authenticate returned.
	Metadata M

	// Raw is the data of `authenticate` as it was sent, or {} if there was none. It must not be
	// changed.
	Raw json.RawMessage
}

// Identity is the result of Config.Authenticate for a client that it accepts.
type Identity[M any] struct {
	// UserID is the id by which ToUser finds the client, together with the user's other clients. It
	// is empty for an anonymous client.
	UserID string

	// Metadata is kept with the client: see Client.Metadata.
	Metadata M

	// ExpiresAt is when the credentials expire, by the wall clock of this server; zero means never.
	// The client is then closed with 4005 (Stats.Expired), after at most ten more seconds if the
	// clock was stepped or the machine slept meanwhile. A time that has passed rejects the client.
	// See also Timeouts.ExpiryNotice.
	ExpiresAt time.Time
}

// MarshalJSON encodes m as protocol.Envelope does.
func (m Message) MarshalJSON() ([]byte, error) {
	return protocol.Envelope{Event: m.Event, Data: m.Data, ID: m.ID}.MarshalJSON()
}

// UnmarshalJSON decodes a message in the form in which clients send it. The error is that of
// protocol.ParseEnvelope.
func (m *Message) UnmarshalJSON(b []byte) error {
	var e protocol.Envelope
	if err := e.UnmarshalJSON(b); err != nil {
		return err
	}
	*m = Message{Event: e.Event, Data: e.Data, ID: e.ID}
	return nil
}
