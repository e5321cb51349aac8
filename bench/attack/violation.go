package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A violationCase is a name and a sequence of bytes that a server must answer by closing the
// connection.
type violationCase struct {
	name  string
	bytes []byte
}

func violations() []violationCase {
	return []violationCase{
		{"an unknown opcode", frame(final|0x3, nil)},
		{"text that is not UTF-8", frame(final|opText, []byte("\xff"))},
		{"a message that is too long", frame(final|opText, bytes.Repeat([]byte("x"), 200<<10))},
		{"a frame that is not masked", []byte{final | opText, 1, '{'}},
	}
}

// violation measures how many messages before a violation are handled. Each one publishes an event
// to another client.
func violation(ctx context.Context, l *lab) ([]figure, error) {
	const messages = 100
	s, err := l.serve(ctx)
	if err != nil {
		return nil, err
	}
	fewest, note := float64(messages), "in each of four ways"
	for _, v := range violations() {
		n, err := handledBefore(ctx, s, messages, v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
		if float64(n) < fewest {
			fewest, note = float64(n), "before "+v.name
		}
	}
	owed, err := countReplies(ctx, s)
	if err != nil {
		return nil, err
	}
	return []figure{
		{name: "handled of 100 messages before a violation", value: fewest, target: atLeast(messages), note: note},
		{name: `"Not authenticated" of 16 before 1008`, value: float64(owed), target: atLeast(16)},
	}, nil
}

func handledBefore(ctx context.Context, s *server, messages int, v violationCase) (int, error) {
	witness, err := connect(ctx, honest, s.addr)
	if err != nil {
		return 0, err
	}
	defer witness.close()
	c, err := connect(ctx, attacker, s.addr)
	if err != nil {
		return 0, err
	}
	defer c.close()
	var seen atomic.Int64
	counted := start(ctx, 1, func(context.Context, int) { witness.collect(countSeen(&seen)) })
	if err := c.write(append(bytes.Repeat(seenMessage(witness.id), messages), v.bytes...)); err != nil {
		return 0, err
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, c.in) // until the server closes it
	err = sleep(ctx, 300*time.Millisecond)
	witness.close()
	counted.stop()
	return int(seen.Load()), err
}

// seenMessage returns a message whose callback sends an event to a client.
func seenMessage(id string) []byte {
	return frame(final|opText, []byte(`{"event":"seen","data":{"id":"1","to":"`+id+`"}}`))
}

func countSeen(n *atomic.Int64) func(envelope) {
	return func(e envelope) {
		if e.Event == "seen" {
			n.Add(1)
		}
	}
}

// countReplies counts the replies to a client that sends too much before it has authenticated.
func countReplies(ctx context.Context, s *server) (int, error) {
	c, err := dial(ctx, attacker, s.addr)
	if err != nil {
		return 0, err
	}
	defer c.close()
	if err := c.write(bytes.Repeat(frame(final|opText, []byte(`{"event":"say"}`)), 20)); err != nil {
		return 0, err
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	n := 0
	c.collect(func(e envelope) {
		if e.Event == "error" && strings.Contains(string(e.Data), "Not authenticated") {
			n++
		}
	})
	return n, nil
}

// droppedMessages returns the number of received messages that the log reports as dropped.
func (l *logCounter) droppedMessages() int {
	return l.sum([]string{"not handled", "discarded", "dropped"}, []string{"messages", "discarded", "unhandled"})
}

// failedCallbacks returns the number of messages whose callbacks failed: the server has handled and
// logged them.
func (l *logCounter) failedCallbacks() int {
	const phrase = "callback failed"
	return l.linesWith(phrase) + l.sum([]string{phrase}, []string{"suppressed"})
}

// shutdown measures what happens to received messages when the server is told to end. Each one
// publishes an event to a client of another node.
func shutdown(ctx context.Context, l *lab) ([]figure, error) {
	const (
		senders  = 50
		messages = 1000 // of each client: as many as the server accepts from one client at once
	)
	r, err := l.redis(ctx, nil)
	if err != nil {
		return nil, err
	}
	// The witness receives all events within a second or two; none may be dropped because it reads
	// slowly.
	nodes, err := l.nodes(ctx, 2, r.URL(), "--backpressure-limit", "64MiB")
	if err != nil {
		return nil, err
	}
	leaving, staying := nodes[0], nodes[1]
	witness, err := connect(ctx, honest, staying.addr)
	if err != nil {
		return nil, err
	}
	var seen atomic.Int64
	counted := start(ctx, 1, func(context.Context, int) { witness.collect(countSeen(&seen)) })
	var clients []*client
	for range senders {
		c, err := connect(ctx, attacker, leaving.addr)
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
	}
	burst := bytes.Repeat(seenMessage(witness.id), messages)
	var sent atomic.Int64
	sw := start(ctx, senders, func(ctx context.Context, number int) {
		c := clients[number]
		if c.write(burst) == nil {
			sent.Add(messages)
		}
		c.ignore()
	})
	defer sw.stop()
	for end := time.Now().Add(patience); sent.Load() < senders*messages; {
		if time.Now().After(end) {
			return nil, fmt.Errorf("only %d messages could be sent", sent.Load())
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return nil, err
		}
	}
	unread, err := leaving.awaitRead(ctx, senders*len(burst)/100, 2*time.Second)
	if err != nil {
		return nil, err
	}
	already := seen.Load()
	if err := leaving.Signal(syscall.SIGTERM); err != nil {
		return nil, err
	}
	if !leaving.EndsWithin(20 * time.Second) {
		return nil, fmt.Errorf("the server did not end")
	}
	if err := settled(ctx, &seen); err != nil {
		return nil, err
	}
	witness.close()
	counted.stop()
	// messages in the server's sockets are not received
	received := senders*messages - unread/len(seenMessage(witness.id))
	reported := leaving.log.droppedMessages() + leaving.log.failedCallbacks()
	exit := "exit code 0"
	if err := leaving.Err(); err != nil {
		exit = err.Error()
	}
	return []figure{{
		name: "received - handled - reported", value: float64(max(0, received-int(seen.Load())-reported)), target: atMost(0),
		note: fmt.Sprintf("received %d, handled %d (%d before the signal), reported %d; %s", received, seen.Load(), already, reported, exit),
	}}, nil
}

// awaitRead waits until the server has read all but a few of the arrived bytes, and returns the
// number of the rest.
func (s *server) awaitRead(ctx context.Context, few int, longest time.Duration) (int, error) {
	for end := time.Now().Add(longest); ; {
		n, err := s.unread()
		if err != nil || n <= few || time.Now().After(end) {
			return n, err
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return n, err
		}
	}
}

// settled waits until a counter has not changed for half a second.
func settled(ctx context.Context, n *atomic.Int64) error {
	for last := int64(-1); n.Load() != last; {
		last = n.Load()
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// parseNumber parses the number in the data of an event.
func parseNumber(e envelope, event string) (int, bool) {
	var data struct{ N int }
	if e.Event != event || json.Unmarshal(e.Data, &data) != nil {
		return 0, false
	}
	return data.N, true
}
