// Package brokertest is the test suite for all brokers. It checks the documented behaviour of
// package broker through its public API.
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
	// New prepares one test. The returned function makes brokers that have not been started. They
	// reach each other, but no broker of another test. The suite closes them; t.Cleanup must clean
	// up everything else. Required.
	New func(t *testing.T) func() broker.Broker

	// NewHistory is New for brokers with history. They implement broker.History. nil skips its
	// tests.
	NewHistory func(t *testing.T, rules broker.HistoryRules) func() broker.Broker

	// HistoryApart means that there is an order only between messages to the same room with
	// history, and between all other messages.
	HistoryApart bool

	// Selective means that messages on channels that are not held are not delivered: immediately if
	// never held, and within Timeout after the last Release.
	Selective bool

	// Overflow is a number of messages that is certainly too large for a receiver that delivers
	// nothing. 0 skips the test.
	Overflow int

	// Timeout is how long to wait for an expected event. Default one minute.
	Timeout time.Duration
}

// Run runs the suite, one test after the other.
func Run(t *testing.T, s Suite) {
	if s.Timeout == 0 {
		s.Timeout = time.Minute
	}
	s.run(t, s.New, []test{
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
		{"PublishAllRefused", testPublishAllRejected},
		{"Context", testContext},
		{"Lifecycle", testLifecycle},
		{"CloseWaits", testCloseWaits},
		{"CloseUnderLoad", testCloseUnderLoad},
		{"Overflow", testOverflow},
		{"Health", testHealth},
	})
	if s.NewHistory == nil {
		return
	}
	t.Run("History", func(t *testing.T) {
		s.run(t, func(t *testing.T) func() broker.Broker { return s.NewHistory(t, historyRules) }, historyTests)
	})
}

// A test is one test of the suite.
type test struct {
	name string
	run  func(*fixture)
}

// run runs tests with brokers that prepare makes.
func (s Suite) run(t *testing.T, prepare func(*testing.T) func() broker.Broker, tests []test) {
	before := goleak.IgnoreCurrent() // of a server for all tests
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			goleak.VerifyNone(t, before) // otherwise this test would be blamed for leaks of an earlier one
			w := &fixture{T: t, suite: s, broker: prepare(t)}
			// Goroutines of the test setup, such as a server's, end with t.Cleanup.
			others := goleak.IgnoreCurrent()
			test.run(w)
			// A test that fails early leaves them open, and goleak reports that.
			for _, n := range w.nodes {
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

// A fixture has the state of one test.
type fixture struct {
	*testing.T
	suite  Suite
	broker func() broker.Broker
	nodes  []*node
	idle   []broker.Broker // not started; closed at the end like nodes
	names  atomic.Uint64
}

// name returns a unique name that begins with part.
func (w *fixture) name(part string) string { return fmt.Sprintf("%s-%d", part, w.names.Add(1)) }

// ctx returns a context with the suite's timeout.
func (w *fixture) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), w.suite.Timeout)
	w.Cleanup(cancel)
	return ctx
}

// A node is a started broker, with the messages that it received.
type node struct {
	broker.Broker
	w    *fixture
	id   string
	got  chan protocol.Message
	lost chan broker.Loss
}

// node starts a node that keeps what it receives.
func (w *fixture) node() *node {
	n := &node{got: make(chan protocol.Message, 1<<16)}
	return w.start(n, func(m protocol.Message) { n.got <- m.Clone() })
}

func (w *fixture) start(n *node, deliver func(protocol.Message)) *node {
	w.Helper()
	return w.startReceiver(n, broker.Receiver{Deliver: deliver})
}

// startReceiver starts n with r, and fills in missing fields of r.
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

// room returns a message from n to a room.
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

// next returns the next message that n receives.
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

// expect checks that exactly these events arrive next.
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
