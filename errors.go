package hearth

import (
	"net/http"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/node"
	"github.com/hearthws/hearth/internal/session"
)

var (
	// ErrRejected is what Config.Authenticate returns, wrapped or not, for credentials that are not good.
	ErrRejected = session.ErrRejected

	// ErrQueueFull is returned by sends when so much waits for an event loop (Limits.SendQueue) that the message was
	// dropped for its clients: the publishers are faster than the clients can be served. WaitPending is how to avoid it.
	ErrQueueFull = hub.ErrQueueFull

	// ErrNotConnected is returned for a client that is not, or no longer, authenticated on this node.
	ErrNotConnected = hub.ErrNotMember

	// ErrEncrypted is returned by EnableEncryption for a client that is encrypted already.
	ErrEncrypted = hub.ErrEncrypted

	// ErrTooManyRooms is returned, perhaps wrapped, when a client is in Limits.MaxRooms rooms, or the names of its rooms would
	// have more than Limits.RoomNames bytes.
	ErrTooManyRooms = hub.ErrTooManyRooms

	// ErrNotRunning is returned, wrapped, by sends and by calls to all nodes before Start and after Shutdown, and by
	// Shutdown of a server that has not been started or was shut down already.
	ErrNotRunning = node.ErrNotRunning

	// ErrStarted is returned by a second Start, also after Shutdown: a server is started once.
	ErrStarted = node.ErrStarted

	// ErrInCallback is returned by Shutdown when a callback of Config, or a handler of Serve, has called it.
	ErrInCallback = node.ErrInCallback

	// ErrServerClosed is returned by Serve after Shutdown.
	ErrServerClosed = http.ErrServerClosed
)
