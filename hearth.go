// Package hearth is a realtime server: WebSocket clients that authenticate after they connect,
// rooms, users, direct messages and broadcasts, in one process or in several.
//
// A Server is an http.Handler for any mux. Config has the settings and callbacks of the
// application, and Handle registers a handler for one event. Server.Send sends events to the
// clients of all servers that share a broker. Server.Local has the clients of one server.
// docs/protocol.md specifies the wire protocol.
//
//	srv, err := hearth.New(hearth.Config[Credentials, Profile]{Authenticate: authenticate})
//	if err != nil { … }
//	hearth.Handle(srv, "say", func(ctx context.Context, c *hearth.Client[Profile], text string) error {
//		return srv.Send(ctx, hearth.ToRoom("tea"), "said", text)
//	})
//	if err := srv.Start(ctx); err != nil { … }
//	defer srv.Shutdown(context.Background())
//	http.Handle("/ws", srv)
//
// # Clients
//
// A client sends JSON objects, {"event": …, "data": …}. The first is `authenticate`, whose data
// Config.Authenticate receives as credentials. Then the client may send `join` and `leave`, for
// which Config.ValidateRooms decides, and the application's own events. It must send a message at
// least every 90 seconds (Timeouts.Heartbeat); a client without other messages sends `heartbeat`.
//
// # Delivery
//
// Delivery is at most once. If a send returns nil, the event is queued. Messages that one goroutine
// sends reach each client in that order. Messages of different servers may arrive in any order, and
// clients of different servers may see different orders. So an application that numbers its
// messages must not take a missing number for a lost message at once: the message may still arrive.
// Dropped messages are counted in Stats and logged.
//
// For rooms with history (HistoryRule), clients recover what they have missed while they were away,
// in one order on all servers.
package hearth

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/node"
)

// Server is one server of a deployment. Create it with New; the zero Server cannot be used. All
// methods are safe for concurrent use.
type Server[A, M any] struct {
	node     *node.Node
	handlers *handlers[M]
}

// New creates a server from a copy of cfg. It starts nothing; Start does. The error names the field
// of cfg that is invalid, and the valid values.
func New[A, M any](cfg Config[A, M]) (*Server[A, M], error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	h := &handlers[M]{log: cfg.Logger}
	n, err := node.New(cfg.node(cfg.callbacks(h)))
	if err != nil {
		return nil, fmt.Errorf("hearth: new: %w", err)
	}
	return &Server[A, M]{node: n, handlers: h}, nil
}

// Start starts the server; handshakes before that are answered with 503. It blocks until the broker
// is connected, for as long as ctx and the broker's own timeout allow (redis.Config.ConnectTimeout,
// 30 s). It returns an error if a handler is invalid (see Handle) or the broker cannot be started;
// then it may be called again. It returns ErrStarted if the server was started before, even if it
// was shut down since. A server that was started must be ended with Shutdown.
func (s *Server[A, M]) Start(ctx context.Context) error {
	if err := s.handlers.check(); err != nil {
		return fmt.Errorf("hearth: start: %w", err)
	}
	return wrap("start", s.node.Start(ctx))
}

// Shutdown ends the server, in this order:
//   - It answers new handshakes with 503, ends Serve, and makes Health idle.
//   - It closes the clients, over Timeouts.Drain: with 1012 those with the extension of the protocol,
//     with 1001 all others. A client is closed when its messages that have been received are
//     handled, and after the messages that are queued for it. Until then it is served as before.
//   - It waits until the callbacks have returned, including Disconnected, and all goroutines have
//     ended.
//   - It closes the broker.
//
// If ctx is done before that, Shutdown cancels the contexts of the callbacks, drops messages that
// wait (Stats.MessagesDiscarded), cuts connections, and returns the error of ctx. It returns
// ErrNotRunning if the server is not running. A server that was shut down cannot be started again.
//
// Shutdown waits for callbacks, handlers, and the requests of Serve. If one of those calls it, of
// this or another server, it returns ErrInCallback at once. Such a function must call it on another
// goroutine, and not wait for that:
//
//	go srv.Shutdown(context.Background())
//
// The context of the callback is not suitable there: it may end with the client.
func (s *Server[A, M]) Shutdown(ctx context.Context) error {
	return wrap("shutdown", s.node.Shutdown(ctx))
}

// ServeHTTP answers an opening handshake (RFC 6455 §4.2), takes over its connection, and returns.
// It ignores the path: mount it where clients connect. A request that is not a handshake gets an
// HTTP error. Middleware must leave http.NewResponseController able to hijack: its ResponseWriter
// needs an Unwrap method. Middleware sees neither the 101 nor the end of the connection; log those
// in Connected and Disconnected. The headers in w.Header(), such as cookies, are sent with the
// answer; the headers of the handshake cannot be changed.
func (s *Server[A, M]) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.node.ServeHTTP(w, r) }

// Serve accepts connections from ln until Shutdown, and then returns ErrServerClosed. It closes ln.
// Requests for Config.Path go to the server, all others to h; a nil h answers 404. It blocks. Call
// it after Start.
//
// For plain TCP on Linux, the event loops handle handshakes without net/http, which halves the cost
// of a connect. Middleware around ServeHTTP is not called for them, so it can neither reject
// handshakes nor add headers to the answer.
//
// The header of a request may take ten seconds and 16 KiB. The time for a body is up to h
// (http.ResponseController.SetReadDeadline).
func (s *Server[A, M]) Serve(ln net.Listener, h http.Handler) error { return s.node.Serve(ln, h) }

// ID returns the id of this server among those that share its broker: a random UUID.
func (s *Server[A, M]) ID() string { return s.node.ID() }

// Health returns the state of the broker. A server whose broker is down still serves its own
// clients. The state is broker.StateIdle until Start has succeeded, and once Shutdown has begun: a
// readiness check passes for broker.StateOK and broker.StateDegraded only. Without a broker it is
// broker.StateOK before Shutdown.
func (s *Server[A, M]) Health() broker.Health { return s.node.Health() }

// wrap adds the operation to err. It returns nil for nil.
func wrap(operation string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("hearth: %s: %w", operation, err)
}
