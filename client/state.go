package client

import (
	"strconv"
	"time"
)

// Phase is where a client is in its life.
type Phase int

const (
	// Idle is the phase before Connect.
	Idle Phase = iota
	// Connecting means that the client connects and authenticates.
	Connecting
	// Connected means that the client is authenticated.
	Connected
	// Waiting means that an attempt has failed or the connection was lost, and that the client will
	// connect again.
	Waiting
	// Closed is the last phase: Close was called, or the client has given up.
	Closed
)

// String returns the name of the phase in lower case.
func (p Phase) String() string {
	names := [...]string{"idle", "connecting", "connected", "waiting", "closed"}
	if p < 0 || int(p) >= len(names) {
		return "Phase(" + strconv.Itoa(int(p)) + ")"
	}
	return names[p]
}

// State is the state of a client. The fields after Phase belong to the phases that they name, and
// are zero otherwise.
type State struct {
	Phase Phase // of the client

	// Err is why the client waits or was closed: a *CloseError if the connection was closed; nil
	// after Close.
	Err error

	// Retry is how long the client waits before the next attempt, if Phase is Waiting.
	Retry time.Duration

	// ID is the client's id on the server, if Phase is Connected. It changes with each connection
	// that is not Resumed.
	ID string

	// UserID is the user that the server knows the client as, if Phase is Connected. It may be
	// empty.
	UserID string

	// Extension reports whether the connection has the extension of the protocol. Without it there
	// are no answers to joins: rooms count as joined at once. Requests are answered only if the
	// application does so.
	Extension bool

	// Recovery reports whether the server can recover messages of rooms with history.
	Recovery bool

	// Encrypted reports whether messages are encrypted.
	Encrypted bool

	// Resumed reports whether the connection continues the session of the previous one.
	Resumed bool

	// Expires is when the credentials expire, by the clock of the server, if Phase is Connected. It
	// is zero if they do not, or if the server does not say so. It follows new credentials without
	// a call of OnState.
	Expires time.Time
}
