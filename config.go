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
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// Transport says what serves the connections.
type Transport string

const (
	// TransportAuto serves plain TCP connections on Linux with event loops, and all others with a goroutine each.
	TransportAuto Transport = ""

	// TransportEpoll is the same, but New fails on systems without epoll.
	TransportEpoll Transport = "epoll"

	// TransportNetConn serves every connection with a goroutine, as net/http does.
	TransportNetConn Transport = "netconn"
)

// EncryptionMode says which clients have their messages encrypted (protocol §10).
type EncryptionMode string

const (
	// EncryptionOff encrypts for nobody, but for clients that Client.EnableEncryption is called for.
	EncryptionOff EncryptionMode = ""
	// EncryptionOptional encrypts for a client whose `authenticate` carries a `publicKey`. One that carries what is no key
	// is refused: it has asked for encryption, and must not go without.
	EncryptionOptional EncryptionMode = "optional"
	// EncryptionRequired closes all others with 4004.
	EncryptionRequired EncryptionMode = "required"
)

// Disabled switches off what a zero duration would leave at its default: Config.HeartbeatInterval, Config.IdleTimeout.
const Disabled time.Duration = -1

// Unlimited lifts a bound whose zero would be its default: those of Limits that say so.
const Unlimited = -1

// Config says what a Server is and does. Only Authenticate is required. A Config is copied by New and may be used for several.
//
// A is what the data of a client's `authenticate` decodes into (encoding/json), M the metadata that the application
// keeps with each client. Both may be any type.
type Config[A, M any] struct {
	// Identifier names the server in its logs, and to other servers (NodeInfo.Name). Default "hearth".
	Identifier string

	// Path is the path on which Serve takes handshakes. It has no effect on ServeHTTP, which serves wherever it is mounted.
	// Default "/ws".
	Path string

	// DefaultRooms are joined by every client when it is authenticated. Default ws-default and ws-notification; an
	// empty list that is not nil is none.
	DefaultRooms []string

	// AuthTimeout is how long a client may take to send `authenticate`; the callback gets three times as long (protocol
	// §4). Default 5 s.
	AuthTimeout time.Duration

	// HeartbeatInterval is the time between two looks for clients that have sent no message for HeartbeatTimeout; they are
	// closed with 4002. Pongs are no messages: clients without anything to say send `heartbeat`. Defaults 30 s and 90 s.
	// HeartbeatInterval Disabled: never.
	HeartbeatInterval time.Duration
	HeartbeatTimeout  time.Duration

	// IdleTimeout is how long nothing at all may come from a client before it is cut off. A client that has been silent for
	// half of it gets a ping, which every WebSocket client answers by itself, and another at three quarters. Pings may come
	// up to a sixteenth of IdleTimeout early. Default 60 s; Disabled: no pings.
	IdleTimeout time.Duration

	// CloseTimeout is how long a client may take to answer a close frame, and to read what was sent before it. Default 5 s.
	CloseTimeout time.Duration

	// MaxPayload is the size of the largest message that a client may send, in bytes after decompression. Default 131072.
	MaxPayload int

	// BackpressureLimit is how many bytes may wait for a client that takes them too slowly; a client with more
	// waiting loses messages (and is marked, see Client.Backpressured), or is closed with 1013 if CloseOnBackpressure is set.
	// Default 1 MiB.
	BackpressureLimit   int
	CloseOnBackpressure bool

	// Compression accepts permessage-deflate (RFC 7692) from clients that offer it. Default off.
	Compression bool

	// Encryption turns on the encryption of each client's messages, by a handshake that needs no code of yours: a key pair
	// for each connection, AES-256-GCM. It goes inside TLS and does not replace it: docs/security.md. Default
	// EncryptionOff.
	Encryption EncryptionMode

	// EncryptedOnly closes an encrypted client with 1008 that sends in clear anything but `heartbeat`. Default: what it sends
	// in clear is handled as ever.
	EncryptedOnly bool

	// EncryptedBatchLimit is for how many clients the messages of one fan-out are encrypted at a time. Messages that only
	// have to be sealed are sealed by as many goroutines as there are processors, at most. Default 10.
	EncryptedBatchLimit int

	// Transport and Loops choose the engine. Default TransportAuto, one event loop: enough for most; more deliver more
	// in all, each a little later.
	Transport Transport
	Loops     int

	// Origins are the origins of web pages that may connect, beside those of the host that the request was sent to: a
	// scheme and a host, such as "https://example.com". "https://*.example.com" is all hosts below example.com, {"*"} any
	// origin. Default: none beside the own host. Requests without an Origin header, which are not a browser's, always
	// pass. CheckOrigin decides instead, if it is set. It may block, for as long as a handshake may take.
	Origins     []string
	CheckOrigin func(r *http.Request) bool

	// ClientAddr tells a client's address where a proxy stands before the server. Default: the connection's peer. An
	// invalid Addr means the same. It may block.
	ClientAddr func(r *http.Request) netip.Addr

	// Subprotocol selects one of the subprotocols that a client offers (RFC 6455 §4.2.2). It is called only for clients
	// that offer some, in their order of preference. selected is one of offered, or empty for none, upon which browsers
	// give up the connection. ok false refuses the handshake with 400. Default: the first that is offered. It may block.
	// AuthRequest.Subprotocol tells Authenticate which it was.
	Subprotocol func(r *http.Request, offered []string) (selected string, ok bool)

	// Limits protect the server from its clients.
	Limits Limits

	// Broker connects the server to others. The server owns it: Start starts it, Shutdown closes it. Default: none, one
	// process.
	Broker broker.Broker

	// Resync sends the event `resync` to clients that may have missed messages of other nodes, because the broker lost
	// them or because Limits.SendQueue had no room, so that they can load again what they show (protocol §9). At most
	// once a second. Default off.
	Resync bool

	// Logger receives the server's log lines. At slog.LevelInfo and above, lines with the same message are written at most
	// once a second; the attribute "suppressed" counts those that were left out. Default: no logging.
	Logger *slog.Logger

	// The callbacks. All may block: none runs on an event loop, those of one client run one after the other
	// (Authenticate excepted, see there), those of different clients concurrently. An error or a panic of one is
	// logged and ends nothing else.
	//
	// The context of Authenticate, Handshake and ValidateRooms ends with the client; that of the others does not, since what a
	// client sent before it left is still to be handled. All contexts end when a Shutdown has waited as long as it was
	// told to.

	// Authenticate decides about a client by what it sent. An error that wraps ErrRejected closes it with 4003
	// `Authentication failed`; any other error, and a panic, with 4003 `Authentication error`. Required.
	Authenticate func(ctx context.Context, r AuthRequest[A]) (Identity[M], error)

	// Handshake takes the place of the built-in one, if Encryption is not EncryptionOff: it agrees on keys with a client that
	// Authenticate has accepted, within the same time and by the same data. No keys and no error mean that the client gets no
	// encryption, which EncryptionRequired refuses. An error, and a panic, close the client with 4004.
	Handshake func(ctx context.Context, r HandshakeRequest[M]) (*seal.Keys, error)

	// Transform sees every message that goes to an encrypted client, the protocol's own included but for `connected`, and
	// returns what takes its place, or nil for the message itself. If the client has a cipher, that seals what comes of it;
	// otherwise it goes out as it is: then to encrypt is Transform's. With an error, and a panic, the message is lost for
	// that client. It is called for one message of a client after the other, for different clients concurrently, beside the
	// other callbacks; the event's data are not to be changed.
	Transform func(ctx context.Context, c *Client[M], m Message) (*Message, error)

	// ValidateRooms returns those of the rooms, whose names are valid, that the client may join. Without it no client
	// can join a room by itself.
	ValidateRooms func(ctx context.Context, c *Client[M], rooms []string) ([]string, error)

	// Connected is called for a client that has been authenticated, after `connected` was sent to it, before any Message.
	Connected func(ctx context.Context, c *Client[M])

	// Message is called for each message of an authenticated client that is not the protocol's own, in their order.
	Message func(ctx context.Context, c *Client[M], m Message) error

	// Disconnected is called for each client that was Connected, after its last Message, with the close code and
	// reason: 1006 if the connection just broke, 1005 if the client gave none. It is in no room any more; Client.Rooms tells those that it
	// was in.
	Disconnected func(ctx context.Context, c *Client[M], code int, reason string)

	// BrokerLost is called when messages of other nodes may be missing here: the broker lost them, or Limits.SendQueue had
	// no room for them (then the Cause is ErrQueueFull). One call at a time; losses that are reported during a call are
	// merged into the next, so it may take its time. Stats.BrokerLosses counts each.
	BrokerLost func(ctx context.Context, l broker.Loss)
}

// Limits protect a server from its clients. A zero field takes its default.
type Limits struct {
	// MaxConnections is how many sockets of clients may be open. With one more, the client that has waited longest without
	// sending `authenticate` is closed with 4001. If there is none, the handshake is answered with 503. Default 100,000;
	// Unlimited for none.
	MaxConnections int

	// MaxUnauthenticated is how many clients may be connected without having authenticated, MaxUnauthenticatedPerAddr how
	// many of them from one address (IPv6: one /64). With one more, the one that has waited longest is closed with 4001:
	// one that has not sent `authenticate`, if there is any. A quarter of either, and 16, may keep their sockets open for
	// CloseTimeout after they were closed. Defaults 10,000 and 256; Unlimited for none. Behind a proxy all clients have one
	// address, unless Config.ClientAddr tells them apart. With Serve, MaxUnauthenticatedPerAddr and 16 more connections of
	// one address may wait for a plain HTTP request, too.
	MaxUnauthenticated        int
	MaxUnauthenticatedPerAddr int

	// UnauthenticatedMessages is how many messages a client may send before it is authenticated, UnauthenticatedPayload
	// how many bytes each. One more closes it with 1008, one larger with 1009. Defaults 16 and 16384.
	UnauthenticatedMessages int
	UnauthenticatedPayload  int

	// MaxRooms is how many rooms one client may be in, besides its own. Default 1024; Unlimited for none.
	MaxRooms int

	// RoomNames is how many bytes the names of those rooms may have in all. A name may take 768 bytes, and is kept several
	// times: here, for the broker, and by the broker. Default 64 KiB, 64 bytes for each of 1024 rooms; Unlimited for none.
	RoomNames int

	// ClientQueue is how many bytes of a client's messages may wait for callbacks; past it the client is not read from
	// until half of that is done. Default 256 KiB.
	ClientQueue int

	// MessageRate is how many messages a client may send in a second, pings and pongs included, and
	// ByteRate how many bytes of messages, inflated, on average. Ten seconds' worth may come at once,
	// and one message of MaxPayload in any case. A client that sends more is closed with 1008 and the
	// reason "Rate limit exceeded", once its messages from before are handled (Stats.RateLimited). Time in
	// which the server does not read from the client counts for it. Default 0: any number.
	MessageRate int
	ByteRate    int

	// SendQueue is how many bytes of messages may wait for an event loop; past it sends return ErrQueueFull. A
	// larger message waits alone. Default 64 MiB.
	SendQueue int
}

// WithDefaults is c with its defaults filled in, as New does: for programs that show them.
func (c Config[A, M]) WithDefaults() Config[A, M] { return c.withDefaults() }

// withDefaults fills in what is not set.
func (c Config[A, M]) withDefaults() Config[A, M] {
	def(&c.Identifier, "hearth")
	def(&c.Path, protocol.DefaultPath)
	def(&c.AuthTimeout, protocol.DefaultAuthTimeout)
	def(&c.HeartbeatInterval, protocol.DefaultHeartbeatInterval)
	def(&c.HeartbeatTimeout, protocol.DefaultHeartbeatTimeout)
	def(&c.IdleTimeout, protocol.DefaultIdleTimeout)
	def(&c.CloseTimeout, 5*time.Second)
	def(&c.MaxPayload, protocol.DefaultMaxPayload)
	def(&c.BackpressureLimit, protocol.DefaultBackpressureLimit)
	def(&c.Loops, 1)
	def(&c.EncryptedBatchLimit, protocol.DefaultEncryptedBatchLimit)
	if c.DefaultRooms == nil {
		c.DefaultRooms = protocol.DefaultRooms()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	l := &c.Limits
	def(&l.MaxConnections, 100_000)
	def(&l.MaxUnauthenticated, 10_000)
	def(&l.MaxUnauthenticatedPerAddr, 256)
	def(&l.UnauthenticatedMessages, 16)
	def(&l.UnauthenticatedPayload, min(16<<10, c.MaxPayload))
	def(&l.MaxRooms, 1024)
	def(&l.RoomNames, 64<<10)
	def(&l.ClientQueue, 256<<10)
	def(&l.SendQueue, 64<<20)
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate names the first field that can't work, and what would.
func (c Config[A, M]) validate() error {
	if c.Authenticate == nil {
		return invalid("Authenticate", "is required: who may connect?")
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
	switch c.Encryption {
	case EncryptionOptional, EncryptionRequired:
	case EncryptionOff:
		if c.Handshake != nil {
			return invalid("Handshake", "is set, and Encryption is off; it can be %q or %q", EncryptionOptional, EncryptionRequired)
		}
	default:
		return invalid("Encryption", "is %q; it can be empty, %q or %q", c.Encryption, EncryptionOptional, EncryptionRequired)
	}
	if c.CheckOrigin == nil {
		if _, err := origin.New(c.Origins); err != nil {
			return invalid("Origins", "has %w", err)
		}
	}
	return errors.Join(c.validateTimes(), c.validateSizes())
}

func (c Config[A, M]) validateTimes() error {
	for _, t := range []struct {
		name string
		d    time.Duration
		off  bool // Disabled is allowed
	}{
		{"AuthTimeout", c.AuthTimeout, false},
		{"HeartbeatInterval", c.HeartbeatInterval, true},
		{"HeartbeatTimeout", c.HeartbeatTimeout, false},
		{"IdleTimeout", c.IdleTimeout, true},
		{"CloseTimeout", c.CloseTimeout, false},
	} {
		if t.off && t.d == Disabled {
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
		{"MaxPayload", c.MaxPayload, 1, false},
		{"BackpressureLimit", c.BackpressureLimit, 1024, false},
		{"EncryptedBatchLimit", c.EncryptedBatchLimit, 1, false},
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
	if l.UnauthenticatedPayload > c.MaxPayload {
		return invalid("Limits.UnauthenticatedPayload", "is %d, more than MaxPayload, %d", l.UnauthenticatedPayload, c.MaxPayload)
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	return fmt.Errorf("hearth: Config."+field+" "+format, args...)
}

// node makes the untyped configuration of a valid one.
func (c Config[A, M]) node(calls session.Callbacks) node.Config {
	check := c.CheckOrigin
	if check == nil {
		policy, _ := origin.New(c.Origins) // validate has seen that there is no error
		check = policy.Allows
	}
	l := c.Limits
	return node.Config{
		Name: c.Identifier, Path: c.Path, Transport: node.Transport(c.Transport), Loops: c.Loops, Backpressure: c.BackpressureLimit, CloseTimeout: c.CloseTimeout,
		Compression: c.Compression, CheckOrigin: check, OriginMayBlock: c.CheckOrigin != nil, ClientAddr: c.ClientAddr,
		Subprotocol:    c.Subprotocol,
		MaxConnections: max(0, l.MaxConnections), MaxRooms: max(0, l.MaxRooms), RoomNames: max(0, l.RoomNames), SendQueue: l.SendQueue,
		Lobby: session.LobbyConfig{
			Timeout: c.AuthTimeout, Max: max(0, l.MaxUnauthenticated), PerAddr: max(0, l.MaxUnauthenticatedPerAddr),
		},
		Limits: session.Limits{
			Payload: c.MaxPayload, Queue: l.ClientQueue,
			UnauthenticatedPayload: l.UnauthenticatedPayload, UnauthenticatedCount: l.UnauthenticatedMessages,
			MessageRate: max(0, l.MessageRate), ByteRate: max(0, l.ByteRate),
		},
		HeartbeatInterval: max(0, c.HeartbeatInterval), HeartbeatTimeout: c.HeartbeatTimeout, IdleTimeout: max(0, c.IdleTimeout),
		EncryptionRequired: c.Encryption == EncryptionRequired, EncryptedOnly: c.EncryptedOnly, EncryptedBatch: c.EncryptedBatchLimit,
		DefaultRooms: slices.Clone(c.DefaultRooms), CloseSlow: c.CloseOnBackpressure, Calls: calls, Broker: c.Broker,
		BrokerLost: c.BrokerLost, Resync: c.Resync,
		Log: c.Logger.With("server", c.Identifier),
	}
}
