package hearth

import (
	"errors"
	"net/http"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/node"
	"github.com/hearthws/hearth/internal/session"
)

// The errors that programs test for with errors.Is. Methods return them wrapped, with the
// operation.
var (
	// ErrRejected rejects a client: Config.Authenticate and Upgrade.FromRequest return it, wrapped
	// or not, for bad credentials.
	ErrRejected = session.ErrRejected

	// ErrQueueFull means that the queue of an event loop is full (Limits.SendQueue), so the message
	// was dropped for the clients of that loop: the application sends faster than its clients can
	// be served. Local.WaitPending avoids it. The clients of other loops received the message:
	// after a retry they have it twice.
	ErrQueueFull = hub.ErrQueueFull

	// ErrNotConnected means that the client has disconnected.
	ErrNotConnected = hub.ErrNotMember

	// ErrEncrypted means that Client.EnableEncryption was called for a client that is already
	// encrypted.
	ErrEncrypted = hub.ErrEncrypted

	// ErrTooManyRooms means that the client is in Limits.MaxRooms rooms, or that the names of its
	// rooms would exceed Limits.RoomNames bytes.
	ErrTooManyRooms = hub.ErrTooManyRooms

	// ErrTooManyCalls means that 1024 calls to all servers (Server.Count, Disconnect, Join, Leave)
	// are in progress. Try again later.
	ErrTooManyCalls = node.ErrTooManyCalls

	// ErrNoID means that Client.Reply was called for a message without an id, which cannot have a
	// reply.
	ErrNoID = errors.New("the message has no id")

	// ErrReplied means that Client.Reply was called for a message that has been answered.
	ErrReplied = session.ErrReplied

	// ErrReplyLater is returned by a handler, or by Config.Message, wrapped or not, if the program
	// calls Client.Reply for the message after the handler has returned. Otherwise the server
	// answers the messages with an id of clients with the extension itself, when the handler has
	// returned. It is no failure.
	ErrReplyLater = session.ErrReplyLater

	// ErrCannotAsk means that the client has not requested the feature `ask`, so it answers no
	// questions.
	ErrCannotAsk = session.ErrCannotAsk

	// ErrTooManyQuestions means that the server, or the client, waits for too many answers: see
	// AskEach.
	ErrTooManyQuestions = session.ErrTooManyQuestions

	// ErrNotRunning means that the server has not been started, or has been shut down.
	ErrNotRunning = node.ErrNotRunning

	// ErrStarted means that Start was called twice. A server cannot be started again, even after
	// Shutdown.
	ErrStarted = node.ErrStarted

	// ErrInCallback means that Shutdown was called by a callback, or by an HTTP handler of Serve,
	// for which it would wait. Call it on another goroutine.
	ErrInCallback = node.ErrInCallback

	// ErrServerClosed is returned by Serve after Shutdown.
	ErrServerClosed = http.ErrServerClosed
)
