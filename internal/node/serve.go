package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hearthws/hearth/internal/callback"
)

const (
	// headerTimeout is how long a request's header may take to arrive, maxHeaderBytes its maximum
	// size.
	headerTimeout  = 10 * time.Second
	maxHeaderBytes = 16 << 10

	// maxEarlyBytes is how many bytes of a connection, including the request, are kept while the
	// application's callbacks decide about the request.
	maxEarlyBytes = 64 << 10

	keepAliveTimeout = 2 * time.Minute // of an HTTP connection between two requests
)

// Serve accepts connections from ln until Shutdown, and then returns http.ErrServerClosed. The node
// answers requests for Config.Path; h answers all others, or, if it is nil, they get status 404.
// Serve closes ln.
func (n *Node) Serve(ln net.Listener, h http.Handler) error {
	defer ln.Close()
	if h == nil {
		h = http.NotFoundHandler()
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			v := takeVerdict(r)
			if r.URL.Path == n.cfg.Path {
				n.answer(w, r, v)
				return
			}
			_ = callback.Call(func() error { // Shutdown waits for requests in progress
				h.ServeHTTP(w, r)
				return nil
			})
			// net/http reads the rest of the body, which may never arrive.
			if r.Body != http.NoBody && !hijacked(w) {
				_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(headerTimeout))
			}
		}),
		ReadHeaderTimeout: headerTimeout, IdleTimeout: keepAliveTimeout, MaxHeaderBytes: maxHeaderBytes,
		ConnContext: withPrefixConn, ConnState: newIdleConns(maxIncompletePerAddr(n.cfg.Limits)).connState,
		ErrorLog: httpErrorLog(n.cfg.Log),
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

// hijacked reports whether the handler has taken the connection over from net/http. It must be
// called after the handler has returned, since it writes the header of the response.
func hijacked(w http.ResponseWriter) bool {
	_, err := w.Write(nil)
	return errors.Is(err, http.ErrHijacked)
}

// servers are the HTTP servers that Serve runs.
type servers struct {
	mu     sync.Mutex // guards the fields below
	closed bool
	all    map[*http.Server]struct{}
}

// add adds a server. It reports false after shutdown.
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

// remove removes a server that has ended.
func (s *servers) remove(srv *http.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, srv)
}

// shutdown ends all servers. It closes their listeners at once, and waits for the requests in
// progress until ctx is done.
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
