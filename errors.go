package hearth

import (
	"errors"
	"net/http"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/node"
	"github.com/hearthws/hearth/internal/session"
)

// The errors that programs test for with errors.Is. Methods return them wrapped, with the operation.
var (
	// ErrRejected is what Config.Authenticate and Upgrade.FromRequest return, wrapped or not, for credentials that are not
	// good.
	ErrRejected = session.ErrRejected

	// ErrQueueFull means that so much waits for an event loop (Limits.SendQueue) that the message was dropped for the clients
	// of that loop: events are published faster than the clients can be served. Local.WaitPending avoids it.
	ErrQueueFull = hub.ErrQueueFull

	// ErrNotConnected means that the client has disconnected.
	ErrNotConnected = hub.ErrNotMember

	// ErrEncrypted means that Client.EnableEncryption was called for a client that is encrypted already.
	ErrEncrypted = hub.ErrEncrypted

	// ErrTooManyRooms means that the client is in Limits.MaxRooms rooms, or that the names of its rooms would have more than
	// Limits.RoomNames bytes.
	ErrTooManyRooms = hub.ErrTooManyRooms

	// ErrTooManyCalls means that 1024 calls to all servers (Server.Count, Disconnect, Join, Leave) are in progress.
	ErrTooManyCalls = node.ErrTooManyCalls

	// ErrNoID means that Client.Reply was called for a message without an id, to which there can be no reply.
	ErrNoID = errors.New("the message has no id")

	// ErrNotRunning means that the server has not been started, or has been shut down.
	ErrNotRunning = node.ErrNotRunning

	// ErrStarted means that Start was called twice. A server can be started once, also after Shutdown.
	ErrStarted = node.ErrStarted

	// ErrInCallback means that Shutdown was called by a callback or handler, or by a handler of Serve, for which it would
	// wait. Call it on a goroutine of its own.
	ErrInCallback = node.ErrInCallback

	// ErrServerClosed is what Serve returns after Shutdown.
	ErrServerClosed = http.ErrServerClosed
)
