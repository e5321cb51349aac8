package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// A publisher sends messages to rooms. It is for one goroutine.
type publisher interface {
	// publish sends a numbered message, and returns when a server or Redis has it.
	publish(ctx context.Context, room string, number int) error
	close()
}

// publishTo publishes rate messages per second in each room, for a duration. The rooms take turns.
// It returns the number of the last message in each room.
func publishTo(ctx context.Context, p publisher, rooms []string, rate float64, length time.Duration) (int, error) {
	n := max(1, int(rate*length.Seconds()))
	pause := length / time.Duration(n*len(rooms))
	begun := time.Now()
	for i := range n * len(rooms) {
		if err := sleep(ctx, time.Until(begun.Add(time.Duration(i)*pause))); err != nil {
			return 0, err
		}
		if err := p.publish(ctx, rooms[i%len(rooms)], i/len(rooms)+1); err != nil {
			return 0, fmt.Errorf("publish: %w", err)
		}
	}
	return n, nil
}

// A controller publishes through a client of the server, in the protocol of Hearth. The server
// answers each message with the event "sent".
type controller struct {
	socket *socket
	stop   func() bool
}

func newController(ctx context.Context, addr string) (*controller, error) {
	s, err := dial(ctx, addr, hearthDialect.path)
	if err != nil {
		return nil, err
	}
	c := &controller{socket: s, stop: context.AfterFunc(ctx, s.reset)}
	if err := s.send([]byte(`{"event":"authenticate","data":{}}`)); err != nil {
		return nil, err
	}
	return c, c.await("connected")
}

func (c *controller) publish(_ context.Context, room string, number int) error {
	text, err := roomCommand(room, number)
	if err != nil {
		return err
	}
	if err := c.socket.send(text); err != nil {
		return err
	}
	return c.await("sent")
}

// roomCommand returns a message that requests a message to a room.
func roomCommand(room string, number int) ([]byte, error) {
	return json.Marshal(struct {
		Event string      `json:"event"`
		Data  roomMessage `json:"data"`
	}{"room", roomMessage{room, number}})
}

// await reads until an event arrives.
func (c *controller) await(event string) error {
	if err := c.socket.setDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	for {
		payload, err := c.socket.receive(func() {})
		if err != nil {
			return fmt.Errorf("wait for %s: %w", event, err)
		}
		var m struct{ Event string }
		if err := json.Unmarshal(payload, &m); err != nil {
			return fmt.Errorf("read a message of the server: %w", err)
		}
		if m.Event == event {
			return nil
		}
	}
}

func (c *controller) close() {
	c.stop()
	c.socket.reset()
}
