package brokertest

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/google/go-cmp/cmp"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// testTypes checks that all four types arrive unchanged, with any exclusions.
func testTypes(w *fixture) {
	a, b := w.node(), w.node()
	room, client, user := w.name("room"), w.name("client"), w.name("user \"ü\n")
	b.hold(protocol.RoomChannel(room), protocol.ClientChannel(client), protocol.UserChannel(user))
	for _, m := range []protocol.Message{
		{Type: protocol.TypeRoom, Target: room, Event: "to a room", Data: []byte(`{"a":1.50}`)},
		{Type: protocol.TypeRoom, Target: room, Event: "to most of a room", Data: []byte("1"), Exclude: []string{"x", "y"}},
		{Type: protocol.TypeClient, Target: client, Event: "to a client", Data: []byte(`"text"`)},
		{Type: protocol.TypeUser, Target: user, Event: "to a user", Data: []byte("[1,2]")},
		{Type: protocol.TypeBroadcast, Event: "to everyone", Data: []byte("true")},
		{Type: protocol.TypeBroadcast, Event: "to most", Data: []byte("true"), Exclude: []string{"z"}},
	} {
		m.ServerID = a.id
		a.publish(m)
		if diff := cmp.Diff(m, b.next()); diff != "" {
			w.Errorf("%s:\n%s", m.Event, diff)
		}
	}
}

// testData checks that absent data stays absent, null stays null, and digits are not changed.
func testData(w *fixture) {
	a, b := w.node(), w.node()
	for _, data := range []string{"", "null", "0", `""`, "12345678901234567890.50", `"\ud800 \u2028"`} {
		m := a.broadcast("data")
		m.Data = nil
		if data != "" {
			m.Data = []byte(data)
		}
		a.publish(m)
		if got := b.next().Data; string(got) != data || (got == nil) != (data == "") {
			w.Errorf("data %q became %q", data, got)
		}
	}
}

// testNoEcho checks that a node does not get its own messages.
func testNoEcho(w *fixture) {
	a, b := w.node(), w.node()
	room := w.name("room")
	a.hold(protocol.RoomChannel(room))
	b.hold(protocol.RoomChannel(room))
	a.publish(a.room(room, "own"))
	b.expect("own")
	b.publish(b.room(room, "other's"))
	a.expect("other's")
}

// testEmitter checks that a broker can publish without being started, and that an emitter's
// messages reach every node.
func testEmitter(w *fixture) {
	a, b := w.node(), w.node()
	room := w.name("room")
	a.hold(protocol.RoomChannel(room))
	b.hold(protocol.RoomChannel(room))
	emitter := w.broker()
	m := protocol.Message{ServerID: protocol.EmitterID, Type: protocol.TypeRoom, Target: room, Event: "news", Data: []byte("1")}
	if err := emitter.Publish(w.ctx(), m); err != nil {
		w.Errorf("publish: %v", err)
	}
	a.expect("news")
	b.expect("news")
	if err := emitter.Close(); err != nil {
		w.Errorf("close: %v", err)
	}
}

// testOrder checks that messages of one goroutine arrive in order, across channels.
func testOrder(w *fixture) {
	const messages = 2000
	a, b := w.node(), w.node()
	room, user := w.name("room"), w.name("user")
	b.hold(protocol.RoomChannel(room), protocol.UserChannel(user))
	for i := range messages {
		m := a.broadcast(fmt.Sprint(i))
		switch i % 3 {
		case 1:
			m.Type, m.Target = protocol.TypeRoom, room
		case 2:
			m.Type, m.Target = protocol.TypeUser, user
		}
		a.publish(m)
	}
	for i := range messages {
		b.expect(fmt.Sprint(i))
	}
}

// testConcurrentPublish checks that many goroutines lose nothing, and that the messages of each
// arrive in order.
func testConcurrentPublish(w *fixture) {
	const publishers, messages = 8, 200
	a, b := w.node(), w.node()
	ctx := w.ctx()
	var all sync.WaitGroup
	for p := range publishers {
		all.Go(func() {
			for i := range messages {
				m := a.broadcast(fmt.Sprint(p))
				m.Data = fmt.Append(nil, i)
				if err := a.Publish(ctx, m); err != nil {
					w.Errorf("publish: %v", err)
				}
			}
		})
	}
	all.Wait()
	next := map[string]int{}
	for range publishers * messages {
		m := b.next()
		if want := fmt.Sprint(next[m.Event]); string(m.Data) != want {
			w.Fatalf("publisher %s: message %s, want %s", m.Event, m.Data, want)
		}
		next[m.Event]++
	}
}

// testOneAtATime checks that the receiver is never called concurrently.
func testOneAtATime(w *fixture) {
	const publishers, messages = 4, 200
	var inside atomic.Int32
	done := make(chan struct{})
	got := 0 // owned by the receiver
	w.start(&node{}, func(protocol.Message) {
		if inside.Add(1) != 1 {
			w.Error("the receiver was called while it was running")
		}
		if got++; got == publishers*messages {
			close(done)
		}
		inside.Add(-1)
	})
	ctx := w.ctx()
	var all sync.WaitGroup
	for range publishers {
		n := w.node()
		all.Go(func() {
			for range messages {
				if err := n.Publish(ctx, n.broadcast("e")); err != nil {
					w.Errorf("publish: %v", err)
				}
			}
		})
	}
	all.Wait()
	w.wait(done, "delivery")
}

// testDeliverAll checks that a receiver with DeliverAll gets the same messages in the same order,
// whichever of its functions is called.
func testDeliverAll(w *fixture) {
	const messages = 2000
	b := &node{got: make(chan protocol.Message, messages)}
	var inside atomic.Int32
	take := func(ms ...protocol.Message) {
		if inside.Add(1) != 1 {
			w.Error("the receiver was called while it was running")
		}
		if len(ms) == 0 {
			w.Error("the receiver was called for nothing")
		}
		for _, m := range ms {
			b.got <- m.Clone()
		}
		inside.Add(-1)
	}
	w.startReceiver(b, broker.Receiver{
		Deliver:    func(m protocol.Message) { take(m) },
		DeliverAll: func(ms []protocol.Message) { take(ms...) },
	})
	a := w.node()
	for i := range messages {
		a.publish(a.broadcast(fmt.Sprint(i)))
		if i%100 == 50 {
			b.publish(b.broadcast("own"))
		}
	}
	for i := range messages {
		if m := b.next(); m.Event != fmt.Sprint(i) || m.ServerID != a.id || string(m.Data) != "1" {
			w.Fatalf("message %d is %+v", i, m)
		}
	}
	if got := b.Health().Delivered; got != messages {
		w.Errorf("%d messages were delivered, %d counted", messages, got)
	}
}

// testSlowReceiver checks that a slow receiver delays neither publishers nor other nodes, and
// misses nothing that fits into the queue.
func testSlowReceiver(w *fixture) {
	const messages = 100
	release, done := make(chan struct{}), make(chan struct{})
	got := 0 // owned by the receiver
	w.start(&node{}, func(m protocol.Message) {
		<-release
		if m.Event != fmt.Sprint(got) {
			w.Errorf("got %s, want %d", m.Event, got)
		}
		if got++; got == messages {
			close(done)
		}
	})
	a, quick := w.node(), w.node()
	for i := range messages {
		a.publish(a.broadcast(fmt.Sprint(i)))
	}
	for i := range messages {
		quick.expect(fmt.Sprint(i))
	}
	close(release)
	w.wait(done, "delivery")
}

// testReceiverMayCall checks that Deliver may publish, hold and release.
func testReceiverMayCall(w *fixture) {
	room := w.name("room")
	b := &node{}
	ctx := w.ctx()
	w.start(b, func(m protocol.Message) {
		if err := b.Hold(ctx, protocol.RoomChannel(room)); err != nil {
			w.Errorf("hold: %v", err)
		}
		b.Health()
		if err := b.Publish(ctx, b.broadcast("answer to "+m.Event)); err != nil {
			w.Errorf("publish: %v", err)
		}
		b.Release(protocol.RoomChannel(room))
	})
	a := w.node()
	a.publish(a.broadcast("question"))
	a.expect("answer to question")
}
