package redis_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/protocol"
)

// testTimeout is how long to wait for an event that must happen.
const testTimeout = time.Minute

// A node is a started broker, with the messages and losses that it received.
type node struct {
	*redis.Broker
	t    testing.TB
	id   string
	got  chan protocol.Message
	lost chan broker.Loss
}

// startNode starts a node that keeps what it receives, and closes it at the end of the test.
func startNode(t testing.TB, id string, c redis.Config) *node {
	t.Helper()
	n := &node{Broker: newBroker(t, c), t: t, id: id, got: make(chan protocol.Message, 1<<16), lost: make(chan broker.Loss, 100)}
	t.Cleanup(func() { _ = n.Close() })
	r := broker.Receiver{
		ServerID: id, Deliver: func(m protocol.Message) { n.got <- m.Clone() }, Lost: func(l broker.Loss) { n.lost <- l },
	}
	if err := n.Start(ctx(t), r); err != nil {
		t.Fatalf("start: %v", err)
	}
	return n
}

// ctx returns a context that lasts for testTimeout.
func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return c
}

func (n *node) room(room, event string) protocol.Message {
	return protocol.Message{ServerID: n.id, Type: protocol.TypeRoom, Target: room, Event: event, Data: []byte("1")}
}

func (n *node) broadcast(event string) protocol.Message {
	return protocol.Message{ServerID: n.id, Type: protocol.TypeBroadcast, Event: event, Data: []byte("1")}
}

// next returns the next message.
func (n *node) next() protocol.Message {
	n.t.Helper()
	select {
	case m := <-n.got:
		return m
	case <-time.After(testTimeout):
		n.t.Fatal("no message arrived")
		return protocol.Message{}
	}
}

// nextLoss returns the next loss.
func (n *node) nextLoss() broker.Loss {
	n.t.Helper()
	select {
	case l := <-n.lost:
		return l
	case <-time.After(testTimeout):
		n.t.Fatal("no loss was reported")
		return broker.Loss{}
	}
}

// awaitState waits until the broker has one of the states.
func (n *node) awaitState(want ...broker.State) broker.Health {
	n.t.Helper()
	var h broker.Health
	await(n.t, fmt.Sprintf("state %v", want), func() bool {
		h = n.Health()
		for _, s := range want {
			if h.State == s {
				return true
			}
		}
		return false
	})
	return h
}

// await waits for a condition that no event reports.
func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(testTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %v", what, testTimeout)
		}
	}
}

// publish publishes m without waiting for the result.
func (n *node) publish(m protocol.Message) {
	n.t.Helper()
	if err := n.Publish(ctx(n.t), m); err != nil {
		n.t.Fatalf("publish: %v", err)
	}
}

// confirm publishes m until a Redis has accepted it.
func (n *node) confirm(m protocol.Message) {
	n.t.Helper()
	await(n.t, "publishing", func() bool { return n.PublishAll(ctx(n.t), []protocol.Message{m}) == nil })
}
