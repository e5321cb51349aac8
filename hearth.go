// Package hearth is a realtime server for Go: WebSocket clients that authenticate after they connect, rooms, users,
// direct messages and broadcasts, in one process or across several.
//
// A Server is an http.Handler for any mux. The application gives it callbacks (Config) and sends events through it; what clients
// say and get is the protocol in docs/protocol.md.
//
//	srv, err := hearth.New(hearth.Config[Credentials, Profile]{Authenticate: authenticate})
//	if err != nil { … }
//	if err := srv.Start(ctx); err != nil { … }
//	defer srv.Shutdown(context.Background())
//	http.Handle("/ws", srv)
package hearth

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/node"
)

// Server is one node. Make it with New; all methods may be called from any goroutine.
type Server[A, M any] struct {
	node     *node.Node
	handlers *handlers[M]
}

// New makes a server of cfg, which it copies. Nothing runs before Start. The error names the field of cfg that can't work.
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

// Start makes the server ready: handshakes before that are answered with 503. It waits for the broker as long as ctx allows;
// after an error it may be called again. A server that was started must be ended with Shutdown. ErrStarted when it was
// started before, even if it has ended since.
func (s *Server[A, M]) Start(ctx context.Context) error {
	if err := s.handlers.check(); err != nil {
		return fmt.Errorf("hearth: start: %w", err)
	}
	return wrap("start", s.node.Start(ctx))
}

// Shutdown ends the server: handshakes are answered with 503, messages that have been received are
// handled, clients are closed with 1001 behind what was sent to them, callbacks finished, the
// Disconnected ones included, goroutines waited for, and the broker is closed. When ctx is done before
// that, the callbacks' contexts are cancelled, messages that wait are dropped
// (Stats.MessagesDiscarded), connections are cut, and ctx's error is returned. ErrNotRunning when
// there is nothing to end. A server can't be started again.
//
// Shutdown waits for callbacks and for the requests of Serve. It fails at once with ErrInCallback when
// one of those, of this or another server, has called it. Such a function must start another goroutine
// for it, and not wait for that:
//
//	go srv.Shutdown(context.Background())
//
// The callback's own context is not for that: it may end with the client.
func (s *Server[A, M]) Shutdown(ctx context.Context) error {
	return wrap("shutdown", s.node.Shutdown(ctx))
}

// ServeHTTP answers an opening handshake (RFC 6455 §4.2), takes its connection over, and returns. It serves any path: mount
// it wherever clients connect. A request that is not a handshake gets an HTTP error. Middleware before it must leave
// http.NewResponseController able to hijack. What is in w.Header() by then, such as cookies, is sent with the answer; the
// handshake's own headers cannot be set.
func (s *Server[A, M]) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.node.ServeHTTP(w, r) }

// Serve accepts connections from ln until Shutdown, and then returns ErrServerClosed; it closes ln. Requests for Config.Path
// are the server's, all others go to h; nil answers 404. For plain TCP on Linux it takes handshakes without net/http,
// which halves the cost of a connect; middleware around ServeHTTP is not called then, so it can neither refuse
// handshakes nor add headers to the answer. A request's header has ten seconds to arrive and 16 KiB; how long a body may take
// is for h to say (http.ResponseController.SetReadDeadline). Call it after Start: before, everything goes through net/http. It blocks.
func (s *Server[A, M]) Serve(ln net.Listener, h http.Handler) error { return s.node.Serve(ln, h) }

// ID returns the id of this server among those that share its broker: a random UUID.
func (s *Server[A, M]) ID() string { return s.node.ID() }

// Health returns the state of the broker. A server whose broker is down still serves its own clients.
func (s *Server[A, M]) Health() broker.Health { return s.node.Health() }

// wrap says what failed with err; nil stays nil.
func wrap(operation string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("hearth: %s: %w", operation, err)
}
