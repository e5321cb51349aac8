package session

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/workpool"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// ErrRejected is what the authenticate callback returns, wrapped or not, for credentials that are not good.
var ErrRejected = errors.New("credentials rejected")

// ErrUnhandled is what the message callback returns for an event that the application does not handle.
var ErrUnhandled = errors.New("the event has no handler")

// Callbacks are the application's, in the form that carries no types of its own. All may block. Authenticate is
// required; each other may be nil.
type Callbacks struct {
	// Authenticate, Handshake and ValidateRooms get a context that ends with the client.
	Authenticate func(ctx context.Context, s *Session, data []byte) (Identity, error)
	// Handshake agrees on keys with a client that has been accepted; nil without an error: it gets no encryption.
	Handshake     func(ctx context.Context, s *Session, id Identity, data []byte) (*seal.Keys, error)
	ValidateRooms func(ctx context.Context, s *Session, rooms []string, id json.RawMessage) ([]string, error) // id: of the join; nil for none
	// The others get one that outlives it: what a client sent before it went away is still to be handled.

	// Joined and Left are called for every change of the client's rooms but its own, in the order
	// of the changes, by the worker of the session.
	Joined func(ctx context.Context, s *Session, room string)
	Left   func(ctx context.Context, s *Session, room string)

	// Transform returns what takes the place of a message to an encrypted client, nil for the message itself. It is called
	// for one message of a client after the other, beside the other callbacks.
	Transform    func(ctx context.Context, s *Session, e protocol.Envelope) ([]byte, error)
	Connected    func(ctx context.Context, s *Session)
	Message      func(ctx context.Context, s *Session, e protocol.Envelope) error
	Disconnected func(ctx context.Context, s *Session, code int, reason string)
}

// Identity is what an accepted client is.
type Identity struct {
	User  string // empty: anonymous
	Value any    // the application's; Session.Value from then on
}

// Limits are those of hearth.Limits, where they are documented, with 0 for no limit.
type Limits struct {
	MaxConnections            int
	MaxUnauthenticated        int
	MaxUnauthenticatedPerAddr int
	UnauthenticatedMessages   int
	UnauthenticatedPayload    int
	MaxPayload                int
	MaxRooms                  int
	RoomNames                 int
	ClientQueue               int
	MessageRate               int
	ByteRate                  int
	SendQueue                 int
	BackpressureLimit         int
	CloseOnBackpressure       bool
}

// Timeouts are those of hearth.Timeouts, where they are documented, with 0 for none.
type Timeouts struct {
	Auth              time.Duration
	Heartbeat         time.Duration
	HeartbeatInterval time.Duration
	Idle              time.Duration
	Close             time.Duration
}

// Encryption says which clients are encrypted: see hearth.Encryption.
type Encryption struct {
	Required   bool
	Only       bool
	BatchLimit int
}

// Env is what all sessions of a node share. Set before the first session, then read-only.
type Env struct {
	Base         context.Context // of the callbacks; cancelled when a shutdown has waited long enough
	Hub          *hub.Hub
	Pool         *workpool.Pool
	Lobby        *Lobby
	Calls        Callbacks
	Interest     Interest     // nil: the broker delivers everything
	Clock        *clock.Clock // for everything that times out
	Log          *slog.Logger
	Stats        *Stats
	Limits       Limits
	Timeouts     Timeouts
	Encryption   Encryption
	DefaultRooms []string

	Abandoned atomic.Bool // set when a shutdown has waited long enough: what waits is dropped
	inflating inflateLimiter

	// Running counts the sessions that have not ended and the authentications under way: a shutdown waits for it.
	Running sync.WaitGroup
}

// Stats are counters of all sessions; each is the number of times that something has happened, but for the gauges.
type Stats struct {
	Connections       atomic.Int64 // gauge: sockets that have a session
	Opened            atomic.Uint64
	Refused           atomic.Uint64 // handshakes
	Authenticated     atomic.Uint64
	AuthRejected      atomic.Uint64
	AuthFailed        atomic.Uint64 // the callback failed
	AuthTimeouts      atomic.Uint64
	KeysAgreed        atomic.Uint64 // clients that are encrypted since their handshake
	KeysRejected      atomic.Uint64 // handshakes
	KeysFailed        atomic.Uint64 // the callback failed
	DecryptFailed     atomic.Uint64 // clients whose message did not decrypt
	PlaintextRejected atomic.Uint64 // encrypted clients that sent in clear what they may not
	Evicted           atomic.Uint64 // unauthenticated clients that made room for newer ones
	PreAuthFlood      atomic.Uint64 // unauthenticated clients that sent too much
	HeartbeatTimeouts atomic.Uint64
	IdleTimeouts      atomic.Uint64
	SlowClosed        atomic.Uint64
	MessagesIn        atomic.Uint64
	BadMessages       atomic.Uint64 // not JSON, or no event
	ProtocolErrors    atomic.Uint64 // closed with 1002, 1007 or 1009
	RoomsRejected     atomic.Uint64
	CallbackErrors    atomic.Uint64 // a callback returned an error or panicked
	DeliveriesLost    atomic.Uint64 // messages of other nodes that the send queue had no room for; BrokerLost counts them, too
	BrokerLosses      atomic.Uint64 // times that the broker may have missed something
	BrokerLost        atomic.Uint64 // messages that it is known to have missed
	Resyncs           atomic.Uint64 // clients that were told so
	MessagesUnhandled atomic.Uint64 // there is no message callback, or the event is the system's

	RateLimited       atomic.Uint64 // clients that sent more than their rates allow
	MessagesDiscarded atomic.Uint64 // received, and not handled because the session ended
}
