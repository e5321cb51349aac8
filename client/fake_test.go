package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth/client"
)

// fake is a server that a test plays, for what a real one does rarely or not at all.
type fake struct {
	t      testing.TB
	conns  chan *fakeConn
	status int // answer handshakes with this; 0: accept
	ln     *fakeListener
	http   *http.Client
}

type fakeConn struct {
	t  testing.TB
	ws *websocket.Conn
}

func newFake(t testing.TB) *fake {
	f := &fake{t: t, conns: make(chan *fakeConn, 1000), ln: &fakeListener{conns: make(chan net.Conn), done: make(chan struct{})}}
	web := &http.Server{Handler: f}
	var running sync.WaitGroup
	running.Go(func() { _ = web.Serve(f.ln) }) // ends with web
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return f.ln.dial(ctx) }}
	f.http = &http.Client{Transport: tr}
	t.Cleanup(func() {
		f.ln.Close()
		web.Close()
		running.Wait()
		tr.CloseIdleConnections()
	})
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.status != 0 {
		w.WriteHeader(f.status)
		return
	}
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		f.t.Errorf("accept: %v", err)
		return
	}
	ws.SetReadLimit(-1)
	c := &fakeConn{t: f.t, ws: ws}
	f.conns <- c
	f.t.Cleanup(func() { ws.CloseNow() })
}

// client makes a client of the fake server.
func (f *fake) client(cfg client.Config) *client.Client {
	f.t.Helper()
	cfg.URL, cfg.HTTPClient = "ws://server/ws", f.http
	c, err := client.New(cfg)
	must(f.t, err)
	f.t.Cleanup(func() {
		c.Close()
		<-c.Done()
	})
	go c.Connect(f.t.Context()) // ends with the test
	return c
}

// accept takes the next connection.
func (f *fake) accept() *fakeConn {
	f.t.Helper()
	select {
	case c := <-f.conns:
		return c
	case <-time.After(time.Hour):
		f.t.Fatal("no client has connected")
		return nil
	}
}

// wants takes the next message, which must match a pattern with "…" for any text. It answers
// heartbeats, unless it wants one.
func (c *fakeConn) wants(pattern string) []string {
	c.t.Helper()
	_, text, err := c.ws.Read(c.t.Context())
	for heartbeat := `{"event":"heartbeat"}`; err == nil && string(text) == heartbeat && pattern != heartbeat; {
		c.send("%s", heartbeat)
		_, text, err = c.ws.Read(c.t.Context())
	}
	if err != nil {
		c.t.Fatalf("got %v, want %s", err, pattern)
	}
	m := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), "…", "(.*)") + "$").FindSubmatch(text)
	if m == nil {
		c.t.Fatalf("got %s, want %s", text, pattern)
	}
	var parts []string
	for _, part := range m[1:] {
		parts = append(parts, string(part))
	}
	return parts
}

func (c *fakeConn) send(format string, args ...any) {
	c.t.Helper()
	must(c.t, c.ws.Write(c.t.Context(), websocket.MessageText, fmt.Appendf(nil, format, args...)))
}

// welcome accepts the client, with the given members of hearth.
func (c *fakeConn) welcome(hearth string) {
	c.t.Helper()
	c.wants(`{"event":"authenticate",…`)
	c.send(`{"event":"connected","data":{"id":"1","userId":"ada"}%s}`, hearth)
}

const extension = `,"hearth":{"version":1,"features":["recovery","resume"],"heartbeat":{"interval":25000,"timeout":10000},"limits":{"message":1000}%s}`

type fakeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *fakeListener) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
		return nil, errors.New("refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *fakeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *fakeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *fakeListener) Addr() net.Addr { return &net.UnixAddr{Name: "fake"} }
