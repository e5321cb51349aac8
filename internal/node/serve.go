package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hearthws/hearth/internal/callback"
)

const (
	// headerTimeout is how long a request's header may take to arrive; headMax how many bytes it may have.
	headerTimeout  = 10 * time.Second
	maxHeaderBytes = 16 << 10

	// maxEarlyBytes is how much of a connection is kept, request and all, while the application judges the request.
	maxEarlyBytes = 64 << 10

	keepAliveTimeout = 2 * time.Minute // of a connection between two plain HTTP requests
)

// Serve accepts connections from ln until Shutdown, and then returns http.ErrServerClosed. Handshakes on Config.Path are the
// node's; all other requests are h's, or answered with 404. It closes ln.
func (n *Node) Serve(ln net.Listener, h http.Handler) error {
	defer ln.Close()
	if h == nil {
		h = http.NotFoundHandler()
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == n.cfg.Path {
				n.ServeHTTP(w, r)
				return
			}
			_ = callback.Call(func() error { // Shutdown waits for requests that are under way
				h.ServeHTTP(w, r)
				return nil
			})
			if r.Body != http.NoBody { // net/http reads the rest, which may never come
				_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(headerTimeout))
			}
		}),
		ReadHeaderTimeout: headerTimeout, IdleTimeout: keepAliveTimeout, MaxHeaderBytes: maxHeaderBytes,
		ConnState: newIdleConns(maxIncompletePerAddr(n.cfg.Limits)).connState,
		ErrorLog:  slog.NewLogLogger(n.cfg.Log.Handler(), slog.LevelDebug),
	}
	if !n.servers.add(srv) {
		return http.ErrServerClosed
	}
	defer n.servers.remove(srv)
	if n.loopsAccept(ln) {
		return n.serveOnLoops(ln.(*net.TCPListener), srv)
	}
	return srv.Serve(ln)
}

// servers are the HTTP servers that Serve runs.
type servers struct {
	mu     sync.Mutex // guards the fields below
	closed bool
	all    map[*http.Server]struct{}
}

func (s *servers) add(srv *http.Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.all == nil {
		s.all = make(map[*http.Server]struct{})
	}
	s.all[srv] = struct{}{}
	return true
}

func (s *servers) remove(srv *http.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, srv)
}

// shutdown ends all servers: their listeners at once, requests under way when they are done or ctx is.
func (s *servers) shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	all := make([]*http.Server, 0, len(s.all))
	for srv := range s.all {
		all = append(all, srv)
	}
	s.mu.Unlock()
	var err error
	for _, srv := range all {
		if serr := srv.Shutdown(ctx); serr != nil {
			err = errors.Join(err, serr, srv.Close())
		}
	}
	return err
}
