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
	"iter"
	"net"
	"net/http"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/node"
	"github.com/hearthws/hearth/internal/session"
)

// Server is one node. Make it with New; all methods may be called from any goroutine.
type Server[A, M any] struct {
	node *node.Node
}

// New makes a server of cfg, which it copies. Nothing runs before Start. The error names the field of cfg that can't work.
func New[A, M any](cfg Config[A, M]) (*Server[A, M], error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n, err := node.New(cfg.node(cfg.callbacks()))
	if err != nil {
		return nil, fmt.Errorf("hearth: %w", err)
	}
	return &Server[A, M]{node: n}, nil
}

// Start makes the server ready: handshakes before that are answered with 503. It waits for the broker as long as ctx allows;
// after an error it may be called again. A server that was started must be ended with Shutdown. ErrStarted when it was
// started before, even if it has ended since.
func (s *Server[A, M]) Start(ctx context.Context) error {
	if err := s.node.Start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return nil
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
	if err := s.node.Shutdown(ctx); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	return nil
}

// ServeHTTP answers opening handshakes on Config.Path (RFC 6455 §4.2), takes their connections over and returns. For any other
// path it answers 404. Middleware before it must leave http.NewResponseController able to hijack. What is in w.Header() by
// then, such as cookies, is sent with the answer; the handshake's own headers cannot be set.
func (s *Server[A, M]) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.node.ServeHTTP(w, r) }

// Serve accepts connections from ln until Shutdown, and then returns ErrServerClosed; it closes ln. Handshakes on Config.Path are
// the server's, all other requests go to h, nil for 404. For plain TCP on Linux it takes handshakes without net/http,
// which halves the cost of a connect; middleware around ServeHTTP is not called then, so it can neither refuse
// handshakes nor add headers to the answer. A request's header has ten seconds to arrive and 16 KiB; how long a body may take
// is for h to say (http.ResponseController.SetReadDeadline). Call it after Start: before, everything goes through net/http. It blocks.
func (s *Server[A, M]) Serve(ln net.Listener, h http.Handler) error { return s.node.Serve(ln, h) }

// Client returns the client with that id on this node.
func (s *Server[A, M]) Client(id string) (c *Client[M], ok bool) {
	m := s.node.Hub().Client(id)
	if m == nil {
		return nil, false
	}
	return clientOf[M](session.Of(m)), true
}

// Clients are all authenticated clients of this node, as they were when the loop began; none is skipped or seen twice,
// and the loop's body may do anything.
func (s *Server[A, M]) Clients() iter.Seq[*Client[M]] {
	return func(yield func(*Client[M]) bool) {
		for _, m := range s.node.Hub().Members(nil, hub.Target{Kind: hub.All}) {
			if !yield(clientOf[M](session.Of(m))) {
				return
			}
		}
	}
}

// ClientsOf are the clients of that user on this node. The slice is the caller's.
func (s *Server[A, M]) ClientsOf(userID string) []*Client[M] { return s.members(ToUser(userID)) }

// ClientsIn are the members of that room on this node. The slice is the caller's.
func (s *Server[A, M]) ClientsIn(room string) []*Client[M] { return s.members(ToRoom(room)) }

func (s *Server[A, M]) members(t Target) []*Client[M] {
	members := s.node.Hub().Members(nil, t.t)
	clients := make([]*Client[M], len(members))
	for i, m := range members {
		clients[i] = clientOf[M](session.Of(m))
	}
	return clients
}

// Count is how many clients the target has on this node.
func (s *Server[A, M]) Count(t Target) int { return s.node.Hub().Count(t.t) }

// Rooms are the names of the rooms that have members on this node, but for the clients' own. The slice is the caller's.
func (s *Server[A, M]) Rooms() []string { return s.node.Hub().Rooms(nil) }

// JoinRoom makes a client of this node a member of rooms; see Client.Join. ErrNotConnected when it is not here.
func (s *Server[A, M]) JoinRoom(ctx context.Context, clientID string, rooms ...string) error {
	c, ok := s.Client(clientID)
	if !ok {
		return fmt.Errorf("join: %w", ErrNotConnected)
	}
	return c.Join(ctx, rooms...)
}

// LeaveRoom takes a client of this node out of rooms; see Client.Leave. ErrNotConnected when it is not here.
func (s *Server[A, M]) LeaveRoom(clientID string, rooms ...string) error {
	c, ok := s.Client(clientID)
	if !ok {
		return fmt.Errorf("leave: %w", ErrNotConnected)
	}
	c.Leave(rooms...)
	return nil
}

// Disconnect closes a client of this node; see Client.Disconnect. ErrNotConnected when it is not here.
func (s *Server[A, M]) Disconnect(clientID string, code int, reason string) error {
	c, ok := s.Client(clientID)
	if !ok {
		return fmt.Errorf("disconnect: %w", ErrNotConnected)
	}
	return c.Disconnect(code, reason)
}

// ID is the node's id, by which the broker tells its messages from those of others: a random UUID.
func (s *Server[A, M]) ID() string { return s.node.ID() }

// Health is that of the broker: a server whose broker is down serves its own clients.
func (s *Server[A, M]) Health() broker.Health { return s.node.Health() }
