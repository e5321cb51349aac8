// Package broker carries messages between the nodes of one deployment, so that a message published
// on one node, or by an emitter, reaches clients on all others.
//
// A Broker is one node's connection. Delivery is at most once. Losses are bounded, counted, and
// reported to the node that missed messages (Receiver.Lost). The implementations are in the folders
// below; each of them passes the test suite brokertest.
package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hearthws/hearth/protocol"
)

var (
	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("broker: closed")

	// ErrDown is returned, wrapped, while there is no connection to the other nodes. Hold returns
	// it, but its channels count as held and are subscribed to once there is a connection.
	// PublishAll returns it, too.
	ErrDown = errors.New("broker: not connected")

	// ErrQueueFull is returned by Publish when the queue of outgoing messages is full. The message
	// is not published, and is counted in Health.Dropped.
	ErrQueueFull = errors.New("broker: queue full")

	// ErrNotStarted is returned by Hold before Start.
	ErrNotStarted = errors.New("broker: not started")

	// ErrStarted is returned by a second Start.
	ErrStarted = errors.New("broker: already started")
)

// A Publisher sends messages to the nodes. Emitters need nothing else.
type Publisher interface {
	// Publish sends m to all nodes except m.ServerID. It adds m to a bounded queue and returns; a
	// nil error does not mean that a node has received m. Messages that one goroutine publishes
	// arrive in order at each node. There is no order between the messages of different goroutines.
	//
	// Publish never blocks. It returns ErrQueueFull if the queue is full, ErrClosed if the
	// publisher is closed, the error of protocol.Message.Check if m fails it, and the context's
	// error if ctx is already done. After an error nothing has been published. Cancelling ctx later
	// has no effect. The caller must ensure that m.Data is valid JSON.
	//
	// m.Data and m.Exclude must not change afterwards, because receivers in the same process may
	// share them. Safe for concurrent use.
	Publish(ctx context.Context, m protocol.Message) error
}

// A Confirmer is a Publisher that can confirm that messages have been sent. Emitters use it if the
// broker implements it.
type Confirmer interface {
	Publisher

	// PublishAll sends ms in order. It waits until each has been accepted by the underlying service
	// (such as a Redis server) or has failed. It returns nil if all were accepted. Otherwise it
	// returns one error for each of ms, nil for the accepted ones. If the connection broke after a
	// message was sent, it is unknown whether the message was accepted. If the queue is full,
	// PublishAll waits for space. It returns early when ctx is done, with the context's error for
	// each message that is not known to be accepted.
	//
	// m.Check, m.Data, ErrClosed and concurrent use are as for Publish. Concurrent calls share one
	// pipeline.
	PublishAll(ctx context.Context, ms []protocol.Message) []error
}

// A Broker is a node's connection to the other nodes. Its methods are safe for concurrent use.
type Broker interface {
	Publisher

	// Start begins to deliver to r. It returns once broadcasts are delivered and Hold may be
	// called. Messages published earlier are not delivered. It waits for the network until ctx is
	// done, and may be called again after an error. Afterwards ctx has no effect: the broker works
	// until Close. The error is ErrStarted if the broker is running, ErrClosed after Close.
	Start(ctx context.Context, r Receiver) error

	// Hold subscribes to the channels of rooms, clients and users with members on this node
	// (protocol.RoomChannel etc.). After it has returned nil, every message published to one of
	// them on any node is delivered until Release. Channels are counted: a channel that was held
	// twice must be released twice. Broadcasts need no Hold.
	//
	// It waits for the network until ctx is done, or less. It does not wait if the broker knows
	// that it is down (ErrDown). After an error the channels are held anyway and must be released:
	// the broker subscribes to them as soon as possible, and Receiver.Lost then reports what may
	// have been missed. The exceptions are ErrNotStarted, before Start, and ErrClosed; after these
	// nothing is held.
	Hold(ctx context.Context, channels ...string) error

	// Release undoes one Hold of each channel, and ignores channels that are not held. It never
	// blocks: delivery ends some time later.
	Release(channels ...string)

	// Health returns the state of the broker as far as it is known, without a network request. It
	// never blocks.
	Health() Health

	// Close ends delivery. It waits for a call of the receiver that is running, and for every
	// goroutine of the broker. Queued outgoing messages are sent if that is possible without
	// waiting. A second Close does nothing. It must not be called from a function of the Receiver.
	Close() error
}

// A Receiver holds a node's functions for incoming messages. They are called one at a time, in
// order of arrival, on a goroutine of the broker. They must not wait for other nodes or clients:
// meanwhile a bounded queue fills, and messages that no longer fit are lost, which is reported.
// They may call Publish, Hold with a context that ends, Release and Health.
type Receiver struct {
	// ServerID is the node's id. Messages with this id are not delivered to this receiver.
	// Required.
	ServerID string

	// Deliver receives each message. The message may be for a channel that is not held, or no
	// longer held, because brokers may deliver more than was requested. The memory of m's strings
	// and slices belongs to the broker. It must not be changed, and is valid until Deliver returns,
	// so copy what you keep (protocol.Message.Clone). Required.
	Deliver func(m protocol.Message)

	// DeliverAll receives messages that arrived together, at least one, in order. It saves work for
	// the receiver. A broker calls it instead of Deliver for any or all of its messages. The rules
	// for m hold for each of ms, and for the slice. Optional.
	DeliverAll func(ms []protocol.Message)

	// Lost is called, in order with the deliveries, when messages may be missing. Optional.
	Lost func(l Loss)
}

// Check returns an error if a required field of r is missing.
func (r Receiver) Check() error {
	if r.ServerID == "" || r.ServerID == protocol.EmitterID {
		return errors.New("broker: receiver without a server id of its own")
	}
	if r.Deliver == nil {
		return errors.New("broker: receiver without Deliver")
	}
	return nil
}

// A Loss is a gap in what was delivered.
type Loss struct {
	// Messages is how many were lost. 0 means that the number is unknown, and may be none.
	Messages uint64

	// Channels are the affected channels; nil if any channel may be affected.
	Channels []string

	// Since and Until bound the time in which the messages were published, by this node's clock.
	Since, Until time.Time

	// Cause is the reason of the loss. Never nil.
	Cause error
}

// A State is the state of a broker.
type State uint8

// The states of a broker.
const (
	StateIdle State = iota // not started, or closed
	StateOK                // everything works
	// Works, but messages are being lost, or a part is not yet restored; see Health.Err.
	StateDegraded
	StateDown // no connection to the other nodes; messages between clients of this node still work
)

// String returns "idle", "ok", "degraded" or "down".
func (s State) String() string {
	switch s {
	case StateIdle:
		return "idle"
	case StateOK:
		return "ok"
	case StateDegraded:
		return "degraded"
	case StateDown:
		return "down"
	}
	return "unknown"
}

// MarshalText returns the same name as String. It is also the JSON form.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText parses such a name.
func (s *State) UnmarshalText(text []byte) error {
	for state := StateIdle; state <= StateDown; state++ {
		if state.String() == string(text) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("broker: unknown state %.40q", text)
}

// Health is the state of a broker, with its counters since it was made.
type Health struct {
	State State     // current state
	Since time.Time // time of the last change of State; zero if it never changed
	Err   error     // the last error, nil if there was none; kept after recovery

	// Reason says in one word, for alerts, why State is not StateOK. The words keep their meaning
	// in all versions and contain no secrets; the package of each broker lists its own. It is empty
	// while everything works, and when nothing has failed.
	Reason string

	Published uint64 // messages that Publish accepted
	Delivered uint64 // messages passed to Receiver.Deliver
	// Messages that were not sent: rejected with ErrQueueFull, or lost with a connection.
	Dropped uint64
	// Messages that were sent to a server that was no longer the right one, and may have reached no
	// node.
	Uncertain uint64
	Lost      uint64 // incoming messages known to be lost: the sum of Loss.Messages
	Losses    uint64 // calls of Receiver.Lost, including those skipped because Lost is nil
	Malformed uint64 // invalid incoming messages (protocol.ParseMessage), which were ignored
}
