package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// confirmer returns a new broker that can confirm. It skips the test if the implementation cannot.
func (w *fixture) confirmer() broker.Confirmer {
	w.Helper()
	b := w.broker()
	w.idle = append(w.idle, b)
	c, ok := b.(broker.Confirmer)
	if !ok {
		w.Skip("this broker confirms nothing")
	}
	return c
}

// emitterMessage returns a message of an emitter.
func emitterMessage(event string) protocol.Message {
	return protocol.Message{ServerID: protocol.EmitterID, Type: protocol.TypeBroadcast, Event: event, Data: []byte("1")}
}

// testPublishAll checks that confirmed messages arrive, in order within each call, with concurrent
// calls.
func testPublishAll(w *fixture) {
	const calls, messages = 4, 3000
	c, b := w.confirmer(), w.node()
	ctx := w.ctx()
	if errs := c.PublishAll(ctx, nil); errs != nil {
		w.Errorf("nothing: errors %v", errs)
	}
	var all sync.WaitGroup
	defer all.Wait() // even if the test fails, because they report to it
	for call := range calls {
		all.Go(func() {
			ms := make([]protocol.Message, messages)
			for i := range ms {
				ms[i] = emitterMessage(fmt.Sprint(call))
				ms[i].Data = fmt.Append(nil, i)
			}
			if errs := c.PublishAll(ctx, ms); errs != nil {
				w.Errorf("errors: %v", errors.Join(errs...))
			}
		})
	}
	next := map[string]int{}
	for range calls * messages {
		m := b.next()
		if want := fmt.Sprint(next[m.Event]); string(m.Data) != want {
			w.Fatalf("call %s: message %s, want %s", m.Event, m.Data, want)
		}
		next[m.Event]++
	}
}

// testPublishAllRejected checks that each message has its own error, and that valid messages are
// sent.
func testPublishAllRejected(w *fixture) {
	c, b := w.confirmer(), w.node()
	errs := c.PublishAll(w.ctx(), []protocol.Message{emitterMessage("first"), {ServerID: protocol.EmitterID}, emitterMessage("last")})
	if len(errs) != 3 || errs[0] != nil || !errors.Is(errs[1], protocol.ErrMessage) || errs[2] != nil {
		w.Errorf("errors %v, want ErrMessage for the second only", errs)
	}
	b.expect("first", "last")

	done, cancel := context.WithCancel(context.Background())
	cancel()
	if errs := c.PublishAll(done, []protocol.Message{emitterMessage("never")}); len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
		w.Errorf("with a context that is done: errors %v, want Canceled", errs)
	}
	if closer, ok := c.(broker.Broker); ok {
		if err := closer.Close(); err != nil {
			w.Errorf("close: %v", err)
		}
		for _, err := range c.PublishAll(w.ctx(), []protocol.Message{emitterMessage("late"), emitterMessage("late")}) {
			if !errors.Is(err, broker.ErrClosed) {
				w.Errorf("after close: error %v, want ErrClosed", err)
			}
		}
	}
}
