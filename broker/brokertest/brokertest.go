// Package brokertest is the suite that every broker passes: what package broker promises, checked from outside.
package brokertest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// A Suite describes the implementation to test.
type Suite struct {
	// New makes a world of its own for one test: the function that it returns makes brokers that have not been started
	// and reach each other, and no broker of another world. The suite closes them; what else there is to clean up goes
	// to t.Cleanup. Required.
	New func(t *testing.T) func() broker.Broker

	// Selective says that messages on channels that are not held are not delivered: at once if never held, and within
	// Patience after the last Release.
	Selective bool

	// Overflow is how many messages surely are too many for a receiver that delivers nothing. 0 skips the test.
	Overflow int

	// Timeout is how long to wait for what must happen. Default one minute.
	Timeout time.Duration
}

// Run runs the suite, one test after the other.
func Run(t *testing.T, s Suite) {
	if s.Timeout == 0 {
		s.Timeout = time.Minute
	}
	for _, test := range []struct {
		name string
		run  func(*fixture)
	}{
		{"Types", testTypes},
		{"Data", testData},
		{"NoEcho", testNoEcho},
		{"Emitter", testEmitter},
		{"Order", testOrder},
		{"ConcurrentPublish", testConcurrentPublish},
		{"OneAtATime", testOneAtATime},
		{"DeliverAll", testDeliverAll},
		{"SlowReceiver", testSlowReceiver},
		{"ReceiverMayCall", testReceiverMayCall},
		{"HoldIsCounted", testHoldIsCounted},
		{"HoldMany", testHoldMany},
		{"HoldWhilePublishing", testHoldWhilePublishing},
		{"HoldAfterError", testHoldAfterError},
		{"Selective", testSelective},
		{"BadMessage", testBadMessage},
		{"PublishAll", testPublishAll},
		{"PublishAllRefused", testPublishAllRefused},
		{"Context", testContext},
		{"Lifecycle", testLifecycle},
		{"CloseWaits", testCloseWaits},
		{"CloseUnderLoad", testCloseUnderLoad},
		{"Overflow", testOverflow},
		{"Health", testHealth},
	} {
		t.Run(test.name, func(t *testing.T) {
			goleak.VerifyNone(t) // what an earlier test left would be blamed on this one
			w := &fixture{T: t, suite: s, broker: s.New(t)}
			others := goleak.IgnoreCurrent() // what the world itself needs, a server say, ends with t.Cleanup
			test.run(w)
			for _, n := range w.nodes { // a test that fails at once leaves them open, and goleak says so
				if err := n.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
			for _, b := range w.idle {
				if err := b.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
			goleak.VerifyNone(t, others)
		})
	}
}

// A world is what one test works with.
type fixture struct {
	*testing.T
	suite  Suite
	broker func() broker.Broker
	nodes  []*node
	idle   []broker.Broker // not started, and closed at the end as nodes are
	names  atomic.Uint64
}

// name is part in a form that nothing else in this world uses.
func (w *fixture) name(part string) string { return fmt.Sprintf("%s-%d", part, w.names.Add(1)) }

// ctx lasts as long as the suite is patient.
func (w *fixture) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), w.suite.Timeout)
	w.Cleanup(cancel)
	return ctx
}

// A node is a broker that has been started, and what it was given.
type node struct {
	broker.Broker
	w    *fixture
	id   string
	got  chan protocol.Message
	lost chan broker.Loss
}

// node starts a node that keeps what it gets.
func (w *fixture) node() *node {
	n := &node{got: make(chan protocol.Message, 1<<16)}
	return w.start(n, func(m protocol.Message) { n.got <- m.Clone() })
}

func (w *fixture) start(n *node, deliver func(protocol.Message)) *node {
	w.Helper()
	return w.startReceiver(n, broker.Receiver{Deliver: deliver})
}

// startReceiver fills in what r lacks.
func (w *fixture) startReceiver(n *node, r broker.Receiver) *node {
	w.Helper()
	n.w, n.id, n.Broker = w, w.name("node"), w.broker()
	n.lost = make(chan broker.Loss, 1<<12)
	w.nodes = append(w.nodes, n)
	r.ServerID, r.Lost = n.id, func(l broker.Loss) { n.lost <- l }
	if err := n.Start(w.ctx(), r); err != nil {
		w.Fatalf("start: %v", err)
	}
	return n
}

// room is a message from n to a room.
func (n *node) room(room, event string) protocol.Message {
	return protocol.Message{ServerID: n.id, Type: protocol.TypeRoom, Target: room, Event: event, Data: []byte("1")}
}

func (n *node) broadcast(event string) protocol.Message {
	return protocol.Message{ServerID: n.id, Type: protocol.TypeBroadcast, Event: event, Data: []byte("1")}
}

func (n *node) publish(m protocol.Message) {
	n.w.Helper()
	if err := n.Publish(n.w.ctx(), m); err != nil {
		n.w.Fatalf("publish: %v", err)
	}
}

func (n *node) hold(channels ...string) {
	n.w.Helper()
	if err := n.Hold(n.w.ctx(), channels...); err != nil {
		n.w.Fatalf("hold: %v", err)
	}
}

// next is the next message that n gets.
func (n *node) next() protocol.Message {
	n.w.Helper()
	select {
	case m := <-n.got:
		return m
	case <-time.After(n.w.suite.Timeout):
		n.w.Fatal("a message did not come")
		return protocol.Message{}
	}
}

// expect checks that exactly these events come next.
func (n *node) expect(events ...string) {
	n.w.Helper()
	for _, want := range events {
		if got := n.next().Event; got != want {
			n.w.Fatalf("got %q, want %q", got, want)
		}
	}
}

// wait waits for c to be closed.
func (w *fixture) wait(c <-chan struct{}, what string) {
	w.Helper()
	select {
	case <-c:
	case <-time.After(w.suite.Timeout):
		w.Fatalf("%s did not happen", what)
	}
}
