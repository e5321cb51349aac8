package main

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// The addresses of the clients. All of 127.0.0.0/8 is this machine.
const (
	honest   = "127.0.0.1"
	attacker = "127.0.0.2"
)

const patience = 10 * time.Second // for one answer of the server

// The first bytes of frames.
const (
	opText     = 0x1
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xA
	final      = 0x80
	compressed = 0x40
)

var errRejected = errors.New("the server rejected the handshake")

// A client is one WebSocket connection that sends exactly what an attack needs, valid or not. One
// goroutine may read while another one writes.
type client struct {
	id   string // set by authenticate
	conn *net.TCPConn
	in   *bufio.Reader
}

// dialTCP connects from the given address. The connection is closed when ctx is done.
func dialTCP(ctx context.Context, from, to string) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience, KeepAlive: -1}
	conn, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	tcp := conn.(*net.TCPConn)
	return tcp, tcp.SetLinger(0) // thousands of connections in TIME_WAIT would use all ports
}

// handshake returns the request for a WebSocket, with further header lines.
func handshake(to string, headers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", to)
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return b.String() + "\r\n"
}

const deflateHeader = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"

// dial opens a WebSocket. It returns errRejected for an answer other than 101.
func dial(ctx context.Context, from, to string, headers ...string) (*client, error) {
	conn, err := dialTCP(ctx, from, to)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, in: bufio.NewReader(conn)}
	if err := c.open(handshake(to, headers...)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) open(request string) error {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c.conn, request); err != nil {
		return err
	}
	status, err := c.in.ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the answer to the handshake: %w", err)
	}
	if !strings.HasPrefix(status, "HTTP/1.1 101 ") {
		return fmt.Errorf("%w: %s", errRejected, strings.TrimSpace(status))
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("read the answer to the handshake: %w", err)
		}
		if line == "\r\n" {
			return c.conn.SetDeadline(time.Time{})
		}
	}
}

// connect opens a WebSocket and authenticates.
func connect(ctx context.Context, from, to string, headers ...string) (*client, error) {
	c, err := dial(ctx, from, to, headers...)
	if err != nil {
		return nil, err
	}
	if err := c.authenticate(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *client) authenticate() error {
	if err := c.send(`{"event":"authenticate","data":{"name":"visitor"}}`); err != nil {
		return err
	}
	e, err := c.await("connected")
	if err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	var data struct{ ID string }
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return fmt.Errorf("read connected: %w", err)
	}
	c.id = data.ID
	return nil
}

func (c *client) close() { _ = c.conn.Close() }

// write writes bytes, which need not be frames.
func (c *client) write(b []byte) error {
	_, err := c.conn.Write(b)
	return err
}

// send sends one text message.
func (c *client) send(text string) error { return c.write(frame(final|opText, []byte(text))) }

// An envelope is a message of the server.
type envelope struct {
	Event string
	Data  json.RawMessage
}

// await reads until an event arrives, for at most patience.
func (c *client) await(event string) (envelope, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return envelope{}, err
	}
	defer c.conn.SetReadDeadline(time.Time{})
	for {
		e, err := c.next()
		if err != nil || e.Event == event {
			return e, err
		}
	}
}

// next returns the next message of the server. It answers pings.
func (c *client) next() (envelope, error) {
	for {
		op, payload, err := c.readFrame()
		switch {
		case err != nil:
			return envelope{}, err
		case op == opClose:
			return envelope{}, closedError(payload)
		case op == opPing:
			if err := c.write(frame(final|opPong, payload)); err != nil {
				return envelope{}, err
			}
		case op == opText:
			var e envelope
			if err := json.Unmarshal(payload, &e); err != nil {
				return envelope{}, fmt.Errorf("message of the server: %w", err)
			}
			return e, nil
		}
	}
}

// collect reads messages until the connection ends, which is no error.
func (c *client) collect(each func(envelope)) {
	for {
		e, err := c.next()
		if err != nil {
			return
		}
		each(e)
	}
}

// ignore reads and drops everything, so that the client never delays the server. It ends with the
// connection.
func (c *client) ignore() { _, _ = io.Copy(io.Discard, c.in) }

// A closedError is a close frame of the server.
type closedError []byte

func (e closedError) Error() string {
	if len(e) < 2 {
		return "closed by the server"
	}
	return fmt.Sprintf("closed by the server: %d %s", binary.BigEndian.Uint16(e), string(e[2:]))
}

func (c *client) readFrame() (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, err
	}
	length := uint64(head[1] & 0x7F)
	if size := map[uint64]int{126: 2, 127: 8}[length]; size > 0 {
		var more [8]byte
		if _, err := io.ReadFull(c.in, more[8-size:]); err != nil {
			return 0, nil, err
		}
		length = binary.BigEndian.Uint64(more[:])
	}
	if length > 64<<20 {
		return 0, nil, fmt.Errorf("a frame of %d bytes from the server", length)
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(c.in, payload)
	return head[0] & 0x0F, payload, err
}

// frame returns a client's frame, always masked with the same key.
func frame(first byte, payload []byte) []byte {
	key := [4]byte{0x5A, 0xA5, 0x3C, 0xC3}
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i%4])
	}
	return b
}

// inflating returns a compressed frame whose message has size bytes.
func inflating(size int) ([]byte, error) {
	const head, foot = `{"event":"x","data":"`, `"}`
	text := head + strings.Repeat("a", size-len(head)-len(foot)) + foot
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	// RFC 7692 §7.2.1
	return frame(final|compressed|opText, bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xFF, 0xFF})), nil
}

// echo measures one message through the server's message callback, which answers every unknown
// event.
func (c *client) echo(number int) (time.Duration, error) {
	id := strconv.Itoa(number)
	begun := time.Now()
	if err := c.send(`{"event":"echo","id":"` + id + `"}`); err != nil {
		return 0, err
	}
	for {
		e, err := c.await("rejected")
		if err != nil {
			return 0, fmt.Errorf("wait for an echo: %w", err)
		}
		var data struct{ ID string }
		if json.Unmarshal(e.Data, &data) == nil && data.ID == id {
			return time.Since(begun), nil
		}
	}
}

// ping measures one ping of RFC 6455.
func (c *client) ping() (time.Duration, error) {
	begun := time.Now()
	if err := c.write(frame(final|opPing, []byte("ping"))); err != nil {
		return 0, err
	}
	if err := c.conn.SetReadDeadline(begun.Add(patience)); err != nil {
		return 0, err
	}
	defer c.conn.SetReadDeadline(time.Time{})
	for {
		op, payload, err := c.readFrame()
		switch {
		case err != nil:
			return 0, fmt.Errorf("wait for a pong: %w", err)
		case op == opClose:
			return 0, closedError(payload)
		case op == opPong:
			return time.Since(begun), nil
		}
	}
}

// An observer is a well-behaved client, whose latency shows the effect of an attack. It has two
// connections, so that pings and messages do not wait for each other.
type observer struct{ pinging, echoing *client }

// latencies are the results of an observer.
type latencies struct{ ping, echo samples }

func newObserver(ctx context.Context, s *server) (*observer, error) {
	pinging, err := connect(ctx, honest, s.addr)
	if err != nil {
		return nil, err
	}
	echoing, err := connect(ctx, honest, s.addr)
	return &observer{pinging, echoing}, err
}

// observe sends pings and messages, each a few milliseconds after the last answer. A missing answer
// counts as patience.
func (o *observer) observe(ctx context.Context, length time.Duration) (latencies, error) {
	var seen latencies
	var errs [2]error
	end := time.Now().Add(length)
	both := start(ctx, 2, func(ctx context.Context, number int) {
		if number == 0 {
			seen.ping, errs[0] = repeat(ctx, end, func(int) (time.Duration, error) { return o.pinging.ping() })
		} else {
			seen.echo, errs[1] = repeat(ctx, end, o.echoing.echo)
		}
	})
	both.wait()
	return seen, errors.Join(errs[:]...)
}

func repeat(ctx context.Context, end time.Time, measure func(number int) (time.Duration, error)) (samples, error) {
	const pause = 4 * time.Millisecond
	var took samples
	for n := 0; time.Now().Before(end); n++ {
		d, err := measure(n)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return append(took, patience), nil // end here: half an answer may have been read
		}
		if err != nil {
			return took, err
		}
		took = append(took, d)
		if err := sleep(ctx, pause); err != nil {
			return took, err
		}
	}
	return took, nil
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
