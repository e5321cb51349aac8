package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth"
)

// credentials are what the clients of the tests authenticate with.
type credentials struct {
	As   string // the user
	Name string // in the metadata
	Do   string // overrides accept
}

type profile struct{ Name string }

type (
	server = hearth.Server[credentials, profile]
	config = hearth.Config[credentials, profile]
	client = hearth.Client[profile]
)

// accept accepts every client with the user id that it asks for.
func accept(_ context.Context, r hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
	return hearth.Identity[profile]{UserID: r.Credentials.As, Metadata: profile{r.Credentials.Name}}, nil
}

// rig is a server and a way to connect to it.
type rig struct {
	*server
	t    testing.TB
	addr string // for TCP
	dial func() (net.Conn, error)
}

// forTransports runs f with each way to serve on this machine: each transport with net/http, and
// the default of Serve.
func forTransports(t *testing.T, f func(t *testing.T, transport hearth.Transport)) {
	t.Helper()
	for name, transport := range map[string]hearth.Transport{
		"netconn": hearth.TransportNetConn, "epoll": hearth.TransportEpoll, "serve": hearth.TransportAuto,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := hearth.New(config{Authenticate: accept, Transport: transport}); err != nil {
				t.Skip(err)
			}
			f(t, transport)
		})
	}
}

// start starts a server with cfg that listens on TCP until the test ends. It uses Server.Serve if
// cfg does not name a transport.
func start(t testing.TB, cfg config) *rig {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	r := startOn(t, unhurried(cfg), ln, func() (net.Conn, error) { return net.Dial("tcp", addr) })
	r.addr = addr
	return r
}

// startPiped is start with in-memory connections, for use in a synctest bubble.
func startPiped(t testing.TB, cfg config) *rig {
	t.Helper()
	cfg.Transport = hearth.TransportNetConn
	ln := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	return startOn(t, cfg, ln, ln.dial)
}

// unhurried raises the timeout for authentication on real sockets to the patience of the tests,
// unless cfg sets it: a slow machine must not fail a test. In a synctest bubble time does not pass
// while a goroutine works.
func unhurried(cfg config) config {
	if cfg.Timeouts.Auth == 0 {
		cfg.Timeouts.Auth = answer
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func startOn(t testing.TB, cfg config, ln net.Listener, dial func() (net.Conn, error)) *rig {
	t.Helper()
	if cfg.Authenticate == nil {
		cfg.Authenticate = accept
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	srv, err := hearth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	// as Serve does for Config.Path
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ws" {
			http.NotFound(w, r)
			return
		}
		srv.ServeHTTP(w, r)
	})}
	var serving sync.WaitGroup
	serving.Go(func() { // ends with Shutdown or web.Close
		if cfg.Transport != hearth.TransportAuto {
			_ = web.Serve(ln)
		} else if err := srv.Serve(ln, nil); !errors.Is(err, hearth.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), answer)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil && !errors.Is(err, hearth.ErrNotRunning) {
			t.Errorf("shutdown: %v", err)
		}
		web.Close()
		serving.Wait()
	})
	return &rig{server: srv, t: t, dial: dial}
}

// peer connects a client that writes its own frames.
func (r *rig) peer() *peer {
	r.t.Helper()
	return newPeer(r.t, r.raw())
}

// raw connects and does not read.
func (r *rig) raw() *rawWire {
	r.t.Helper()
	conn, err := r.dial()
	if err != nil {
		r.t.Fatal(err)
	}
	w, err := upgrade(conn)
	if err != nil {
		r.t.Fatal(err)
	}
	return w
}

// member connects and authenticates a client.
func (r *rig) member(user string) *peer {
	r.t.Helper()
	p := r.peer()
	p.login(user)
	return p
}

// extended connects and authenticates a client that requests the extension.
func (r *rig) extended(user string) *peer {
	r.t.Helper()
	p := r.peer()
	p.text(`{"event":"authenticate","data":{"as":"` + user + `","name":"` + user + `"},"hearth":{"version":1}}`)
	p.welcome()
	return p
}

// coderPeer connects a client that uses coder/websocket. It needs TCP.
func (r *rig) coderPeer(mode websocket.CompressionMode) *peer {
	r.t.Helper()
	w, err := dialCoder("ws://"+r.addr+"/ws", mode)
	if err != nil {
		r.t.Fatal(err)
	}
	return newPeer(r.t, w)
}

// counts waits until ok accepts the counters: a message may be counted a moment after the client
// receives it.
func (r *rig) counts(ok func(hearth.Stats) bool) {
	r.t.Helper()
	for end := time.Now().Add(answer); !ok(r.Stats()); runtime.Gosched() {
		if time.Now().After(end) {
			r.t.Fatalf("stats: %+v", r.Stats())
		}
	}
}

// client returns the server's view of p.
func (r *rig) client(p *peer) *client {
	r.t.Helper()
	c, ok := r.Local().Client(p.id)
	if !ok {
		r.t.Fatalf("client %s is not on the server", p.id)
	}
	return c
}

// pipeListener is a net.Listener of net.Pipe connections.
type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *pipeListener) dial() (net.Conn, error) {
	server, client := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
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

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func repeat(s string, n int) string { return strings.Repeat(s, n) }

// raw returns text as the data of a message, or nil if it is empty.
func raw(text string) any {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// A local is a server, or a type that embeds one.
type local interface {
	Local() hearth.Local[credentials, profile]
}

// joinRoom adds a client of s to rooms.
func joinRoom(ctx context.Context, s local, clientID string, rooms ...string) error {
	c, ok := s.Local().Client(clientID)
	if !ok {
		return hearth.ErrNotConnected
	}
	return c.Join(ctx, rooms...)
}

// leaveRoom removes a client of s from rooms.
func leaveRoom(s local, clientID string, rooms ...string) error {
	c, ok := s.Local().Client(clientID)
	if !ok {
		return hearth.ErrNotConnected
	}
	c.Leave(rooms...)
	return nil
}

// disconnect closes a client of s.
func disconnect(s local, clientID string, code int, reason string) error {
	c, ok := s.Local().Client(clientID)
	if !ok {
		return hearth.ErrNotConnected
	}
	return c.Disconnect(code, reason)
}
