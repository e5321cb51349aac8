package e2e_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// A wire carries the messages of one client of a test. There are two: coder/websocket, which shares
// no code with this project, and hand-written frames, which may break the rules and show pings and
// pongs.
type wire interface {
	send(op byte, payload []byte) error
	recv() (op byte, payload []byte, err error)
	close() // without a close frame
}

// The opcodes of RFC 6455 §5.2.
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// answer is how long a test waits for an event that should happen at once. It allows for a busy
// machine.
const answer = time.Minute

const (
	handshakeHead = "GET /ws HTTP/1.1\r\nHost: hearth.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	handshake = handshakeHead + "\r\n"
)

// rawWire writes and reads frames by hand.
type rawWire struct {
	conn net.Conn
	in   *bufio.Reader
	mu   sync.Mutex // one frame at a time
}

// upgrade sends the handshake, with further bytes in the same segment.
func upgrade(conn net.Conn, early ...byte) (*rawWire, error) {
	return upgradeWith(conn, "", early...)
}

// upgradeWith is upgrade with further header lines.
func upgradeWith(conn net.Conn, header string, early ...byte) (*rawWire, error) {
	wrote := make(chan error, 1)
	go func() { // ends when the server has read everything, or with the connection
		_, err := conn.Write(append([]byte(handshakeHead+header+"\r\n"), early...))
		wrote <- err
	}()
	w := &rawWire{conn: conn, in: bufio.NewReaderSize(conn, 512)}
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		conn.Close()
		return nil, errors.Join(err, <-wrote)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		conn.Close()
		return nil, errors.Join(fmt.Errorf("handshake answered with %s, %v", resp.Status, resp.Header), <-wrote)
	}
	return w, <-wrote
}

func (w *rawWire) send(op byte, payload []byte) error { return w.frame(0x80|op, payload) }

// frame sends one frame whose first byte is head.
func (w *rawWire) frame(head byte, payload []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.conn.Write(frameOf(head, payload))
	return err
}

func frameOf(head byte, payload []byte) []byte {
	b := []byte{head, 0x80}
	switch n := len(payload); {
	case n < 126:
		b[1] |= byte(n)
	case n < 1<<16:
		b[1] |= 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] |= 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	key := [4]byte{1, 2, 3, 4}
	b = append(b, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i%4])
	}
	return b
}

func (w *rawWire) recv() (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(w.in, head[:]); err != nil {
		return 0, nil, err
	}
	if head[0]&0xF0 != 0x80 || head[1]&0x80 != 0 {
		return 0, nil, fmt.Errorf("a server's frame begins with %x", head)
	}
	n := int(head[1])
	switch n {
	case 126:
		var ext [2]byte
		_, err = io.ReadFull(w.in, ext[:])
		n = int(binary.BigEndian.Uint16(ext[:]))
	case 127:
		var ext [8]byte
		_, err = io.ReadFull(w.in, ext[:])
		n = int(binary.BigEndian.Uint64(ext[:]))
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(w.in, payload)
	return head[0] & 0xF, payload, err
}

func (w *rawWire) close() { w.conn.Close() }

// coderWire uses coder/websocket.
type coderWire struct{ conn *websocket.Conn }

func dialCoder(url string, mode websocket.CompressionMode) (*coderWire, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answer)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{CompressionMode: mode})
	if err != nil {
		return nil, err
	}
	if resp.Body != nil {
		resp.Body.Close()
	}
	c.SetReadLimit(-1)
	return &coderWire{c}, nil
}

func (w *coderWire) send(op byte, payload []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), answer)
	defer cancel()
	if op == opClose {
		// Close waits for the answer, which the reader takes.
		return w.conn.Close(websocket.StatusCode(binary.BigEndian.Uint16(payload)), string(payload[2:]))
	}
	return w.conn.Write(ctx, websocket.MessageType(op), payload)
}

func (w *coderWire) recv() (op byte, payload []byte, err error) {
	typ, payload, err := w.conn.Read(context.Background())
	var ce websocket.CloseError
	if errors.As(err, &ce) {
		return opClose, append(binary.BigEndian.AppendUint16(nil, uint16(ce.Code)), ce.Reason...), nil
	}
	return byte(typ), payload, err
}

func (w *coderWire) close() { w.conn.CloseNow() }
