package ws_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/hearthws/hearth/internal/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An echoer is one end of a connection, made of this package alone. It answers messages, pings and
// close frames.
type echoer struct {
	conn    net.Conn
	role    ws.Role
	deflate bool
	closed  bool
	err     error
}

func (e *echoer) write(b []byte) {
	if _, err := e.conn.Write(b); err != nil && e.err == nil {
		e.err = err
	}
}

func (e *echoer) Message(op ws.Opcode, p []byte) {
	switch {
	case e.role == ws.Client && e.deflate:
		e.write(ws.AppendMaskedFrame(nil, op, true, []byte(deflated(string(p)))))
	case e.role == ws.Client:
		e.write(ws.AppendMaskedFrame(nil, op, false, p))
	case op == ws.OpText && e.deflate:
		e.write(ws.NewMessage(p).Deflated())
	default:
		e.write(ws.AppendFrame(nil, op, p))
	}
}

func (e *echoer) Ping(p []byte) {
	if e.role == ws.Client {
		e.write(ws.AppendMaskedFrame(nil, ws.OpPong, false, p))
		return
	}
	e.write(ws.AppendFrame(nil, ws.OpPong, p))
}

func (e *echoer) Pong([]byte) {}

func (e *echoer) Close(code int, reason string) {
	e.closed = true
	if e.role == ws.Client {
		e.write(ws.AppendMaskedClose(nil, code, reason))
		return
	}
	e.write(ws.AppendClose(nil, code, reason))
}

// serve reads until the peer has closed. It reads chunk bytes at a time, so that frames are split.
func (e *echoer) serve(r io.Reader, chunk int) error {
	end := ws.NewEndpoint(e.role, 1<<20, e.deflate)
	buf := make([]byte, chunk)
	for !e.closed && e.err == nil {
		n, err := r.Read(buf)
		if ferr := end.Feed(buf[:n], e); ferr != nil {
			return ferr
		}
		if err != nil {
			return err
		}
	}
	return e.err
}

// payloads returns text of all lengths at which the encoding changes, some of it compressible.
func payloads() []string {
	rng := rand.New(rand.NewPCG(3, 4))
	var all []string
	for _, n := range []int{0, 1, 125, 126, 255, 256, 4096, 65535, 65536, 300_000} {
		noise := make([]byte, n)
		for i := range noise {
			noise[i] = byte(' ' + rng.IntN(95))
		}
		all = append(all, strings.ToValidUTF8(strings.Repeat("κόσμε ", n/11+1)[:n], ""), string(noise))
	}
	return all
}

// talk runs coder's end of the connection.
func talk(ctx context.Context, c *websocket.Conn) error {
	c.SetReadLimit(1 << 20)
	for _, p := range payloads() {
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			if err := c.Write(ctx, kind, []byte(p)); err != nil {
				return fmt.Errorf("write %d bytes: %w", len(p), err)
			}
			got, back, err := c.Read(ctx)
			if err != nil || got != kind || string(back) != p {
				return fmt.Errorf("%v of %d bytes: got %v of %d, %w", kind, len(p), got, len(back), err)
			}
		}
	}
	parts := []string{"frag", "mén", "", "ts ", strings.Repeat("long ", 2000)}
	if err := writeParts(ctx, c, parts); err != nil {
		return fmt.Errorf("write fragments: %w", err)
	}
	if _, back, err := c.Read(ctx); err != nil || string(back) != strings.Join(parts, "") {
		return fmt.Errorf("fragments: got %d bytes, %w", len(back), err)
	}
	return c.Close(websocket.StatusNormalClosure, "done")
}

// writeParts sends one message with a Write for each part, from which coder makes fragments.
func writeParts(ctx context.Context, c *websocket.Conn, parts []string) error {
	w, err := c.Writer(ctx, websocket.MessageText)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if _, err := io.WriteString(w, part); err != nil {
			return err
		}
	}
	return w.Close()
}

var coderModes = map[string]websocket.CompressionMode{
	"plain": websocket.CompressionDisabled, "no takeover": websocket.CompressionNoContextTakeover, "takeover": websocket.CompressionContextTakeover,
}

// TestCoderClient runs coder's client against this package as the server.
func TestCoderClient(t *testing.T) {
	t.Parallel()
	for name, mode := range coderModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			done := make(chan error, 1)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { done <- hijackAndEcho(w, r) }))
			defer srv.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			c, resp, err := websocket.Dial(ctx, srv.URL, &websocket.DialOptions{CompressionMode: mode, CompressionThreshold: 1, HTTPClient: srv.Client()})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.CloseNow() }()
			if agreed := resp.Header.Get("Sec-WebSocket-Extensions") != ""; agreed != (mode != websocket.CompressionDisabled) {
				t.Errorf("compression agreed: %v", agreed)
			}
			if err := talk(ctx, c); err != nil {
				t.Error(err)
			}
			_ = c.CloseNow()
			if err := <-done; err != nil {
				t.Errorf("server: %v", err)
			}
		})
	}
}

func hijackAndEcho(w http.ResponseWriter, r *http.Request) error {
	a, err := ws.Upgrade(r)
	if err != nil {
		var he *ws.HandshakeError
		errors.As(err, &he)
		he.Respond(w)
		return err
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	e := &echoer{conn: conn, deflate: a.Deflate}
	e.write(ws.AppendResponse(nil, a, nil))
	return e.serve(rw, 1000)
}

// TestCoderServer runs coder's server against this package as the client.
func TestCoderServer(t *testing.T) {
	t.Parallel()
	for name, mode := range coderModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			done := make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(done)
				c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: mode, CompressionThreshold: 1})
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = c.CloseNow() }()
				if err := talk(ctx, c); err != nil {
					t.Error(err)
				}
			}))
			defer srv.Close()
			if err := dialAndEcho(srv.Listener.Addr().String(), mode != websocket.CompressionDisabled); err != nil {
				t.Errorf("client: %v", err)
			}
			<-done
		})
	}
}

func dialAndEcho(addr string, deflate bool) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	e := &echoer{conn: conn, role: ws.Client, deflate: deflate}
	var b bytes.Buffer
	b.WriteString("GET / HTTP/1.1\r\nHost: " + addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + sampleKey + "\r\n")
	if deflate {
		b.WriteString("Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n")
	}
	b.WriteString("\r\n")
	e.write(b.Bytes())
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != ws.AcceptKey(sampleKey) {
		return errors.New("rejected: " + resp.Status)
	}
	return e.serve(br, 777)
}
