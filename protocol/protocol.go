// Package protocol is the contract between Hearth's servers, their clients and their emitters:
// event names, states, close codes, error texts, channels and limits, and functions that read and
// write every envelope.
//
// docs/protocol.md says the same in prose. The files in testdata are its examples, and the tests of
// every implementation read them. Nothing here does I/O, keeps state or knows about sockets.
package protocol

import (
	"fmt"
	"strings"
	"time"
)

// Events that the protocol defines: clients send authenticate, join, leave and heartbeat; servers
// send connected and error. The application defines all other names.
const (
	EventAuthenticate = "authenticate"
	EventConnected    = "connected"
	EventJoin         = "join"
	EventLeave        = "leave"
	EventHeartbeat    = "heartbeat"
	EventError        = "error"
	EventDisconnect   = "disconnect"
	EventEncrypted    = "encrypted"

	// EventResync tells a client that it may have missed messages while a broker was unavailable,
	// so that it can reload what it shows. Only servers that are configured to do so send it. It is
	// not a system name: a client may send it.
	EventResync = "resync"
)

// System reports whether the protocol reserves the event name, as it does for all names that begin
// with ReservedEventPrefix. A client's message with a reserved
// name never reaches the application's message handler.
func System(event string) bool {
	switch event {
	case EventAuthenticate, EventConnected, EventJoin, EventLeave,
		EventHeartbeat, EventError, EventDisconnect, EventEncrypted:
		return true
	}
	return strings.HasPrefix(event, ReservedEventPrefix)
}

// A State is a client's progress from connecting to disconnecting. It never goes back to a lower
// value.
type State uint8

// The states of a client, in order.
const (
	StateUnauthorized   State = iota // connected; authentication has not started
	StateAuthenticating              // a callback is authenticating the client
	StateAuthenticated               // may join rooms and send; receives messages
	StateDisconnected                // the session has ended
)

// String returns the state's public name: "unauthorized", "authenticating", "authenticated" or
// "disconnected".
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

// MarshalText returns the state's public name, which is also its JSON form.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText parses a public name.
func (s *State) UnmarshalText(text []byte) error {
	for state := StateUnauthorized; state <= StateDisconnected; state++ {
		if state.String() == string(text) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("protocol: unknown state %.40q", text)
}

// The defaults of a server's configuration.
const (
	DefaultPath = "/ws"
	// Bytes of one message from a client, after decompression.
	DefaultMaxPayload          = 128 << 10
	DefaultBackpressureLimit   = 1 << 20 // bytes that may wait for a client
	DefaultAuthTimeout         = 5 * time.Second
	DefaultHeartbeatInterval   = 30 * time.Second
	DefaultHeartbeatTimeout    = 90 * time.Second
	DefaultIdleTimeout         = 60 * time.Second
	DefaultEncryptedBatchLimit = 10 // messages of one fan-out that are encrypted at the same time

	// AuthTimeoutFactor times the authentication timeout is the time limit for the authenticate and
	// handshake callbacks together, counted from the client's authenticate.
	AuthTimeoutFactor = 3
)

// DefaultRooms returns the rooms that a client joins when it is authenticated. Each call makes a
// new slice.
func DefaultRooms() []string { return []string{"ws-default", "ws-notification"} }
