package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"
)

const mostLines = 10 // per second

// A shout is an action that a server may log, repeated by one attacker. It adds the number of its
// actions to did.
type shout struct {
	name   string
	length time.Duration
	redis  bool // messages cannot be published: Redis is dead
	do     func(ctx context.Context, addr string, did *atomic.Int64) error
}

// logs measures how many lines per second clients can make the server log at its default level.
func logs(ctx context.Context, l *lab) ([]figure, error) {
	var figures []figure
	for _, sh := range []shout{
		{"clients that reset", 5 * time.Second, false, shoutReset},
		{"invalid messages", 3 * time.Second, false, shoutInvalid},
		{"protocol violations", 3 * time.Second, false, shoutViolation},
		{"rejected origins", 3 * time.Second, false, shoutOrigin},
		{"rejected users", 3 * time.Second, false, shoutUser},
		{"rejected joins", 3 * time.Second, false, shoutJoin},
		{"bad requests", 3 * time.Second, false, shoutRequest},
		{"failed callbacks", 3 * time.Second, true, shoutFailing},
	} {
		if sh.redis && !hasRedis() {
			continue
		}
		f, err := sh.measure(ctx, l)
		l.close()
		if err != nil {
			return figures, fmt.Errorf("%s: %w", sh.name, err)
		}
		figures = append(figures, f)
	}
	return figures, nil
}

func (sh shout) measure(ctx context.Context, l *lab) (figure, error) {
	const attackers = 8
	var options []string
	kill := func() {}
	if sh.redis {
		r, err := l.redis(ctx, nil)
		if err != nil {
			return figure{}, err
		}
		options, kill = []string{"--redis", r.URL()}, r.Stop
	}
	s, err := l.serve(ctx, options...)
	if err != nil {
		return figure{}, err
	}
	before := s.log.lines()
	kill()
	var did atomic.Int64
	sw := start(ctx, attackers, func(ctx context.Context, _ int) {
		again(ctx, func(ctx context.Context) error { return sh.do(ctx, s.addr, &did) })
	})
	err = sleep(ctx, sh.length)
	sw.stop()
	if err != nil {
		return figure{}, err
	}
	if err := sleep(ctx, 500*time.Millisecond); err != nil { // for output that is still in the pipe
		return figure{}, err
	}
	if did.Load() == 0 {
		return figure{}, fmt.Errorf("the attack performed no action")
	}
	message, n := s.log.most()
	return figure{
		name: "lines, " + sh.name, value: float64(s.log.lines()-before) / sh.length.Seconds(), unit: "/s", target: atMost(mostLines),
		note: fmt.Sprintf("%d times; most: %d × %q", did.Load(), n, message),
	}, nil
}

// shoutReset sends messages and resets the connection before the answers can be sent.
func shoutReset(ctx context.Context, addr string, did *atomic.Int64) error {
	c, err := connect(ctx, attacker, addr)
	if err != nil {
		return err
	}
	defer c.close() // resets
	did.Add(1)
	return c.write(bytes.Repeat(frame(final|opText, []byte(`{"event":"echo","id":"1"}`)), 1000))
}

func shoutInvalid(ctx context.Context, addr string, did *atomic.Int64) error {
	c, err := connect(ctx, attacker, addr)
	if err != nil {
		return err
	}
	defer c.close()
	go c.ignore() // ends with the connection
	var burst []byte
	for _, text := range []string{`{`, `1`, `[]`, `null`, `{}`, `{"event":7}`, `{"event":""}`, `{"event":"connected"}`} {
		burst = append(burst, frame(final|opText, []byte(text))...)
	}
	for range 1000 {
		if err := c.write(burst); err != nil {
			return err
		}
		did.Add(8)
	}
	return nil
}

func shoutViolation(ctx context.Context, addr string, did *atomic.Int64) error {
	for _, v := range violations() {
		c, err := connect(ctx, attacker, addr)
		if err != nil {
			return err
		}
		did.Add(1)
		err = c.write(v.bytes)
		if err == nil {
			_, _ = io.Copy(io.Discard, c.in) // until the server closes it
		}
		c.close()
	}
	return nil
}

func shoutOrigin(ctx context.Context, addr string, did *atomic.Int64) error {
	did.Add(1)
	c, err := dial(ctx, attacker, addr, fmt.Sprintf("Origin: https://evil-%d.example", did.Load()))
	if err == nil {
		c.close()
		return fmt.Errorf("a page of another origin was accepted")
	}
	return nil
}

func shoutUser(ctx context.Context, addr string, did *atomic.Int64) error {
	c, err := dial(ctx, attacker, addr)
	if err != nil {
		return err
	}
	defer c.close()
	did.Add(1)
	if err := c.send(`{"event":"authenticate","data":{"name":"\u0007"}}`); err != nil {
		return err
	}
	_, err = c.await("error")
	return err
}

func shoutJoin(ctx context.Context, addr string, did *atomic.Int64) error {
	c, err := connect(ctx, attacker, addr)
	if err != nil {
		return err
	}
	defer c.close()
	go c.ignore() // ends with the connection
	join := frame(final|opText, []byte(`{"event":"join","data":{"rooms":["", 7, "ws:room", "bell\u0007", "`+strings.Repeat("x", 300)+`"]}}`))
	var rooms []string
	for i := range 2000 { // more rooms than a client may be in
		rooms = append(rooms, fmt.Sprintf(`"room %d"`, i))
	}
	many := frame(final|opText, []byte(`{"event":"join","data":{"rooms":[`+strings.Join(rooms, ",")+`]}}`))
	for range 100 {
		if err := c.write(append(bytes.Repeat(join, 10), many...)); err != nil {
			return err
		}
		did.Add(11)
	}
	return nil
}

func shoutRequest(ctx context.Context, addr string, did *atomic.Int64) error {
	for _, request := range []string{
		"\x16\x03\x01\x02\x00", // TLS
		"GET / HTTP/9.9\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 7\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n\r\n",
		"POST /ws HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
	} {
		conn, err := dialTCP(ctx, attacker, addr)
		if err != nil {
			return err
		}
		did.Add(1)
		_, err = io.WriteString(conn, request)
		if err == nil {
			_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // some get no answer
			_, _ = conn.Read(make([]byte, 512))
		}
		_ = conn.Close()
	}
	return nil
}

// shoutFailing sends messages whose callbacks publish, which fails without Redis.
func shoutFailing(ctx context.Context, addr string, did *atomic.Int64) error {
	c, err := connect(ctx, attacker, addr)
	if err != nil {
		return err
	}
	defer c.close()
	go c.ignore() // ends with the connection
	for range 500 {
		if err := c.send(`{"event":"seen","data":{"id":"1","to":"none"}}`); err != nil {
			return err
		}
		did.Add(1)
	}
	return nil
}
