// Package protocol is the contract between Hearth's servers, their clients and their emitters: event names, states,
// close codes, error texts, channels and limits, and the reading and writing of every envelope.
//
// docs/protocol.md says the same in prose. The files in testdata are its examples, and are read by the tests of every
// implementation. Nothing here does I/O, keeps state or knows of sockets.
package protocol

import (
	"fmt"
	"time"
)

// Events with a meaning of their own, from clients (authenticate, join, leave, heartbeat) and to them (connected, error).
// All other names are the application's.
const (
	EventAuthenticate = "authenticate"
	EventConnected    = "connected"
	EventJoin         = "join"
	EventLeave        = "leave"
	EventHeartbeat    = "heartbeat"
	EventError        = "error"
	EventDisconnect   = "disconnect"
	EventEncrypted    = "encrypted"

	// EventResync tells a client that messages may have been lost for it while a broker was away, so that it may load
	// afresh what it shows. Sent only by servers that are configured to. It is not a system name: a client may send it.
	EventResync = "resync"
)

// System reports whether event is a name that the protocol keeps to itself: a client's message of that name never
// reaches the application's message handler.
func System(event string) bool {
	switch event {
	case EventAuthenticate, EventConnected, EventJoin, EventLeave,
		EventHeartbeat, EventError, EventDisconnect, EventEncrypted:
		return true
	}
	return false
}

// A State is how far a client has come. It only ever grows.
type State uint8

// The states of a client, in their order.
const (
	StateUnauthorized   State = iota // connected, nothing said yet
	StateAuthenticating              // a callback is deciding
	StateAuthenticated               // may join rooms and send; receives
	StateDisconnected                // gone
)

// String is the state's public name: "unauthorized", "authenticating", "authenticated" or "disconnected".
func (s State) String() string {
	switch s {
	case StateUnauthorized:
		return "unauthorized"
	case StateAuthenticating:
		return "authenticating"
	case StateAuthenticated:
		return "authenticated"
	case StateDisconnected:
		return "disconnected"
	}
	return "unknown"
}

// MarshalText returns the state's public name, in JSON too.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a public name.
func (s *State) UnmarshalText(text []byte) error {
	for state := StateUnauthorized; state <= StateDisconnected; state++ {
		if state.String() == string(text) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("protocol: unknown state %.40q", text)
}

// What a server does when its configuration does not say otherwise.
const (
	DefaultPath                = "/ws"
	DefaultMaxPayload          = 128 << 10 // bytes of one message from a client, after decompression
	DefaultBackpressureLimit   = 1 << 20   // bytes that a client may leave waiting
	DefaultAuthTimeout         = 5 * time.Second
	DefaultHeartbeatInterval   = 30 * time.Second
	DefaultHeartbeatTimeout    = 90 * time.Second
	DefaultIdleTimeout         = 60 * time.Second
	DefaultEncryptedBatchLimit = 10 // messages of one fan-out that are encrypted at the same time

	// AuthTimeoutFactor times the authentication timeout is what the authenticate and handshake callbacks have
	// together, counted from the client's authenticate.
	AuthTimeoutFactor = 3
)

// DefaultRooms is the list of rooms that a client joins when it is authenticated. Each call makes a new slice.
func DefaultRooms() []string { return []string{"ws-default", "ws-notification"} }
