package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"
)

const (
	connectTimeout = 5 * time.Second // for the connection and the handshake
	closeTimeout   = time.Second     // for the answer to a close frame
	maxFrame       = 64 << 10        // of a server, in bytes
)

// The first bytes of frames.
const (
	opContinuation = 0x0
	opText         = 0x1
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
	final          = 0x80
)

// A closedError is the close frame of a server.
type closedError struct {
	code   int
	reason string
}

func (e *closedError) Error() string {
	return fmt.Sprintf("closed by the server: %d %s", e.code, e.reason)
}

var errFrame = errors.New("the server sent an invalid frame")

// A socket is one WebSocket connection of a client. It is for one goroutine.
type socket struct {
	conn *net.TCPConn
	in   *bufio.Reader
	out  []byte // reused for each frame
}

// dial opens a WebSocket.
func dial(ctx context.Context, addr, path string) (*socket, error) {
	d := net.Dialer{Timeout: connectTimeout, KeepAlive: -1}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn.(*net.TCPConn), in: bufio.NewReader(conn)}
	stop := context.AfterFunc(ctx, s.reset)
	defer stop()
	if err := s.open(addr, path); err != nil {
		s.reset()
		return nil, fmt.Errorf("open a WebSocket: %w", err)
	}
	return s, nil
}

// open sends the request of the handshake, and reads the answer.
func (s *socket) open(host, path string) error {
	if err := s.conn.SetDeadline(time.Now().Add(connectTimeout)); err != nil {
		return err
	}
	request := "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if _, err := io.WriteString(s.conn, request); err != nil {
		return err
	}
	status, err := s.in.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(status, "HTTP/1.1 101 ") {
		return fmt.Errorf("the server answered %s", strings.TrimSpace(status))
	}
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return err
		}
		if line == "\r\n" {
			return s.conn.SetDeadline(time.Time{})
		}
	}
}

// send sends one text message.
func (s *socket) send(text []byte) error { return s.write(opText, text) }

// write sends one frame. A server that does not read for connectTimeout is an error.
func (s *socket) write(op byte, payload []byte) error {
	b := append(s.out[:0], final|op)
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		return fmt.Errorf("send: a frame of %d bytes", n)
	}
	var key [4]byte
	binary.BigEndian.PutUint32(key[:], rand.Uint32()) // there is no proxy to protect
	b = append(b, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i%4])
	}
	s.out = b
	if err := s.conn.SetWriteDeadline(time.Now().Add(connectTimeout)); err != nil {
		return err
	}
	_, err := s.conn.Write(b)
	return err
}

// setDeadline sets the time at which receive returns os.ErrDeadlineExceeded. After that error,
// receive can be called again.
func (s *socket) setDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// receive returns the next message. It answers pings; heard is called for each frame. The error is
// a *closedError after a close frame, which is answered.
func (s *socket) receive(heard func()) ([]byte, error) {
	for {
		op, payload, err := s.frame()
		if err != nil {
			return nil, err
		}
		heard()
		switch op {
		case opText:
			return payload, nil
		case opPing:
			if err := s.write(opPong, payload); err != nil {
				return nil, err
			}
		case opClose:
			e := &closedError{code: 1005}
			if len(payload) >= 2 {
				e.code, e.reason = int(binary.BigEndian.Uint16(payload)), string(payload[2:])
			}
			_ = s.write(opClose, payload[:min(2, len(payload))]) // the server may be gone
			return nil, e
		}
	}
}

// frame reads one frame. It consumes nothing before all of it has arrived, so it can be called
// again after a deadline. The payload is valid until the next call.
func (s *socket) frame() (op byte, payload []byte, err error) {
	head, err := s.in.Peek(2)
	if err != nil {
		return 0, nil, err
	}
	op, size, length := head[0]&0x0F, 2, int(head[1])
	if head[0]&^0x0F != final || length > 127 || op == opContinuation {
		return 0, nil, fmt.Errorf("%w: %#x %#x", errFrame, head[0], head[1])
	}
	switch length {
	case 126:
		size = 4
		if head, err = s.in.Peek(size); err != nil {
			return 0, nil, err
		}
		length = int(binary.BigEndian.Uint16(head[2:]))
	case 127:
		return 0, nil, fmt.Errorf("%w: over %d bytes", errFrame, maxFrame)
	}
	if size+length > s.in.Size() { // rare: copy the bytes to a larger buffer
		s.in = bufio.NewReaderSize(s.in, maxFrame+size)
	}
	whole, err := s.in.Peek(size + length)
	if err != nil {
		return 0, nil, err
	}
	_, err = s.in.Discard(size + length)
	return op, whole[size:], err
}

// reset cuts the connection by an RST.
func (s *socket) reset() {
	_ = s.conn.SetLinger(0) // an error means that it is closed
	_ = s.conn.Close()
}

// close closes the connection as RFC 6455 wants, and drops the messages that arrive meanwhile.
func (s *socket) close() {
	_ = s.write(opClose, []byte{1000 >> 8, 1000 & 0xFF})
	_ = s.conn.SetReadDeadline(time.Now().Add(closeTimeout))
	for {
		op, _, err := s.frame()
		if err != nil || op == opClose {
			break
		}
	}
	s.reset() // both sides have closed: no TIME_WAIT is needed
}
