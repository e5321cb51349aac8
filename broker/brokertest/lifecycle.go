package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// testHoldIsCounted checks that a channel that was held twice is delivered until it has been
// released twice.
func testHoldIsCounted(w *fixture) {
	a, b := w.node(), w.node()
	channel := protocol.RoomChannel(w.name("room"))
	room := channel[len(protocol.RoomChannel("")):]
	b.hold(channel)
	b.hold(channel)
	b.Release(channel)
	a.publish(a.room(room, "one hold left"))
	b.expect("one hold left")
	b.Release(channel)
	b.Release(channel, protocol.RoomChannel(w.name("never held")))
	b.hold(channel)
	a.publish(a.room(room, "held again"))
	b.expect("held again")
}

// testHoldMany checks that thousands of rooms can be held in one call, and that each of them works
// when it returns.
func testHoldMany(w *fixture) {
	const rooms = 5000
	a, b := w.node(), w.node()
	channels := make([]string, rooms)
	for i := range channels {
		channels[i] = protocol.RoomChannel(w.name("room"))
	}
	b.hold(channels...)
	b.hold() // no channels is valid
	for _, i := range []int{0, rooms / 2, rooms - 1} {
		room := channels[i][len(protocol.RoomChannel("")):]
		a.publish(a.room(room, fmt.Sprint(i)))
		b.expect(fmt.Sprint(i))
	}
	b.Release(channels...)
}

// testHoldWhilePublishing checks that messages published after Hold has returned are delivered,
// while other goroutines hold and release.
func testHoldWhilePublishing(w *fixture) {
	const holders, rooms = 8, 100
	a := w.node()
	arrived := make(map[string]chan struct{}) // by event; filled before the node starts
	events := make([][]string, holders)
	for h := range holders {
		for range rooms {
			event := w.name("room")
			events[h] = append(events[h], event)
			arrived[event] = make(chan struct{})
		}
	}
	b := w.start(&node{}, func(m protocol.Message) { close(arrived[m.Event]) })
	ctx := w.ctx()
	var all sync.WaitGroup
	for h := range holders {
		all.Go(func() {
			for _, room := range events[h] {
				channel := protocol.RoomChannel(room)
				if err := b.Hold(ctx, channel); err != nil {
					w.Errorf("hold: %v", err)
					return
				}
				if err := a.Publish(ctx, a.room(room, room)); err != nil {
					w.Errorf("publish: %v", err)
				}
				select {
				case <-arrived[room]:
				case <-ctx.Done():
					w.Errorf("a message to %s, published after it was held, did not come", room)
					return
				}
				b.Release(channel)
			}
		})
	}
	all.Wait()
}

// testHoldAfterError checks that a Hold that returned an error still holds its channels, until they
// are released.
func testHoldAfterError(w *fixture) {
	a, b := w.node(), w.node()
	room := w.name("room")
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Hold(done, protocol.RoomChannel(room)); !errors.Is(err, context.Canceled) {
		w.Errorf("hold: error %v, want Canceled", err)
	}
	a.publishUntil(b, room, true)
	if w.suite.Selective {
		b.Release(protocol.RoomChannel(room))
		a.publishUntil(b, room, false)
	}
}

// publishUntil publishes to a room until b receives it, or until b receives it no longer.
func (n *node) publishUntil(b *node, room string, arrives bool) {
	n.w.Helper()
	deadline := time.Now().Add(n.w.suite.Timeout)
	for time.Now().Before(deadline) {
		n.publish(n.room(room, "to the room"))
		n.publish(n.broadcast("fence"))
		got := b.next().Event == "to the room"
		if got {
			b.expect("fence")
		}
		if got == arrives {
			return
		}
	}
	n.w.Errorf("a message to a room arrives: %v, after a while still", !arrives)
}

// testSelective checks that selective brokers deliver only held channels.
func testSelective(w *fixture) {
	if !w.suite.Selective {
		w.Skip("this broker delivers whatever is published")
	}
	a, b := w.node(), w.node()
	room, other := w.name("room"), w.name("other")
	b.hold(protocol.RoomChannel(room))
	a.publish(a.room(other, "not held"))
	a.publish(a.room(room, "held"))
	b.expect("held")
	b.Release(protocol.RoomChannel(room))
	a.publishUntil(b, room, false)
}

// testBadMessage checks that an invalid message is rejected and not delivered.
func testBadMessage(w *fixture) {
	a, b := w.node(), w.node()
	for _, m := range []protocol.Message{
		{},
		{ServerID: a.id, Type: protocol.TypeRoom, Event: "no target"},
		{ServerID: a.id, Type: protocol.TypeBroadcast},
		{Type: protocol.TypeBroadcast, Event: "no server"},
		{ServerID: a.id, Event: "no type"},
	} {
		if err := a.Publish(w.ctx(), m); !errors.Is(err, protocol.ErrMessage) {
			w.Errorf("publish %+v: error %v, want ErrMessage", m, err)
		}
	}
	a.publish(a.broadcast("good"))
	b.expect("good")
}

// testContext checks that a context that is done prevents an operation, and that ending it later
// does not undo one.
func testContext(w *fixture) {
	done, cancel := context.WithCancel(context.Background())
	cancel()
	r := broker.Receiver{ServerID: w.name("node"), Deliver: func(protocol.Message) {}}
	late := w.broker()
	if err := late.Start(done, r); !errors.Is(err, context.Canceled) {
		w.Errorf("start: error %v, want Canceled", err)
	}
	starting, cancel := context.WithCancel(w.ctx())
	if err := late.Start(starting, r); err != nil {
		w.Errorf("start after a failed start: %v", err)
	}
	cancel() // the broker continues
	if err := late.Hold(w.ctx(), protocol.RoomChannel("r")); err != nil {
		w.Errorf("hold after the end of the context of start: %v", err)
	}
	if err := late.Close(); err != nil {
		w.Errorf("close: %v", err)
	}

	a, b := w.node(), w.node()
	if err := a.Publish(done, a.broadcast("never")); !errors.Is(err, context.Canceled) {
		w.Errorf("publish: error %v, want Canceled", err)
	}
	if err := a.Hold(done, protocol.RoomChannel(w.name("room"))); !errors.Is(err, context.Canceled) {
		w.Errorf("hold: error %v, want Canceled", err)
	}
	a.publish(a.broadcast("fence"))
	b.expect("fence")
}

// testLifecycle checks the errors of all methods before Start, while running, and after Close.
func testLifecycle(w *fixture) {
	ctx := w.ctx()
	r := broker.Receiver{ServerID: w.name("node"), Deliver: func(protocol.Message) {}}
	n := w.broker()
	if err := n.Hold(ctx, protocol.RoomChannel("r")); !errors.Is(err, broker.ErrNotStarted) {
		w.Errorf("hold before start: error %v, want ErrNotStarted", err)
	}
	n.Release(protocol.RoomChannel("r"))
	for _, bad := range []broker.Receiver{{}, {ServerID: "s"}, {Deliver: r.Deliver}, {ServerID: protocol.EmitterID, Deliver: r.Deliver}} {
		if err := n.Start(ctx, bad); err == nil {
			w.Errorf("started with %q and deliver %v", bad.ServerID, bad.Deliver != nil)
		}
	}
	if err := n.Start(ctx, r); err != nil {
		w.Fatalf("start: %v", err)
	}
	if err := n.Start(ctx, r); !errors.Is(err, broker.ErrStarted) {
		w.Errorf("second start: error %v, want ErrStarted", err)
	}
	for range 2 {
		if err := n.Close(); err != nil {
			w.Errorf("close: %v", err)
		}
	}
	m := protocol.Message{ServerID: r.ServerID, Type: protocol.TypeBroadcast, Event: "late"}
	for what, err := range map[string]error{
		"start":   n.Start(ctx, r),
		"hold":    n.Hold(ctx, protocol.RoomChannel("r")),
		"publish": n.Publish(ctx, m),
	} {
		if !errors.Is(err, broker.ErrClosed) {
			w.Errorf("%s after close: error %v, want ErrClosed", what, err)
		}
	}
	n.Release(protocol.RoomChannel("r"))
	n.Health()

	unused := w.broker()
	if err := unused.Close(); err != nil {
		w.Errorf("close without start: %v", err)
	}
	if err := unused.Publish(ctx, m); !errors.Is(err, broker.ErrClosed) {
		w.Errorf("publish after close without start: error %v, want ErrClosed", err)
	}
}

// testCloseWaits checks that the receiver is not running when Close returns, and is not called
// again.
func testCloseWaits(w *fixture) {
	entered, release := make(chan struct{}), make(chan struct{})
	var calls, left atomic.Int32
	b := w.start(&node{}, func(protocol.Message) {
		if calls.Add(1) == 1 {
			close(entered)
			<-release
		}
		left.Add(1)
	})
	a := w.node()
	for range 50 {
		a.publish(a.broadcast("e"))
	}
	w.wait(entered, "delivery")
	closed := make(chan struct{})
	go func() { // ends with Close
		defer close(closed)
		if err := b.Close(); err != nil {
			w.Errorf("close: %v", err)
		}
		if c, l := calls.Load(), left.Load(); c != l {
			w.Errorf("closed while the receiver was running: %d calls, %d returned", c, l)
		}
	}()
	a.publish(a.broadcast("e")) // to a node that is closing
	select {
	case <-closed:
		w.Error("close did not wait for the receiver")
	case <-time.After(50 * time.Millisecond): // long enough to notice a Close that does not wait
	}
	close(release)
	w.wait(closed, "close")
	before := calls.Load()
	a.publish(a.broadcast("e"))
	if after := calls.Load(); after != before {
		w.Error("the receiver was called after close")
	}
}

// testCloseUnderLoad starts and closes nodes while others publish.
func testCloseUnderLoad(w *fixture) {
	a, b := w.node(), w.node()
	ctx := w.ctx()
	stop := make(chan struct{})
	var publishers sync.WaitGroup
	publishers.Go(func() { // ends with stop
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := a.Publish(ctx, a.broadcast("load")); err != nil && !errors.Is(err, broker.ErrQueueFull) {
				w.Errorf("publish: %v", err)
				return
			}
			b.next() // no faster than messages are delivered
		}
	})
	for range 20 {
		n := w.broker()
		r := broker.Receiver{ServerID: w.name("node"), Deliver: func(protocol.Message) {}}
		if err := n.Start(ctx, r); err != nil {
			w.Errorf("start: %v", err)
		}
		if err := n.Hold(ctx, protocol.RoomChannel(r.ServerID)); err != nil {
			w.Errorf("hold: %v", err)
		}
		if err := n.Close(); err != nil {
			w.Errorf("close: %v", err)
		}
	}
	close(stop)
	publishers.Wait()
}

// testOverflow checks that a blocked receiver does not delay publishers, and that its losses are
// reported in order with the deliveries.
func testOverflow(w *fixture) {
	if w.suite.Overflow == 0 {
		w.Skip("no number of messages is too many")
	}
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var delivered atomic.Uint64
	lasts := make(chan struct{}, 1<<10)
	b := w.start(&node{}, func(m protocol.Message) {
		once.Do(func() { close(entered) })
		<-release
		delivered.Add(1)
		if m.Event == "last" {
			lasts <- struct{}{}
		}
	})
	a := w.node()
	a.publish(a.broadcast("e"))
	w.wait(entered, "delivery")
	for range w.suite.Overflow {
		a.publish(a.broadcast("e"))
	}
	close(release)
	published := uint64(w.suite.Overflow) + 1
	// The first message may find the queue still full.
	for arrived := false; !arrived && published < uint64(w.suite.Overflow)+100; {
		a.publish(a.broadcast("last"))
		published++
		select {
		case <-lasts:
			arrived = true
		case <-time.After(w.suite.Timeout / 200):
		}
	}
	w.expectLosses(b, func() uint64 { return published - delivered.Load() })
}

// expectLosses reads the losses reported to b, until they explain all missing messages.
func (w *fixture) expectLosses(b *node, missing func() uint64) {
	w.Helper()
	patience := time.After(w.suite.Timeout)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	lost, told, known := uint64(0), 0, true
	for told == 0 || known && lost != missing() {
		select {
		case loss := <-b.lost: // one gap may be reported in parts
			if loss.Cause == nil || loss.Since.IsZero() || loss.Until.Before(loss.Since) {
				w.Errorf("told %+v", loss)
			}
			lost += loss.Messages
			known = known && loss.Messages > 0
			told++
		case <-tick.C:
		case <-patience:
			w.Fatalf("%d messages are missing, %d were told", missing(), lost)
		}
	}
	if h := b.Health(); h.Losses == 0 || h.Lost < lost || h.Err == nil {
		w.Errorf("%d lost, health is %+v", lost, h)
	}
}

// testHealth checks states and counters.
func testHealth(w *fixture) {
	n := w.broker()
	if h := n.Health(); h.State != broker.StateIdle || !h.Since.IsZero() {
		w.Errorf("before start: %+v", h)
	}
	if err := n.Close(); err != nil {
		w.Errorf("close: %v", err)
	}
	a, b := w.node(), w.node()
	a.publish(a.broadcast("e"))
	b.expect("e")
	if h := a.Health(); h.State != broker.StateOK || h.Since.IsZero() || h.Err != nil || h.Published != 1 || h.Delivered != 0 {
		w.Errorf("publisher: %+v", h)
	}
	if h := b.Health(); h.State != broker.StateOK || h.Published != 0 || h.Delivered != 1 || h.Dropped+h.Lost+h.Losses != 0 {
		w.Errorf("receiver: %+v", h)
	}
	if err := b.Close(); err != nil {
		w.Errorf("close: %v", err)
	}
	if h := b.Health(); h.State != broker.StateIdle || h.Delivered != 1 {
		w.Errorf("after close: %+v", h)
	}
}
