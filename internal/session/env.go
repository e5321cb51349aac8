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
	"github.com/hearthws/hearth/internal/ticket"
	"github.com/hearthws/hearth/internal/workpool"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// ErrRejected is the error, wrapped or not, with which the authenticate callback rejects
// credentials.
var ErrRejected = errors.New("credentials rejected")

// ErrUnhandled is the error of the message callback for an event that the application does not
// handle.
var ErrUnhandled = errors.New("the event has no handler")

// ErrAnswered is the error of the validator of rooms if it has answered the join with an error.
var ErrAnswered = errors.New("the application has answered with an error")

// Callbacks are the application's callbacks, without its types. All of them may block.
// Authenticate is required; the others may be nil.
type Callbacks struct {
	// Authenticate, Handshake, ValidateRooms and Restore get a context that ends with the client.

	Authenticate func(ctx context.Context, s *Session, r AuthRequest) (Identity, error)
	// Handshake agrees on keys with a client that was accepted; data is that of `authenticate`.
	// If it returns nil without an error, the client is not encrypted.
	Handshake func(ctx context.Context, s *Session, id Identity, data []byte) (*seal.Keys, error)
	// ValidateRooms returns the rooms that the client may join. id is that of the join, nil for
	// none. The client joins no room if ValidateRooms returns an error. ErrAnswered is not logged,
	// and the client gets no other answer.
	ValidateRooms func(ctx context.Context, s *Session, rooms []string, id json.RawMessage) ([]string, error)

	// Restore returns the identity of a client that resumes its session. It returns an error that
	// wraps ErrRejected if the application rejects the ticket. Required with Env.Tickets.
	Restore func(ctx context.Context, s *Session, t *ticket.Ticket) (Identity, error)
	// EncodeValue returns the metadata of an authenticated client for its ticket. It must not
	// block.
	EncodeValue func(s *Session) ([]byte, error)

	// The others get a context that outlives the client, since messages that a client sent before
	// it disconnected are still handled.

	// Joined and Left are called for each change of the client's rooms except its own, in the
	// order of the changes, by the worker of the session.
	Joined func(ctx context.Context, s *Session, room string)
	Left   func(ctx context.Context, s *Session, room string)
	// Transform returns what replaces a message to an encrypted client, nil for the message
	// itself. It is called for one message of a client at a time, concurrently with the other
	// callbacks.
	Transform func(ctx context.Context, s *Session, e protocol.Envelope) ([]byte, error)
	Connected func(ctx context.Context, s *Session)
	// Message handles a message. r is nil if the client does not expect an answer. Otherwise the
	// session answers when Message has returned, unless the request has been answered, or the error
	// is ErrReplyLater.
	Message      func(ctx context.Context, s *Session, e protocol.Envelope, r *Request) error
	Disconnected func(ctx context.Context, s *Session, code int, reason string)
}

// AuthRequest is what a client authenticates with.
type AuthRequest struct {
	Data        []byte // of `authenticate`
	Subprotocol string // that was agreed on in the opening handshake; empty for none
	FromRequest any    // what the application took from the request of the opening handshake

	// Again means that the client is authenticated, as User. The request then has no Subprotocol
	// and no FromRequest, which are not kept.
	Again bool
	User  string
}

// Identity is the result of an accepted authentication.
type Identity struct {
	User  string // empty for an anonymous client
	Value any    // of the application; Session.Value returns it from then on
	// Expires is when the credentials expire, by the wall clock; zero: never.
	Expires time.Time
	// Replace, which may be nil, replaces what the application keeps with the client, in place of
	// Value, if the client was authenticated. It is called with a lock held and must not block.
	Replace func()
}

// Limits are those of hearth.Limits, which documents them; 0 means no limit.
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

// Timeouts are those of hearth.Timeouts, which documents them; 0 means none.
type Timeouts struct {
	Auth              time.Duration
	Heartbeat         time.Duration
	HeartbeatInterval time.Duration
	Idle              time.Duration
	Close             time.Duration
	Drain             time.Duration
	ExpiryNotice      time.Duration
}

// Encryption says which clients are encrypted; see hearth.Encryption.
type Encryption struct {
	Required   bool
	Only       bool
	BatchLimit int
}

// Env is what all sessions of a node share. It is set before the first session, and then read-only,
// except for Abandoned, Expirations, inflating, questions and Running, which may be used concurrently.
type Env struct {
	Base         context.Context // of the callbacks; cancelled when a shutdown stops waiting
	Hub          *hub.Hub
	Pool         *workpool.Pool
	Lobby        *Lobby
	Calls        Callbacks
	Interest     Interest     // nil if the broker delivers all channels
	History      History      // nil if no room has history
	Clock        *clock.Clock // for timeouts
	Log          *slog.Logger
	Stats        *Stats
	Limits       Limits
	Timeouts     Timeouts
	Encryption   Encryption
	DefaultRooms []string
	Tickets      *Tickets // nil if clients cannot resume

	Abandoned   atomic.Bool // set when a shutdown stops waiting: then messages in inboxes are dropped
	Expirations Expirations
	inflating   inflateLimiter
	questions   questions

	// Running counts the sessions that have not ended and the authentications that run. A shutdown
	// waits for it.
	Running sync.WaitGroup
}

// Stats are counters of all sessions. Each counts events since the start, except for the gauges.
type Stats struct {
	Connections       atomic.Int64 // gauge: sockets that have a session
	Opened            atomic.Uint64
	HandshakeRefused  atomic.Uint64
	Authenticated     atomic.Uint64
	AuthRejected      atomic.Uint64
	AuthFailed        atomic.Uint64 // the callback failed
	AuthTimeouts      atomic.Uint64
	Reauthenticated   atomic.Uint64
	ReauthRejected    atomic.Uint64
	Expired           atomic.Uint64
	AnswersLate       atomic.Uint64 // or to no question
	KeysAgreed        atomic.Uint64 // clients that are encrypted since their handshake
	KeysRejected      atomic.Uint64 // encryption handshakes
	KeysFailed        atomic.Uint64 // the callback failed
	DecryptFailed     atomic.Uint64 // clients that sent a message that did not decrypt
	PlaintextRejected atomic.Uint64 // clients that must encrypt messages, and did not
	Evicted           atomic.Uint64 // unauthenticated clients that made room for newer ones
	PreAuthFlood      atomic.Uint64 // unauthenticated clients that sent too many messages
	HeartbeatTimeouts atomic.Uint64
	IdleTimeouts      atomic.Uint64
	SlowClosed        atomic.Uint64
	MessagesIn        atomic.Uint64
	BadMessages       atomic.Uint64 // not JSON, or no event
	ProtocolErrors    atomic.Uint64 // closed with 1002, 1007 or 1009
	RoomsRejected     atomic.Uint64
	CallbackErrors    atomic.Uint64 // a callback returned an error or panicked
	Interrupted       atomic.Uint64 // clients that were taken out of a room because messages are missing
	Unpositioned      atomic.Uint64 // messages to rooms with history that came without a position
	DeliveriesLost    atomic.Uint64 // of other nodes, beyond Limits.SendQueue; in BrokerLost too
	BrokerLosses      atomic.Uint64 // times that the broker may have missed something
	BrokerLost        atomic.Uint64 // messages that the broker is known to have missed
	Resyncs           atomic.Uint64 // clients that were sent `resync`
	MessagesUnhandled atomic.Uint64 // there is no message callback, or the event is reserved

	Tickets TicketStats

	RateLimited       atomic.Uint64 // clients that exceeded their rates
	MessagesDiscarded atomic.Uint64 // received, and not handled because the session ended
}
