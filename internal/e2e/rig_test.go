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

// credentials are what the tests' clients authenticate with.
type credentials struct {
	As   string // the user
	Name string // in the metadata
	Do   string // instead of accepting
}

type profile struct{ Name string }

type (
	server = hearth.Server[credentials, profile]
	config = hearth.Config[credentials, profile]
	client = hearth.Client[profile]
)

// accept takes everybody for who they say they are.
func accept(_ context.Context, r hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
	return hearth.Identity[profile]{UserID: r.Credentials.As, Metadata: profile{r.Credentials.Name}}, nil
}

// rig is a server that can be connected to.
type rig struct {
	*server
	t    testing.TB
	addr string // of TCP
	dial func() (net.Conn, error)
}

// forTransports runs f for each way to serve that there is here: each transport behind net/http, and what Serve chooses.
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

// start makes a server of cfg that listens on TCP until the test ends: by itself, if cfg leaves the transport to it.
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

// startPiped is start in memory: for a bubble of synctest.
func startPiped(t testing.TB, cfg config) *rig {
	t.Helper()
	cfg.Transport = hearth.TransportNetConn
	ln := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	return startOn(t, cfg, ln, ln.dial)
}

// unhurried leaves clients on real sockets as much time to authenticate as a test has patience, unless cfg says how much: how
// fast the machine is, is not what the tests are about. In a bubble of synctest time does not pass meanwhile.
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
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // what Serve does for Config.Path
		if r.URL.Path != "/ws" {
			http.NotFound(w, r)
			return
		}
		srv.ServeHTTP(w, r)
	})}
	var serving sync.WaitGroup
	serving.Go(func() { // ends with Shutdown, or web.Close
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

// peer connects a client that writes its frames by hand.
func (r *rig) peer() *peer {
	r.t.Helper()
	return newPeer(r.t, r.raw())
}

// raw connects without reading.
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

// coderPeer connects a client that is made of another library. TCP only.
func (r *rig) coderPeer(mode websocket.CompressionMode) *peer {
	r.t.Helper()
	w, err := dialCoder("ws://"+r.addr+"/ws", mode)
	if err != nil {
		r.t.Fatal(err)
	}
	return newPeer(r.t, w)
}

// counts waits until the counters are as ok says: what a client has got may be counted a moment later.
func (r *rig) counts(ok func(hearth.Stats) bool) {
	r.t.Helper()
	for end := time.Now().Add(answer); !ok(r.Stats()); runtime.Gosched() {
		if time.Now().After(end) {
			r.t.Fatalf("stats: %+v", r.Stats())
		}
	}
}

// client is the server's view of p.
func (r *rig) client(p *peer) *client {
	r.t.Helper()
	c, ok := r.Local().Client(p.id)
	if !ok {
		r.t.Fatalf("client %s is not on the server", p.id)
	}
	return c
}

// pipeListener is a net.Listener of net.Pipe.
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

// raw is text as the data of a message; empty is none.
func raw(text string) any {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// A local is a server, or what has the same clients.
type local interface {
	Local() hearth.Local[credentials, profile]
}

// joinRoom makes a client of s a member of rooms.
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
