package hearth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/hearthws/hearth/internal/node"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// State is how far a client has come: protocol.StateAuthenticated for those that the application meets, and
// protocol.StateDisconnected after they went.
type State = protocol.State

// Client is the application's view of one authenticated connection. It may be kept; after the client has gone it tells
// what it last was, but for its rooms, and sends fail with ErrNotConnected. All methods may be called from any
// goroutine, and do not block but where it is said.
type Client[M any] struct {
	metadata M // first: behind the others an empty M would take eight bytes
	s        *session.Session
	user     string
}

// ID is the client's id, a random UUID with a checksum (protocol §4): one connection, not one user.
func (c *Client[M]) ID() string { return c.s.ID() }

// UserID is the id that Authenticate gave it; empty for an anonymous client.
func (c *Client[M]) UserID() string { return c.user }

// Metadata is what Authenticate returned.
func (c *Client[M]) Metadata() M { return c.metadata }

// State is how far the client has come.
func (c *Client[M]) State() State { return c.s.State() }

// Rooms are the names of the rooms that the client is in, its own first; after it has gone, those that it was in then. So
// Disconnected can tell them, and a Message that was sent right before the end is judged as one of a member. The slice is
// the caller's.
func (c *Client[M]) Rooms() []string { return c.s.Rooms() }

// In reports whether the client is in that room, by the same rules as Rooms.
func (c *Client[M]) In(room string) bool { return c.s.In(room) }

// Encrypted reports whether everything that is sent to the client is encrypted (protocol §10). Once true it stays so.
func (c *Client[M]) Encrypted() bool { return c.s.Encrypted() }

// Backpressured reports whether messages were dropped for the client because it takes them too slowly, and it has not
// caught up since.
func (c *Client[M]) Backpressured() bool { return c.s.Backpressured() }

// ConnectedAt is when the connection was opened. The time has a monotonic reading: differences to time.Now are exact even
// if the wall clock was set meanwhile, and its wall reading is by the clock as it is set now.
func (c *Client[M]) ConnectedAt() time.Time { return c.s.ConnectedAt() }

// LastActivity is when the client's last message came, with a monotonic reading as ConnectedAt. If the whole process has
// stood still since (stopped, or in a paused virtual machine), it is later by that time.
func (c *Client[M]) LastActivity() time.Time { return c.s.LastActivity() }

// RemoteAddr is the client's address; its port is 0 where Config.ClientAddr told the address.
func (c *Client[M]) RemoteAddr() netip.AddrPort { return c.s.RemoteAddr() }

// Send queues an event for this client; see Server.SendToClient for data. ErrNotConnected when it has gone.
func (c *Client[M]) Send(event string, data any) error {
	raw, skip, err := encode(event, data)
	if skip || err != nil {
		return err
	}
	return c.s.Send(node.Encode(event, raw))
}

// EnableEncryption makes this client an encrypted one for good, after an exchange of keys of your own: by cipher, or nil if
// Config.Transform does all. The event, if it is not empty, is sent in clear, as the last message that is: it tells the client, and
// may carry what it needs.
//
// The moment is a turn of the client's event loop, for which it waits, at most until ctx is done. When it returns nil, what
// was sent before and has not begun to go out has been taken back, to follow encrypted behind the event; nothing that is sent
// leaves in clear. (To an operating system or a TLS library it has gone out when it was given to them: of the goroutine transport up
// to 64 KiB.) With another error than ErrNotConnected and ErrEncrypted the client may be encrypted or not:
// disconnect it. With Config.EncryptedOnly the client must be silent from when it offers its keys until it gets the event: what it has sent in
// clear meanwhile closes it.
func (c *Client[M]) EnableEncryption(ctx context.Context, cipher *seal.Cipher, event string, data any) error {
	raw, skip, err := encode(event, data)
	if err != nil {
		return err
	}
	if skip {
		err = c.s.Encrypt(ctx, cipher, nil)
	} else {
		err = c.s.Encrypt(ctx, cipher, node.Encode(event, raw))
	}
	if err != nil {
		return fmt.Errorf("enable encryption: %w", err)
	}
	return nil
}

// Join makes the client a member of the rooms without asking ValidateRooms: what is sent to them once it has returned
// reaches the client. It stops with an error at the first that is not possible, and may wait for the broker until ctx is done.
func (c *Client[M]) Join(ctx context.Context, rooms ...string) error {
	if err := c.s.Join(ctx, rooms...); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	return nil
}

// Leave takes the client out of those of the rooms that it is in.
func (c *Client[M]) Leave(rooms ...string) { c.s.Leave(rooms...) }

// Disconnect closes the client with a code (1000, 1001, 1007 to 1014, or 3000 to 4999 for the application's own) and a
// reason, cut to 123 bytes, behind what has been sent to it. Messages of the client that wait for
// Message are dropped (Stats.MessagesDiscarded). ErrNotConnected when it has gone.
func (c *Client[M]) Disconnect(code int, reason string) error {
	if err := protocol.CheckCloseCode(code); err != nil {
		return fmt.Errorf("disconnect: %w", err)
	}
	if !c.s.Close(code, reason) {
		return ErrNotConnected
	}
	return nil
}

// AuthRequest is what a client that wants to be authenticated is known by.
type AuthRequest[A any] struct {
	ClientID    string
	RemoteAddr  netip.AddrPort
	Subprotocol string          // that was agreed on in the handshake; empty if none
	Credentials A               // the event's data, decoded
	Raw         json.RawMessage // the same as it came; {} if there was none. Not to be changed
}

// HandshakeRequest is what Config.Handshake agrees on keys with: a client that has been accepted.
type HandshakeRequest[M any] struct {
	ClientID   string
	RemoteAddr netip.AddrPort
	UserID     string // of its Identity
	Metadata   M
	Raw        json.RawMessage // the data of `authenticate` as it came; {} if there was none. Not to be changed
}

// Keys are what Config.Handshake has agreed on with a client: ServerPublicKey and Salt go into `connected`, Cipher seals
// and opens its messages. Without a Cipher it is for Config.Transform to encrypt, and what the client sends encrypted is
// dropped.
type Keys = session.Keys

// Identity is what an accepted client is.
type Identity[M any] struct {
	UserID   string // its sessions are reached by SendToUser. Empty: anonymous
	Metadata M      // kept with the client, see Client.Metadata
}

// Message is an event that a client has sent. In JSON it is what the client sent: {"event":…,"data":…,"id":…}, without
// what is absent.
type Message struct {
	// Event is never empty. A lone half of a surrogate pair, which JavaScript allows in strings, is kept as three bytes that
	// are not valid UTF-8 (protocol.ParseString): a send with this name gives it to clients as it came.
	Event string

	Data json.RawMessage // as it came, digits untouched; nil when there was none
	ID   json.RawMessage // as it came; nil when there was none
}

// MarshalJSON returns m as protocol.Envelope does.
func (m Message) MarshalJSON() ([]byte, error) { return protocol.Envelope(m).MarshalJSON() }

// UnmarshalJSON reads what a client might send. The error is that of protocol.ParseEnvelope.
func (m *Message) UnmarshalJSON(b []byte) error { return (*protocol.Envelope)(m).UnmarshalJSON(b) }
