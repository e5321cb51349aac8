package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/protocol"
)

// TestTwoServers checks that a message published on one server reaches the clients of both, once.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		bus := memory.NewBus(memory.Config{})
		one := start(t, config{Transport: transport, Broker: bus.Broker()})
		two := start(t, config{Transport: transport, Broker: bus.Broker()})
		a, b := one.member("u"), two.member("u")
		must(t, joinRoom(t.Context(), one, a.id, "r"))
		must(t, joinRoom(t.Context(), two, b.id, "r"))
		ctx := t.Context()
		for i, c := range []struct {
			publish func(event string) error
			to      []*peer
		}{
			{func(e string) error { return one.Send(ctx, hearth.ToAll(), e, 1) }, []*peer{a, b}},
			{func(e string) error { return two.Send(ctx, hearth.ToAll(), e, 1) }, []*peer{a, b}},
			{func(e string) error { return one.Send(ctx, hearth.ToRoom("r"), e, 1) }, []*peer{a, b}},
			{func(e string) error { return one.Send(ctx, hearth.ToUser("u"), e, 1) }, []*peer{a, b}},
			{func(e string) error { return one.Send(ctx, hearth.ToClient(b.id), e, 1) }, []*peer{b}},
			{func(e string) error { return one.Send(ctx, hearth.ToRoom(b.id), e, 1) }, []*peer{b}},
			{func(e string) error { return one.Send(ctx, hearth.ToAll().Except(a.id), e, 1) }, []*peer{b}},
			{func(e string) error { return one.Send(ctx, hearth.ToAll().Except(b.id), e, 1) }, []*peer{a}},
			{func(e string) error { return one.Send(ctx, hearth.ToRoom("r").Except(b.id, a.id), e, 1) }, nil},
			{func(e string) error { return one.Send(ctx, hearth.ToUser("u"), e, 1) }, []*peer{a, b}},
			{func(e string) error { return one.Send(ctx, one.Destination(""), e, 1) }, []*peer{a, b}},
			{func(e string) error { return one.Send(ctx, one.Destination("r"), e, 1) }, []*peer{a, b}},
			{func(e string) error { return one.Send(ctx, one.Destination(a.id), e, 1) }, []*peer{a}},
			// not on this server: published to its room
			{func(e string) error { return one.Send(ctx, one.Destination(b.id), e, 1) }, []*peer{b}},
			// this server only
			{func(e string) error { return one.Local().Send(t.Context(), hearth.ToUser("u"), e, 1) }, []*peer{a}},
			{func(e string) error { return two.Local().Send(t.Context(), hearth.ToAll(), e, 1) }, []*peer{b}},
		} {
			event := fmt.Sprint("m", i)
			must(t, c.publish(event))
			for _, p := range c.to {
				p.wants(`{"event":"` + event + `","data":1}`)
			}
		}
		must(t, one.Send(ctx, hearth.ToAll(), "last", 1))
		a.wants(`{"event":"last","data":1}`)
		b.wants(`{"event":"last","data":1}`)
		if h := one.Health(); h.State != broker.StateOK || h.Published == 0 {
			t.Errorf("health: %+v", h)
		}
		must(t, two.Shutdown(ctx))
		if h := two.Health(); h.State != broker.StateIdle {
			t.Errorf("health after Shutdown: %v", h.State)
		}
		if err := two.Send(ctx, hearth.ToAll(), "late", 1); !errors.Is(err, broker.ErrClosed) {
			t.Errorf("publish after Shutdown: %v", err)
		}
	})
}

// TestPublishedDataIsCopied checks that the caller may change its data after publishing it.
func TestPublishedDataIsCopied(t *testing.T) {
	t.Parallel()
	bus := memory.NewBus(memory.Config{})
	one, two := start(t, config{Broker: bus.Broker()}), start(t, config{Broker: bus.Broker()})
	p := two.member("u")
	data, exclude := json.RawMessage(`1`), []string{"other"}
	for range 500 {
		data[0], exclude[0] = '1', "other"
		must(t, one.Send(t.Context(), hearth.ToAll().Except(exclude...), "m", data))
		data[0], exclude[0] = '2', p.id
	}
	for range 500 {
		p.wants(`{"event":"m","data":1}`)
	}
}

// countingBroker counts the holds of each channel. If fail is set, Hold returns an error.
type countingBroker struct {
	*memory.Broker
	t *testing.T

	mu   sync.Mutex
	held map[string]int
	fail bool
}

func (b *countingBroker) Hold(ctx context.Context, channels ...string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range channels {
		b.held[c]++
	}
	if b.fail {
		return broker.ErrDown
	}
	return b.Broker.Hold(context.WithoutCancel(ctx), channels...)
}

func (b *countingBroker) Release(channels ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range channels {
		if b.held[c]--; b.held[c] < 0 {
			b.t.Errorf("%s was released more often than held", c)
		}
		if b.held[c] == 0 {
			delete(b.held, c)
		}
	}
}

func (b *countingBroker) failing(fail bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = fail
}

func (b *countingBroker) count(channel string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held[channel]
}

// settle waits until the held channels are exactly those in want.
func (b *countingBroker) settle(want map[string]int) {
	b.t.Helper()
	var held map[string]int
	for deadline := time.Now().Add(answer); time.Now().Before(deadline); runtime.Gosched() {
		b.mu.Lock()
		held = maps.Clone(b.held)
		b.mu.Unlock()
		// the server's own
		maps.DeleteFunc(held, func(channel string, _ int) bool { return strings.HasPrefix(channel, "hearth:") })
		if maps.Equal(held, want) {
			return
		}
	}
	b.t.Errorf("held: %v, want %v", held, want)
}

func newCountingBroker(t *testing.T) *countingBroker {
	return &countingBroker{Broker: memory.New(), t: t, held: make(map[string]int)}
}

// TestHolds checks that a server holds the channels of its clients, and releases each as often as
// it held it.
func TestHolds(t *testing.T) {
	t.Parallel()
	b := newCountingBroker(t)
	closed := make(chan struct{}, 10)
	r := start(t, config{Broker: b, Disconnected: func(context.Context, *client, int, string) { closed <- struct{}{} }})
	p, other := r.member("u"), r.member("u")
	must(t, joinRoom(t.Context(), r, p.id, "x", "y", "x"))
	must(t, joinRoom(t.Context(), r, p.id, "x", p.id))
	must(t, leaveRoom(r, p.id, "y", "y", "ws-default", p.id))
	for channel, want := range map[string]int{
		protocol.RoomChannel("x"): 1, protocol.RoomChannel("y"): 0, protocol.RoomChannel("ws-default"): 1,
		protocol.RoomChannel("ws-notification"): 2, protocol.UserChannel("u"): 2, protocol.ClientChannel(p.id): 1,
	} {
		if got := b.count(channel); got != want {
			t.Errorf("%s is held %d times, want %d", channel, got, want)
		}
	}
	if err := joinRoom(t.Context(), r, p.id, "z", "ws:no"); err == nil || b.count(protocol.RoomChannel("z")) != 0 {
		t.Errorf("join with a bad room name: %v; want an error and no hold", err)
	}
	p.bye(1000, "")
	other.hangUp()
	<-closed
	<-closed
	b.settle(map[string]int{})
}

// TestHoldsOfFailingBroker checks that a failing Hold rejects no client: clients connect and are
// served by this server, and channels that the broker did not confirm are held and released as
// usual.
func TestHoldsOfFailingBroker(t *testing.T) {
	t.Parallel()
	b := newCountingBroker(t)
	closed := make(chan struct{}, 10)
	r := start(t, config{Broker: b, Disconnected: func(context.Context, *client, int, string) { closed <- struct{}{} }})
	before := r.member("u")
	must(t, joinRoom(t.Context(), r, before.id, "x", "y"))
	b.failing(true)
	during := r.member("u")
	must(t, joinRoom(t.Context(), r, during.id, "x", "y"))
	must(t, r.Local().Send(t.Context(), hearth.ToRoom("x"), "here", 1))
	during.wants(`{"event":"here","data":1}`)
	b.failing(false)
	must(t, leaveRoom(r, during.id, "x"))
	must(t, joinRoom(t.Context(), r, during.id, "z"))
	during.bye(1000, "")
	<-closed
	b.settle(map[string]int{
		protocol.RoomChannel("x"): 1, protocol.RoomChannel("y"): 1, protocol.RoomChannel("ws-default"): 1,
		protocol.RoomChannel("ws-notification"): 1, protocol.UserChannel("u"): 1,
		protocol.ClientChannel(before.id): 1, protocol.RoomChannel(before.id): 1,
	})
}

// TestClosedWhileHolding checks that a client that disconnects during Hold releases only its own
// holds.
func TestClosedWhileHolding(t *testing.T) {
	t.Parallel()
	b := newCountingBroker(t)
	slow := &slowBroker{countingBroker: b, entered: make(chan struct{})}
	r := start(t, config{Broker: slow})
	stays := r.member("u")
	slow.set(true)
	p := r.peer()
	p.say("authenticate", `{"as":"u"}`)
	<-slow.entered
	p.hangUp()
	slow.wait.Wait()
	slow.set(false)
	v := r.member("v")
	b.settle(map[string]int{ // once the late holds of p are released
		protocol.RoomChannel("ws-default"): 2, protocol.RoomChannel("ws-notification"): 2,
		protocol.UserChannel("u"): 1, protocol.ClientChannel(stays.id): 1, protocol.RoomChannel(stays.id): 1,
		protocol.UserChannel("v"): 1, protocol.ClientChannel(v.id): 1, protocol.RoomChannel(v.id): 1,
	})
}

// slowBroker blocks Hold while slow is set, until the context ends, and returns the context's
// error.
type slowBroker struct {
	*countingBroker
	entered chan struct{}
	wait    sync.WaitGroup

	mu   sync.Mutex
	slow bool
}

func (b *slowBroker) set(slow bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.slow = slow; slow {
		b.wait.Add(1)
	}
}

func (b *slowBroker) Hold(ctx context.Context, channels ...string) error {
	b.mu.Lock()
	slow := b.slow
	b.mu.Unlock()
	if !slow {
		return b.countingBroker.Hold(ctx, channels...)
	}
	defer b.wait.Done()
	close(b.entered)
	<-ctx.Done()
	_ = b.countingBroker.Hold(ctx, channels...)
	return ctx.Err()
}

// brokenBroker fails the first Start.
type brokenBroker struct {
	*memory.Broker
	tried bool
}

func (b *brokenBroker) Start(ctx context.Context, r broker.Receiver) error {
	if !b.tried {
		b.tried = true
		return errors.New("connection refused")
	}
	return b.Broker.Start(ctx, r)
}

func TestStartAgain(t *testing.T) {
	t.Parallel()
	srv, err := hearth.New(config{Authenticate: accept, Broker: &brokenBroker{Broker: memory.New()}})
	must(t, err)
	if err := srv.Start(t.Context()); err == nil {
		t.Fatal("Start succeeded although the broker failed to start")
	}
	if err := srv.Shutdown(t.Context()); !errors.Is(err, hearth.ErrNotRunning) {
		t.Errorf("shutdown: %v", err)
	}
	must(t, srv.Start(t.Context()))
	must(t, srv.Shutdown(t.Context()))
}

// TestLost checks that messages that the broker missed are counted, and that the others arrive.
func TestLost(t *testing.T) {
	t.Parallel()
	bus := memory.NewBus(memory.Config{QueueMessages: 1})
	one, two := start(t, config{Broker: bus.Broker()}), start(t, config{Broker: bus.Broker()})
	p := two.member("u")
	// Messages between the nodes may fill the queue as well, so the first message may be lost.
	for i, came := 0, false; !came || two.Stats().BrokerLosses == 0; i++ {
		if err := one.Send(t.Context(), hearth.ToAll(), "m", i); err != nil && !errors.Is(err, broker.ErrQueueFull) {
			t.Fatal(err)
		}
		if m, ok := p.in.take(0); ok {
			if came = true; !strings.HasPrefix(m.text, `{"event":"m",`) {
				t.Fatalf("got %v", m)
			}
		}
	}
}
