package hearth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/node"
	"github.com/hearthws/hearth/internal/origin"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ticket"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// Transport selects how connections are served.
type Transport string

const (
	// TransportAuto serves plain TCP connections on Linux with event loops, and all others with a
	// goroutine each.
	TransportAuto Transport = ""

	// TransportEpoll is TransportAuto, except that New fails on systems without epoll.
	TransportEpoll Transport = "epoll"

	// TransportNetConn serves every connection with a goroutine, as net/http does.
	TransportNetConn Transport = "netconn"
)

// Disabled switches off a timeout whose zero value selects the default: Timeouts.HeartbeatInterval
// and Timeouts.Idle.
const Disabled time.Duration = -1

// Unlimited removes a limit whose zero value selects the default. The fields of Limits that accept
// it say so.
const Unlimited = -1

// Config configures a Server. Only Authenticate is required; the zero value of every other field
// selects its default. New copies the Config, so several servers can be made from one.
//
// A is the type into which encoding/json decodes the data of a client's `authenticate`. M is the
// type of the metadata that the application keeps with each client. Both may be any type. With
// struct{} for A, a client may send any object, or no data.
//
// # Callbacks
//
// The fields from Authenticate on are the callbacks of the application. All of them may block: none
// runs on an event loop. The callbacks of one client run one at a time, in the order of its
// messages. Those of different clients run concurrently. A panic counts as an error. An error is
// logged and counted (Stats.CallbackErrors, AuthFailed, KeysFailed, Unsealed). It closes the client
// only if it is returned by Authenticate or Handshake. An error for the client is a ClientError.
//
// The context of Authenticate, Handshake and ValidateRooms ends with the client. The context of the
// others does not, because messages that a client sent before it disconnected are still handled.
// All contexts end when the context of Shutdown does. A callback must not call Shutdown, which
// waits for callbacks and would return ErrInCallback: call it on another goroutine.
//
// Messages of events that have a handler (Handle, HandleRequest) are passed to the handler, and not
// to Message.
//
// Handlers are set after New, so they can use the server. For callbacks that need it, write methods
// of a struct that has the server in a field: app.srv, err = hearth.New(hearth.Config[A,
// M]{Connected: app.connected}).
type Config[A, M any] struct {
	// Name is the name of the server in its log lines, and for other servers (NodeInfo.Name).
	// Default "hearth".
	Name string

	// Path is the path on which Serve accepts handshakes. It has no effect on ServeHTTP, which
	// serves wherever it is mounted. Default "/ws".
	Path string

	// DefaultRooms are the rooms that every client joins when it is authenticated. They count for
	// Client.In, Joined and Left. Default ws-default and ws-notification; an empty list that is not
	// nil means none.
	DefaultRooms []string

	// Timeouts are the times after which clients are closed.
	Timeouts Timeouts

	// Limits protect the server from its clients.
	Limits Limits

	// Upgrade decides about opening handshakes: origins, addresses, subprotocols.
	Upgrade Upgrade

	// Compression accepts permessage-deflate (RFC 7692) from clients that offer it. Default off.
	Compression bool

	// Encryption encrypts the messages of each client. Default off.
	Encryption Encryption

	// Transport selects how connections are served. Default TransportAuto.
	Transport Transport

	// Loops is the number of event loops, 1 to 256. One is enough for most servers. More loops
	// deliver more messages in total, each a little later. Default 1.
	Loops int

	// Broker connects the server to others. The server owns it: Start starts it and Shutdown closes
	// it. Default: none, the server is alone.
	Broker broker.Broker

	// Resync sends the event `resync` to clients that may have missed messages of other servers,
	// because the broker lost them or Limits.SendQueue was full. The clients can then load their
	// data again (docs/protocol.md §9). A client receives it at most once a second. Default off.
	Resync bool

	// Resume gives clients tickets, with which they resume their sessions without Authenticate.
	// Default off.
	Resume Resume

	// Logger receives what an operator should know: failed callbacks, lost messages, rejected
	// handshakes. At slog.LevelInfo and above, lines with the same message are written at most once
	// a second, and during a flood once in eight seconds; the attribute "suppressed" counts the
	// lines that were left out. The broker has a logger of its own (redis.Config.Logger). Default
	// slog.Default(); slog.New(slog.DiscardHandler) for no log.
	Logger *slog.Logger

	// Authenticate accepts or rejects a client by the credentials that it sent. An error that wraps
	// ErrRejected, or is a ClientError, closes the client with 4003 `Authentication failed`. Any
	// other error, and a panic, close it with 4003 `Authentication error`. The callback has three
	// times Timeouts.Auth. Data that cannot be decoded into A is rejected without a call. Required.
	//
	// A client with the extension (docs/protocol.md §13) may send new credentials later. Then
	// AuthRequest.Again is set, Authenticate runs concurrently with the client's other callbacks,
	// and an error does not close the client: it keeps its old credentials. If Authenticate returns
	// the same user id, the metadata and the time of expiry are replaced. There is at most one call
	// for a client at a time, and one in five seconds.
	Authenticate func(ctx context.Context, r AuthRequest[A]) (Identity[M], error)

	// Handshake replaces the built-in key exchange, if Encryption.Mode is not EncryptionOff. It
	// agrees on keys with a client that Authenticate has accepted, within the same time. If it
	// returns no keys and no error, the client is not encrypted, which EncryptionRequired rejects.
	// An error or a panic closes the client with 4004. Default: the built-in exchange.
	Handshake func(ctx context.Context, r HandshakeRequest[M]) (*seal.Keys, error)

	// Transform is called for every message to an encrypted client, including those of the
	// protocol, except `connected`. It returns the message to send instead, or nil for the message
	// itself. If the client has a cipher, the result is encrypted; otherwise it is sent as it is,
	// and Transform is responsible for encryption. If Transform fails, the message is lost for that
	// client (Stats.Unsealed), also in a room with history. It is called for one message of a
	// client at a time, concurrently with other callbacks. The data must not be changed. Default:
	// none.
	Transform func(ctx context.Context, c *Client[M], m Message) (*Message, error)

	// Resumed is called for a client with a valid ticket, instead of Authenticate. An error that
	// wraps ErrRejected, or is a ClientError, rejects the ticket; any other error, and a panic, do
	// the same and count in Stats.CallbackErrors. The client can then authenticate with its
	// credentials. Use it if a session may have become invalid in a way that RevokeTickets and
	// Disconnect are not called for. Default: valid tickets are accepted.
	Resumed func(ctx context.Context, r ResumeRequest[M]) error

	// ValidateRooms returns those of the given rooms that the client may join. The names are valid.
	// If it returns an error, the client joins none of them. A ClientError is sent to the client.
	// Otherwise only clients with the extension (docs/protocol.md §13) get an answer to a join.
	// Default: clients cannot join rooms by themselves.
	ValidateRooms func(ctx context.Context, c *Client[M], rooms []string) ([]string, error)

	// Connected is called for a client after `connected` was sent to it, and before any Message. It
	// is also called, with the other callbacks, if the connection of a client ends after its ticket
	// was accepted and before `connected` was sent (Config.Resume). Default: none.
	Connected func(ctx context.Context, c *Client[M])

	// Message is called for each message of an authenticated client whose event is not one of the
	// protocol and has no handler. Return a ClientError to send the client an error. The rules of
	// Handle for messages with an id from clients with the extension apply. Default: such messages
	// are dropped and counted (Stats.MessagesUnhandled); clients with the extension get the error
	// `unknown_event` if the message has an id.
	Message func(ctx context.Context, c *Client[M], m Message) error

	// Joined is called when a client has become a member of a room in any way: by its own `join`,
	// by Join, or by DefaultRooms. Every later message to the room, from any server, reaches the
	// client. So the client misses nothing if Joined loads the history of the room and sends it
	// with Client.Send. A message that is sent at the same time may arrive before the history, and
	// may be part of the history, too. Give messages ids or numbers by which clients sort them and
	// drop duplicates, and store a message before you send it. If the broker cannot subscribe to
	// the room in time, messages of other servers that are lost meanwhile are reported as usual:
	// see Resync and BrokerLost. If a history is larger than Limits.BackpressureLimit, call
	// Local.WaitPending before each part of it, or the client loses parts.
	//
	// To send a new member the list of the other members, take and send the list under the lock
	// under which Joined and Left change it and announce the change. A server that was killed does
	// not call Left.
	//
	// Joined and Left are called in the order of the changes, after Connected has returned, and
	// before the client's next message is handled: when a message after a `join` is handled, Joined
	// has returned. A change by a callback of the client is reported after that callback has
	// returned. For each room, the two calls alternate. A room that the client leaves before Joined
	// was called for it gets neither call. There are no calls for the room of the client's own id.
	// Default: none.
	Joined func(ctx context.Context, c *Client[M], room string)

	// Left is called when a client is no longer a member of a room: by its own `leave`, by Leave,
	// or because it has disconnected. In the last case, Left is called for each of its rooms, after
	// its last Message and before Disconnected; Resume.Grace may delay this. Shutdown waits for
	// these calls; if its context ends before, their context has ended too. Default: none.
	Left func(ctx context.Context, c *Client[M], room string)

	// Disconnected is called for each client that was Connected, after its last Message, with the
	// close code and reason. The code is 1006 if the connection broke, and 1005 if the client's
	// close frame had none. The client is no longer in any room; Client.Rooms returns the rooms
	// that it was in. Resume.Grace may delay the call. Default: none.
	Disconnected func(ctx context.Context, c *Client[M], code int, reason string)

	// BrokerLost is called when this server may have missed messages of other servers: the broker
	// lost them, or Limits.SendQueue was full (then Cause is ErrQueueFull). Only one call runs at a
	// time: losses during a call are merged into the next. Stats.BrokerLosses counts each loss.
	// Default: none.
	BrokerLost func(ctx context.Context, l broker.Loss)
}

// Timeouts are the times after which clients are closed. A zero field selects its default; the
// shortest time is 1 ms.
type Timeouts struct {
	// Auth is the time for a client to send `authenticate`; the callback has three times as long
	// (docs/protocol.md §4). After it, the client is closed with 4001. Default 5 s.
	Auth time.Duration

	// Heartbeat is the longest time without a message from an authenticated client. After it, the
	// client is closed with 4002. Pongs do not count: a client without other messages sends
	// `heartbeat`. Default 90 s.
	Heartbeat time.Duration

	// HeartbeatInterval is the time between two searches for clients that have exceeded Heartbeat.
	// Default 30 s; Disabled closes no client for lack of messages.
	HeartbeatInterval time.Duration

	// Idle is the longest time without any frame from a client. After it, the client is cut. A
	// client that has been silent for half of it gets a ping, which every WebSocket client answers
	// by itself, and another one at three quarters. Pings may be sent up to a sixteenth of Idle
	// early. Default 60 s; Disabled sends no pings.
	Idle time.Duration

	// Close is the time for a client to answer a close frame and to read the messages that were
	// sent before it. Default 5 s.
	Close time.Duration

	// Drain is the time over which Shutdown spreads the closes of the clients, so that they do not
	// all connect elsewhere at the same moment. The rate is even, and at least 100 clients a
	// second. The context of Shutdown must leave time for it, and for the callbacks after it.
	// Default 0: all at once.
	Drain time.Duration

	// ExpiryNotice is how long before its credentials expire (Identity.ExpiresAt) a client with the
	// extension (docs/protocol.md §13) is told, or half of the time that is left if that is less.
	// The client can then send new credentials on the same connection. Default 60 s; Disabled sends
	// no notice.
	ExpiryNotice time.Duration
}

// Limits protect a server from its clients. A zero field selects its default.
type Limits struct {
	// MaxConnections is the largest number of open client sockets. One more evicts the client that
	// has waited longest without sending `authenticate`, with 4001. If there is none, the handshake
	// is answered with 503. Default 100,000; Unlimited for no limit.
	MaxConnections int

	// MaxUnauthenticated is the largest number of connected clients that have not authenticated.
	// One more evicts the client that has waited longest, with 4001; clients that have not sent
	// `authenticate` are evicted first. Evicted clients may keep a quarter of the limit, plus 16,
	// sockets open for Timeouts.Close. The number of handshakes that wait for the callbacks of
	// Upgrade is at most the limit plus 16. Of one address, half of that limit or
	// MaxUnauthenticatedPerAddr may wait, whichever is more, plus 16. Further handshakes are
	// answered with 503. Default 10,000; Unlimited for no limit.
	MaxUnauthenticated int

	// MaxUnauthenticatedPerAddr is MaxUnauthenticated for the clients of one address (IPv6: one
	// /64). Behind a proxy all clients have one address, unless Upgrade.ClientAddr returns their
	// own. With Serve, the number of connections of one address that wait for a plain HTTP request
	// is at most the limit plus 16. Default 256; Unlimited for no limit.
	MaxUnauthenticatedPerAddr int

	// UnauthenticatedMessages is the number of messages that a client may send before it is
	// authenticated. One more closes it with 1008. Default 16.
	UnauthenticatedMessages int

	// UnauthenticatedPayload is the size of the largest message before authentication, in bytes. A
	// larger one closes the client with 1009. Default 16384, or MaxPayload if that is less.
	UnauthenticatedPayload int

	// MaxPayload is the size of the largest message that a client may send, in bytes after
	// decompression. A larger one closes the client with 1009. Default 131072.
	MaxPayload int

	// MaxRooms is the largest number of rooms of one client, without the room of its own id. A
	// client's join stops there: the remaining rooms count in Stats.RoomsRejected. Default 1024;
	// Unlimited for no limit.
	MaxRooms int

	// RoomNames is the largest total length of the names of those rooms, in bytes. A name can have
	// 768 bytes, and several copies exist: in the server, in its broker, and in Redis. Default 64
	// KiB, 64 bytes for each of 1024 rooms; Unlimited for no limit.
	RoomNames int

	// ClientQueue is the number of bytes of a client's messages that may wait for callbacks. Beyond
	// it, the server does not read from the client until half of it is handled. Default 256 KiB.
	ClientQueue int

	// MessageRate is the number of messages per second that a client may send on average, including
	// pings and pongs. It may send ten seconds' worth at once. Time in which the server does not
	// read from the client is added to the ten seconds, until the client has used it or was idle
	// for as long. A client that sends more is closed with 1008 `Rate limit exceeded`, once its
	// earlier messages are handled (Stats.RateLimited). Default 0: no limit.
	MessageRate int

	// ByteRate is MessageRate for the bytes of messages, after decompression. If MaxPayload is more
	// than ten seconds' worth, a client may send MaxPayload bytes at once instead. Bytes sent
	// shortly before count too. Default 0: no limit.
	ByteRate int

	// SendQueue is the number of bytes of messages that may wait for an event loop. Beyond it,
	// sends return ErrQueueFull. A message that is larger is accepted when the queue is empty.
	// Default 64 MiB.
	SendQueue int

	// BackpressureLimit is the number of bytes that may wait for a client that reads too slowly.
	// Beyond it, the client loses messages and is marked (Client.Backpressured, Stats.Dropped), or
	// is closed: see CloseOnBackpressure. Default 1 MiB.
	BackpressureLimit int

	// CloseOnBackpressure closes a client that exceeds BackpressureLimit with 1013, instead of
	// dropping messages for it. Default off.
	CloseOnBackpressure bool
}

// Upgrade decides about opening handshakes (RFC 6455 §4.2). Its functions may block for as long as
// a handshake may take. They are called at most once for a handshake, with the request of the
// client, which must not be used after they return. A panic is logged, counted in
// Stats.CallbackErrors, and answered with 500. A panic with http.ErrAbortHandler closes the
// connection without an answer.
type Upgrade struct {
	// Origins are the origins of web pages that may connect, in addition to those of the host that
	// the request was sent to. An origin is a scheme and a host, such as "https://example.com".
	// "https://*.example.com" is all hosts below example.com, and {"*"} any origin. A port belongs
	// to the host: a page of localhost:5173 has another origin than a server on localhost:8080.
	// Behind a proxy that changes the Host header, list the public origin. Requests without an
	// Origin header, which no browser sends, always pass. Default: no others.
	Origins []string

	// CheckOrigin decides instead of Origins: false rejects the handshake with 403. It is also
	// called for requests without an Origin header. Default: none.
	CheckOrigin func(r *http.Request) bool

	// ClientAddr returns the client's address if there is a proxy in front of the server. An
	// invalid Addr stands for the address of the connection's peer, which is also the default.
	ClientAddr func(r *http.Request) netip.Addr

	// Subprotocol selects one of the subprotocols that a client offers (RFC 6455 §4.2.2). It is
	// called only for clients that offer some; offered has them in their order of preference.
	// selected is one of offered, or empty for none, in which case browsers close the connection.
	// If ok is false, the handshake is rejected with 400. Authenticate receives the result as
	// AuthRequest.Subprotocol. Default: the first on offer.
	Subprotocol func(r *http.Request, offered []string) (selected string, ok bool)

	// FromRequest takes what the application needs from the request: a session cookie, a header, a
	// query parameter, a value that middleware has put into the request's context (with
	// Server.Serve there is no middleware). Authenticate receives the result as
	// AuthRequest.FromRequest. An error that wraps ErrRejected, or is a ClientError, rejects the
	// handshake with 401. Any other error, and a panic, reject it with 500. Browsers send cookies
	// with requests of any page, so a server that trusts cookies needs the default of Origins or a
	// list, and not {"*"}. Default: none.
	FromRequest func(r *http.Request) (any, error)
}

// Resume configures the tickets of clients that request the feature resume of the extension
// (docs/protocol.md §13). With a ticket, a client that has lost its connection continues its
// session on another one, to any server with the same keys: with the same id, user, metadata and
// rooms, and without a call of Authenticate. docs/security.md says what a ticket is worth.
//
// A ticket works once, on one of the servers that share a broker. The metadata is encoded with
// encoding/json for each ticket, and decoded when it is used, so M must survive that. It is encoded
// on another goroutine than the callbacks of the client, which must not change what it points to.
// The encoding must not block. A client whose metadata cannot be encoded, or whose ticket would
// exceed half of Limits.UnauthenticatedPayload, gets no ticket (Stats.Tickets.Failed).
type Resume struct {
	// Enabled makes the server issue and accept tickets.
	Enabled bool

	// Keys are the secrets for tickets, each of 32 random bytes or more, at most four. All servers
	// need the same. The first seals tickets, and all open them. To replace a key, add the new one
	// as the second on all servers, then make it the first, and remove the old one after Lifetime.
	// Default: a random key, so that only this server accepts its tickets, until it ends.
	Keys [][]byte

	// Lifetime is how long a ticket is valid. Connected clients get a new one after half of it, and
	// within a second when their rooms or their metadata have changed. All servers need the same.
	// From 1 s to 24 h. Default 2 min.
	Lifetime time.Duration

	// Grace hides short absences. When a client that holds a ticket has lost its connection, Left
	// and Disconnected are called for it after this time, and up to a quarter of it or a second
	// later. If it resumes its session before, on any server, they are called at once, and
	// Client.Moved is true. A client is not waited for if it closes the connection with 1000, or if
	// the server closes it because of Disconnect, an expiry or a violation of the protocol, or if
	// its tickets are revoked. The server waits for at most Limits.MaxConnections clients; beyond
	// that the callbacks of the oldest are called early (Stats.Tickets.Displaced).
	//
	// Shutdown waits for the clients that it closes to resume on other servers: for at most Grace,
	// and half of the time until the deadline of its context. Without other servers it does not
	// wait. From 1 s to Lifetime, or 0. Default 0: the callbacks are called at once.
	Grace time.Duration
}

// Encryption selects the clients whose messages are encrypted, in both directions (docs/protocol.md
// §10). It works inside TLS and does not replace it: docs/security.md says what it protects from.
type Encryption struct {
	// Mode selects the clients that are encrypted. Default EncryptionOff.
	Mode EncryptionMode

	// Only closes an encrypted client with 1008 if it sends any unencrypted message except
	// `heartbeat`. Default: such messages are handled.
	Only bool

	// BatchLimit is the number of clients for which the messages of one fan-out are encrypted at a
	// time. Messages that need no Transform are encrypted by at most as many goroutines as there
	// are processors. Default 10.
	BatchLimit int
}

// EncryptionMode selects the clients that are encrypted.
type EncryptionMode string

const (
	// EncryptionOff encrypts no client, except those for which Client.EnableEncryption is called.
	EncryptionOff EncryptionMode = ""

	// EncryptionOptional encrypts for a client whose `authenticate` has a `publicKey`. It rejects a
	// client whose key is invalid: the client has asked for encryption, and must not continue
	// without.
	EncryptionOptional EncryptionMode = "optional"

	// EncryptionRequired closes all clients without a key with 4004.
	EncryptionRequired EncryptionMode = "required"
)

// WithDefaults returns c with the defaults that New uses, for programs that show them.
func (c Config[A, M]) WithDefaults() Config[A, M] { return c.withDefaults() }

// withDefaults sets the fields that are zero.
func (c Config[A, M]) withDefaults() Config[A, M] {
	def(&c.Name, "hearth")
	def(&c.Path, protocol.DefaultPath)
	def(&c.Loops, 1)
	def(&c.Encryption.BatchLimit, protocol.DefaultEncryptedBatchLimit)
	if c.DefaultRooms == nil {
		c.DefaultRooms = protocol.DefaultRooms()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	t := &c.Timeouts
	def(&t.Auth, protocol.DefaultAuthTimeout)
	def(&t.Heartbeat, protocol.DefaultHeartbeatTimeout)
	def(&t.HeartbeatInterval, protocol.DefaultHeartbeatInterval)
	def(&t.Idle, protocol.DefaultIdleTimeout)
	def(&t.Close, 5*time.Second)
	def(&t.ExpiryNotice, time.Minute)
	def(&c.Resume.Lifetime, 2*time.Minute)
	l := &c.Limits
	def(&l.MaxConnections, 100_000)
	def(&l.MaxUnauthenticated, 10_000)
	def(&l.MaxUnauthenticatedPerAddr, 256)
	def(&l.MaxPayload, protocol.DefaultMaxPayload)
	def(&l.UnauthenticatedMessages, 16)
	def(&l.UnauthenticatedPayload, min(16<<10, l.MaxPayload))
	def(&l.MaxRooms, 1024)
	def(&l.RoomNames, 64<<10)
	def(&l.ClientQueue, 256<<10)
	def(&l.SendQueue, 64<<20)
	def(&l.BackpressureLimit, protocol.DefaultBackpressureLimit)
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate returns an error for the first field that is invalid, with the valid values.
func (c Config[A, M]) validate() error {
	if c.Authenticate == nil {
		return invalid("Authenticate", "is required: it decides which clients may connect")
	}
	if c.Path[0] != '/' {
		return invalid("Path", "must begin with a slash, as in \"/ws\", not be %q", c.Path)
	}
	for i, name := range c.DefaultRooms {
		if err := protocol.CheckRoom(name); err != nil {
			return invalid("DefaultRooms", "has %q: %w", name, err)
		}
		if slices.Contains(c.DefaultRooms[:i], name) {
			return invalid("DefaultRooms", "has %q twice", name)
		}
	}
	if c.Transport != TransportAuto && c.Transport != TransportEpoll && c.Transport != TransportNetConn {
		return invalid("Transport", "is %q; it can be empty, %q or %q", c.Transport, TransportEpoll, TransportNetConn)
	}
	if c.Loops < 1 || c.Loops > 256 {
		return invalid("Loops", "is %d; it can be 1 to 256", c.Loops)
	}
	switch c.Encryption.Mode {
	case EncryptionOptional, EncryptionRequired:
	case EncryptionOff:
		if c.Handshake != nil {
			return invalid("Handshake", "is set, and Encryption.Mode is off; it can be %q or %q", EncryptionOptional, EncryptionRequired)
		}
	default:
		return invalid("Encryption.Mode", "is %q; it can be empty, %q or %q", c.Encryption.Mode, EncryptionOptional, EncryptionRequired)
	}
	if c.Upgrade.CheckOrigin == nil {
		if _, err := origin.New(c.Upgrade.Origins); err != nil {
			return invalid("Upgrade.Origins", "has %w", err)
		}
	}
	return errors.Join(c.validateTimes(), c.validateSizes(), c.validateResume())
}

func (c Config[A, M]) validateResume() error {
	r := c.Resume
	if c.Resumed != nil && !r.Enabled {
		return invalid("Resumed", "is set, and Resume.Enabled is not")
	}
	if least := 2048; r.Enabled && c.Limits.UnauthenticatedPayload < least {
		return invalid("Limits.UnauthenticatedPayload", "is %d; tickets need %d or more", c.Limits.UnauthenticatedPayload, least)
	}
	if r.Lifetime < time.Second || r.Lifetime > 24*time.Hour {
		return invalid("Resume.Lifetime", "is %v; it can be 1s to 24h", r.Lifetime)
	}
	if r.Grace != 0 && !r.Enabled {
		return invalid("Resume.Grace", "is set, and Resume.Enabled is not")
	}
	if r.Grace != 0 && (r.Grace < time.Second || r.Grace > r.Lifetime) {
		return invalid("Resume.Grace", "is %v; it can be 0, or 1s to Resume.Lifetime (%v)", r.Grace, r.Lifetime)
	}
	if len(r.Keys) > ticket.MaxSecrets {
		return invalid("Resume.Keys", "has %d keys, more than %d", len(r.Keys), ticket.MaxSecrets)
	}
	for i, key := range r.Keys {
		if len(key) < ticket.MinSecret {
			return invalid("Resume.Keys", "has a key of %d bytes at %d; the shortest that is safe has %d random bytes", len(key), i, ticket.MinSecret)
		}
	}
	return nil
}

func (c Config[A, M]) validateTimes() error {
	for _, t := range []struct {
		name string
		d    time.Duration
		off  bool // Disabled is allowed
	}{
		{"Timeouts.Auth", c.Timeouts.Auth, false},
		{"Timeouts.Heartbeat", c.Timeouts.Heartbeat, false},
		{"Timeouts.HeartbeatInterval", c.Timeouts.HeartbeatInterval, true},
		{"Timeouts.Idle", c.Timeouts.Idle, true},
		{"Timeouts.Close", c.Timeouts.Close, false},
		{"Timeouts.Drain", c.Timeouts.Drain, false},
		{"Timeouts.ExpiryNotice", c.Timeouts.ExpiryNotice, true},
	} {
		if t.off && t.d == Disabled || t.name == "Timeouts.Drain" && t.d == 0 {
			continue
		}
		if t.d < time.Millisecond {
			return invalid(t.name, "is %v; the shortest that works is 1ms", t.d)
		}
	}
	return nil
}

func (c Config[A, M]) validateSizes() error {
	const most = 1 << 30
	l := c.Limits
	for _, s := range []struct {
		name     string
		n, least int
		off      bool // Unlimited is allowed
	}{
		{"Encryption.BatchLimit", c.Encryption.BatchLimit, 1, false},
		{"Limits.MaxPayload", l.MaxPayload, 1, false},
		{"Limits.BackpressureLimit", l.BackpressureLimit, 1024, false},
		{"Limits.MaxConnections", l.MaxConnections, 1, true},
		{"Limits.MaxUnauthenticated", l.MaxUnauthenticated, 1, true},
		{"Limits.MaxUnauthenticatedPerAddr", l.MaxUnauthenticatedPerAddr, 1, true},
		{"Limits.UnauthenticatedMessages", l.UnauthenticatedMessages, 1, false},
		{"Limits.UnauthenticatedPayload", l.UnauthenticatedPayload, 1, false},
		{"Limits.MaxRooms", l.MaxRooms, 1, true},
		{"Limits.RoomNames", l.RoomNames, 1, true},
		{"Limits.ClientQueue", l.ClientQueue, 1024, false},
		{"Limits.SendQueue", l.SendQueue, 64 << 10, false},
		{"Limits.MessageRate", l.MessageRate, 0, true},
		{"Limits.ByteRate", l.ByteRate, 0, true},
	} {
		if s.off && s.n == Unlimited {
			continue
		}
		if s.n < s.least || s.n > most {
			return invalid(s.name, "is %d; it can be %d to %d", s.n, s.least, most)
		}
	}
	if l.UnauthenticatedPayload > l.MaxPayload {
		return invalid("Limits.UnauthenticatedPayload", "is %d, more than Limits.MaxPayload, %d", l.UnauthenticatedPayload, l.MaxPayload)
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	return fmt.Errorf("hearth: Config."+field+" "+format, args...)
}

// node converts a valid Config. The types A and M are not used beyond it. The names of the settings
// stay the same; a limit or a timeout that is switched off becomes 0.
func (c Config[A, M]) node(calls session.Callbacks) node.Config {
	u := c.Upgrade
	check := u.CheckOrigin
	if check == nil {
		policy, _ := origin.New(u.Origins) // validate has seen that there is no error
		check = policy.Allows
	}
	for _, n := range []*int{
		&c.Limits.MaxConnections, &c.Limits.MaxUnauthenticated, &c.Limits.MaxUnauthenticatedPerAddr, &c.Limits.MaxRooms,
		&c.Limits.RoomNames, &c.Limits.MessageRate, &c.Limits.ByteRate,
	} {
		*n = max(0, *n)
	}
	for _, d := range []*time.Duration{&c.Timeouts.HeartbeatInterval, &c.Timeouts.Idle, &c.Timeouts.ExpiryNotice} {
		*d = max(0, *d)
	}
	fromRequest := u.FromRequest
	if fromRequest != nil {
		fromRequest = func(r *http.Request) (any, error) {
			value, err := u.FromRequest(r)
			return value, rejection(err)
		}
	}
	return node.Config{
		Name: c.Name, Path: c.Path, DefaultRooms: slices.Clone(c.DefaultRooms),
		Timeouts: session.Timeouts(c.Timeouts), Limits: session.Limits(c.Limits),
		Upgrade: node.Upgrade{
			CheckOrigin: check, CheckOriginMayBlock: u.CheckOrigin != nil, ClientAddr: u.ClientAddr, Subprotocol: u.Subprotocol,
			FromRequest: fromRequest,
		},
		Compression: c.Compression,
		Encryption: session.Encryption{
			Required: c.Encryption.Mode == EncryptionRequired, Only: c.Encryption.Only, BatchLimit: c.Encryption.BatchLimit,
		},
		Transport: node.Transport(c.Transport), Loops: c.Loops, Broker: c.Broker, Resync: c.Resync, Resume: node.Resume(c.Resume), BrokerLost: c.BrokerLost,
		Log: c.Logger.With("server", c.Name), Calls: calls,
	}
}
