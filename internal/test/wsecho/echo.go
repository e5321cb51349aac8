package main

import (
	"bytes"
	"errors"
	"net/http"
	"sync"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/ws"
)

// An echoer upgrades requests, and passes frames for clients to the loop, where they may be
// written.
type echoer struct {
	// Set before it serves, then read-only.
	tr          transport.Transport
	compression bool
	max         int

	mu    sync.Mutex // guards inbox
	inbox []func()
}

// post calls f on the loop.
func (e *echoer) post(f func()) {
	e.mu.Lock()
	e.inbox = append(e.inbox, f)
	e.mu.Unlock()
	e.tr.Wake(0)
}

func (e *echoer) tick(int) bool {
	e.mu.Lock()
	todo := e.inbox
	e.inbox = nil
	e.mu.Unlock()
	for _, f := range todo {
		f()
	}
	return false
}

func (e *echoer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	accepted, err := ws.Upgrade(r)
	var rejected *ws.HandshakeError
	if errors.As(err, &rejected) {
		rejected.Respond(w)
		return
	}
	accepted.Deflate = accepted.Deflate && e.compression
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered()) // sent right behind the request
	if _, err = nc.Write(ws.AppendResponse(nil, accepted, nil)); err == nil {
		err = e.tr.Adopt(nc, early, func(c transport.Conn) transport.Handler {
			return &client{e: e, conn: c, in: ws.NewEndpoint(ws.Server, e.max, accepted.Deflate), deflate: accepted.Deflate}
		})
	}
	if err != nil {
		_ = nc.Close()
	}
}

// A client implements transport.Handler, and ws.Handler for its input. Owned by the goroutine that
// calls Data.
type client struct {
	e       *echoer
	conn    transport.Conn
	in      ws.Endpoint
	deflate bool
}

func (c *client) Data(b []byte, _ clock.Instant) {
	var broken *ws.CloseError
	if errors.As(c.in.Feed(b, c), &broken) {
		c.finish(broken.Code, broken.Reason)
	}
}

func (c *client) PeerClosed() bool {
	c.e.post(func() { c.conn.CloseAfterFlush(nil) })
	return true
}

func (c *client) Drained() {}

func (c *client) Closed(error) {}

func (c *client) Message(op ws.Opcode, payload []byte) {
	if op == ws.OpText && c.deflate {
		c.write(ws.NewMessage(bytes.Clone(payload)).Deflated())
		return
	}
	c.write(ws.AppendFrame(nil, op, payload))
}

func (c *client) Ping(payload []byte) { c.write(ws.AppendFrame(nil, ws.OpPong, payload)) }

func (c *client) Pong([]byte) {}

func (c *client) Close(code int, _ string) { c.finish(code, "") }

// write sends frame. It aborts a client that does not read.
func (c *client) write(frame []byte) {
	c.e.post(func() {
		if !c.conn.Write(frame) {
			c.conn.Abort()
		}
	})
}

func (c *client) finish(code int, reason string) {
	frame := ws.AppendClose(nil, code, reason)
	c.e.post(func() { c.conn.CloseAfterFlush(frame) })
}
