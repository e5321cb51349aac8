// Package broker carries messages between the nodes of one deployment, so that a message published on one node, or by
// an emitter, reaches clients on all others.
//
// A Broker is one node's end. Delivery is at most once: whatever can be lost on the way is bounded, counted, and told
// to the node that missed it (Receiver.Lost). Implementations live in the folders below; brokertest is the suite that
// each of them passes.
package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hearthws/hearth/protocol"
)

var (
	// ErrClosed is returned by everything that is called after Close.
	ErrClosed = errors.New("broker: closed")

	// ErrDown is returned, wrapped, while there is no connection to the others: by Hold, whose channels then count as
	// held and are asked for as soon as there is one, and by PublishAll.
	ErrDown = errors.New("broker: not connected")

	// ErrQueueFull is returned by Publish when as many messages wait to go out as the broker keeps. The message is
	// not published, and is counted in Health.Dropped.
	ErrQueueFull = errors.New("broker: queue full")

	// ErrNotStarted is returned by Hold before Start.
	ErrNotStarted = errors.New("broker: not started")

	// ErrStarted is returned by a second Start.
	ErrStarted = errors.New("broker: already started")
)

// A Publisher sends messages to the nodes. It is all that an emitter needs.
type Publisher interface {
	// Publish sends m to all nodes but m.ServerID. It hands m to a bounded queue and returns; nil does not mean that
	// anyone has got it. Messages that one goroutine publishes arrive in order at each node, those of several
	// goroutines in any.
	//
	// It never blocks: ErrQueueFull says that the queue is full, ErrClosed that the publisher is closed. An m that
	// fails protocol.Message.Check gets that error; that m.Data is valid JSON is the caller's word. A ctx that is
	// already done gets its error; done later it takes nothing back. With an error nothing has been published.
	//
	// m.Data and m.Exclude must not change afterwards: they may be shared with receivers in the same process.
	// Safe for concurrent use.
	Publish(ctx context.Context, m protocol.Message) error
}

// A Confirmer is a Publisher that can tell when what it was given has left. Emitters use it where there is one.
type Confirmer interface {
	Publisher

	// PublishAll sends ms in their order, and waits until each has been taken by what carries it (a Redis server, say) or
	// has failed. nil: all have been taken. Otherwise there is one error for each of ms, nil for those that were taken;
	// of one that was cut off half-way nobody knows whether it was. Where the queue is full it waits for room. It ends
	// early when ctx is done, with ctx's error for what has not been taken as far as anyone knows by then.
	//
	// What Publish says of m.Check, m.Data, ErrClosed and concurrent use holds here too; calls at the same time share
	// one pipeline.
	PublishAll(ctx context.Context, ms []protocol.Message) []error
}

// A Broker is a node's connection to the others. Its methods are safe for concurrent use.
type Broker interface {
	Publisher

	// Start begins to deliver to r, and returns once broadcasts are delivered and Hold may be called. Messages that
	// were published before are not. It waits for the network as long as ctx allows; after an error it may be called
	// again. The broker works until Close, whatever becomes of ctx. ErrStarted if it is running, ErrClosed after Close.
	Start(ctx context.Context, r Receiver) error

	// Hold asks for the channels of rooms, clients and users that this node has members for (protocol.RoomChannel and
	// its like). When it returns nil, every message published from now on, anywhere, on one of them is delivered until
	// Release. Channels are counted: what is held twice must be released twice. Broadcasts need no Hold.
	//
	// It waits for the network as long as ctx allows, or less, and not at all when the broker knows that it is down (ErrDown).
	// After an error the channels are held all the same, and must be released: they are asked for as soon as that is
	// possible, and Receiver.Lost then tells what may have been missed. But for ErrNotStarted, before Start, and
	// ErrClosed: nothing is held then.
	Hold(ctx context.Context, channels ...string) error

	// Release takes back one Hold of each channel; one that is not held is ignored. It never blocks: delivery ends
	// some time later.
	Release(channels ...string)

	// Health says how the broker is, from what it knows: it does not ask the network. Never blocks.
	Health() Health

	// Close ends delivery, waits for a call of the receiver that is under way, and for every goroutine of the broker.
	// Messages that wait to go out are sent if that takes no waiting. A second Close does nothing.
	// Not to be called from within a Receiver's function.
	Close() error
}

// A Receiver is what a node does with what it is told. Its functions are called one at a time, in the order of arrival,
// on a goroutine of the broker. They must not wait for other nodes or clients: meanwhile a bounded queue fills, and what
// no longer fits is lost (and told). They may call Publish, Hold with a context that ends, Release and Health.
type Receiver struct {
	// ServerID is the node's id. Messages that carry it are not delivered to this receiver. Required.
	ServerID string

	// Deliver gets each message. It may be for a channel that is not held, or no longer: brokers may deliver more than
	// was asked for. What m's strings and slices refer to is the broker's: it must not be changed, and is good until
	// Deliver returns, so what is kept is to be copied (protocol.Message.Clone). Required.
	Deliver func(m protocol.Message)

	// DeliverAll gets messages that have come together, at least one, in their order, where that saves the receiver work. A
	// broker calls it in place of Deliver, or now the one and now the other. What is said of m holds for each of ms, and
	// for the slice. Optional.
	DeliverAll func(ms []protocol.Message)

	// Lost is told, in its place between deliveries, that messages may be missing. Optional.
	Lost func(l Loss)
}

// Check reports what is missing in r.
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
	// Messages is how many were lost; 0 when nobody knows, and it may have been none.
	Messages uint64

	// Channels are those concerned; nil when any may be.
	Channels []string

	// Since and Until bound the time in which they were published, as this node's clock tells it.
	Since, Until time.Time

	// Cause says why. Never nil.
	Cause error
}

// A State is how a broker is.
type State uint8

// The states of a broker.
const (
	StateIdle     State = iota // not started, or closed
	StateOK                    // all works
	StateDegraded              // works, but something is being lost or is not yet back: Health.Err
	StateDown                  // no connection to the others; what clients of this node send each other still works
)

// String is "idle", "ok", "degraded" or "down".
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

// MarshalText returns the name that String returns, in JSON too.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads such a name.
func (s *State) UnmarshalText(text []byte) error {
	for state := StateIdle; state <= StateDown; state++ {
		if state.String() == string(text) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("broker: unknown state %.40q", text)
}

// Health is how a broker is, and what it has done since it was made.
type Health struct {
	State State     // how the broker is now
	Since time.Time // when State became so; zero while it never changed
	Err   error     // the last thing that went wrong, nil if nothing did; stays after recovery

	// Reason says why State is not StateOK, in one word for alerts, which means the same in every version and holds no
	// secret: the package of the broker lists its own. Empty while all works, and where nothing has failed.
	Reason string

	Published uint64 // messages that Publish took
	Delivered uint64 // messages given to Receiver.Deliver
	Dropped   uint64 // messages that never went out: refused with ErrQueueFull, or lost with a connection
	Uncertain uint64 // messages that went out, perhaps to no node: to a server that was no longer the right one
	Lost      uint64 // messages that are known not to have come in: the sum of Loss.Messages
	Losses    uint64 // calls of Receiver.Lost, or what would have been
	Malformed uint64 // messages that came in and broke the contract (protocol.ParseMessage); they were ignored
}
