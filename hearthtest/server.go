// Package hearthtest tests applications of package hearth: it starts a server in memory and
// connects clients to it, of which each call either succeeds or fails the test.
//
//	func TestSay(t *testing.T) {
//		srv := hearthtest.New(t, config)
//		hearth.Handle(srv.Server, "say", say)
//		ada, bob := srv.Connect(Credentials{User: "ada"}), srv.Connect(Credentials{User: "bob"})
//		ada.Send("say", "hello")
//		var text string
//		bob.Expect("said", &text)
//	}
//
// # Time
//
// No call waits longer than it must. A call that waits for a message fails the test after
// Server.Patience, and says what has arrived instead. Client.ExpectNothing does not wait for time
// to pass: it asks the server.
//
// Everything runs within a bubble of testing/synctest, where timeouts take no time:
//
//	synctest.Test(t, func(t *testing.T) {
//		srv := hearthtest.New(t, config)
//		ada := srv.Connect(Credentials{User: "ada"})
//		time.Sleep(time.Hour) // the client sends heartbeats
//		ada.Expect("reminder", nil)
//	})
//
// A server that was made without this package (Use) needs hearth.TransportNetConn in a bubble.
package hearthtest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth"
)

const (
	defaultPatience  = 10 * time.Second
	shutdownTimeout  = 30 * time.Second
	handshakeTimeout = 10 * time.Second
)

// Server is a server of a test. Connect starts it, so handlers can be registered before. When the
// test ends, the server is shut down. Only the goroutine of the test may call the methods that are
// not of hearth.Server.
type Server[A, M any] struct {
	*hearth.Server[A, M]

	// Patience is how long a client waits for a message that a test expects. In a bubble of
	// testing/synctest it is fake time. Set it before the client connects. Default 10 s.
	Patience time.Duration

	t    testing.TB
	pipe *pipeListener
	web  *http.Server

	started bool           // start was called
	serving sync.WaitGroup // the goroutines of web
}

// New creates a server from cfg for one test. It is hearth.New with other defaults:
// TransportNetConn, and a Logger that writes warnings and errors to the output of the test. If cfg
// is invalid, the test fails.
func New[A, M any](t testing.TB, cfg hearth.Config[A, M]) *Server[A, M] {
	t.Helper()
	if cfg.Transport == hearth.TransportAuto {
		cfg.Transport = hearth.TransportNetConn
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	srv, err := hearth.New(cfg)
	if err != nil {
		t.Fatalf("hearthtest: %v", err)
	}
	return Use(t, srv)
}

// Use is New for a server that the application has created. The server may have been started. Use
// shuts it down when the test ends, unless the test has done so.
func Use[A, M any](t testing.TB, srv *hearth.Server[A, M]) *Server[A, M] {
	s := &Server[A, M]{
		Server: srv, Patience: defaultPatience, t: t,
		pipe: &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})},
		web:  &http.Server{Handler: srv, ReadHeaderTimeout: handshakeTimeout},
	}
	t.Cleanup(s.end)
	return s
}

// Listen serves the server on a free port of 127.0.0.1 too, and returns its URL, such as
// ws://127.0.0.1:41234/ws. It starts the server. It cannot be used in a bubble.
func (s *Server[A, M]) Listen() (url string) {
	s.t.Helper()
	s.start()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatalf("hearthtest: %v", err)
	}
	s.serve(ln)
	return "ws://" + ln.Addr().String() + "/ws"
}

// HTTPClient returns an HTTP client that reaches this server in memory, whatever the host of the
// URL is. It is for other WebSocket clients, such as that of package client. It starts the server.
func (s *Server[A, M]) HTTPClient() *http.Client {
	s.t.Helper()
	s.start()
	transport := &http.Transport{DialContext: s.pipe.dial}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// Dial connects a client that has not authenticated, with which a test can check how the server
// rejects clients. It starts the server if it is not running.
func (s *Server[A, M]) Dial() *Client {
	s.t.Helper()
	return dial(s.t, s.HTTPClient(), s.Patience)
}

// Connect connects and authenticates a client. The credentials are encoded as JSON; nil is none.
// The client requests the extension of the protocol, so the server answers its requests. If the
// server rejects the client, the test fails. Connect starts the server if it is not running.
func (s *Server[A, M]) Connect(credentials any) *Client {
	s.t.Helper()
	c := s.Dial()
	c.authenticate(credentials)
	return c
}

// start starts the server once, and serves connections in memory.
func (s *Server[A, M]) start() {
	s.t.Helper()
	if s.started {
		return
	}
	if err := s.Start(s.t.Context()); err != nil && !errors.Is(err, hearth.ErrStarted) {
		s.t.Fatalf("hearthtest: %v", err)
	}
	s.started = true
	s.serve(s.pipe)
}

// serve accepts connections of ln on a goroutine, which ends with web; end waits for it.
func (s *Server[A, M]) serve(ln net.Listener) {
	s.serving.Go(func() {
		if err := s.web.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.t.Errorf("hearthtest: serve: %v", err)
		}
	})
}

// end shuts the server down, and waits for all goroutines.
func (s *Server[A, M]) end() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil && !errors.Is(err, hearth.ErrNotRunning) {
		s.t.Errorf("hearthtest: %v", err)
	}
	if err := s.web.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		s.t.Errorf("hearthtest: close: %v", err)
	}
	s.serving.Wait()
}

// pipeListener is a net.Listener for connections in memory.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{} // closed by Close
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	server, client := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "hearthtest", Net: "pipe"} }
