package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/protocol"
)

// testCluster is several servers on one bus. Server i has one client of user u, and i clients of
// another user.
type testCluster struct {
	servers []*rig
	users   []*peer
	others  []*peer
	brokers []*memory.Broker
}

func newTestCluster(t *testing.T, n int) *testCluster {
	bus := memory.NewBus(memory.Config{})
	h := &testCluster{}
	for i := range n {
		b := bus.Broker()
		r := startPiped(t, config{Broker: b, Name: fmt.Sprint("server ", i), Limits: hearth.Limits{MaxRooms: 4}})
		h.servers, h.brokers = append(h.servers, r), append(h.brokers, b)
		h.users = append(h.users, r.member("u"))
		for range i {
			h.others = append(h.others, r.member("other"))
		}
	}
	return h
}

func TestClusterCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestCluster(t, 3)
		one, ctx := h.servers[0], t.Context()
		count := func(target hearth.Target, want int) {
			t.Helper()
			for i, s := range h.servers {
				if n, err := s.Count(ctx, target); n != want || err != nil {
					t.Errorf("server %d counts %d, %v; want %d", i, n, err, want)
				}
			}
		}
		count(hearth.ToAll(), 6)
		count(hearth.ToUser("u"), 3)
		count(hearth.ToUser("absent"), 0)
		count(hearth.ToClient(h.users[2].id), 1)
		count(hearth.ToRoom(h.users[1].id), 1)

		if n, err := one.Join(ctx, hearth.ToUser("u"), "a", "b"); n != 3 || err != nil {
			t.Errorf("join: %d, %v", n, err)
		}
		count(hearth.ToRoom("a"), 3)
		must(t, one.Send(ctx, hearth.ToRoom("b"), "m", 1))
		for _, p := range h.users {
			p.wants(`{"event":"m","data":1}`)
		}
		if n, err := one.Leave(ctx, hearth.ToUser("u"), "a", "x"); n != 3 || err != nil {
			t.Errorf("leave: %d, %v", n, err)
		}
		count(hearth.ToRoom("a"), 0)

		must(t, joinRoom(ctx, h.servers[1], h.users[1].id, "full"))
		n, err := one.Join(ctx, hearth.ToUser("u"), "c")
		var e *hearth.ClusterError
		if n != 2 || !errors.As(err, &e) || len(e.Failed) != 1 || e.Failed[0].NodeID != h.servers[1].ID() || e.Cause != nil {
			t.Errorf("join with a client that is in too many rooms: %d, %v", n, err)
		}

		if n, err := one.Disconnect(ctx, hearth.ToUser("u"), 4100, "moved"); n != 3 || err != nil {
			t.Errorf("disconnect: %d, %v", n, err)
		}
		for _, p := range h.users {
			p.wantsClose(4100, "moved")
		}
		if n, err := one.Disconnect(ctx, hearth.ToClient(h.others[2].id), 1000, ""); n != 1 || err != nil {
			t.Errorf("disconnect: %d, %v", n, err)
		}
		h.others[2].wantsClose(1000, "")
		h.others[1].silent()
		count(hearth.ToAll(), 2)
	})
}

func TestClusterCallsReject(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]config{"alone": {}, "with a broker": {Broker: memory.New()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, cfg)
			p := r.member("u")
			ctx := t.Context()
			for what, f := range map[string]func() (int, error){
				"room":      func() (int, error) { return r.Disconnect(ctx, hearth.ToRoom("r"), 4000, "") },
				"all":       func() (int, error) { return r.Disconnect(ctx, hearth.ToAll(), 4000, "") },
				"code":      func() (int, error) { return r.Disconnect(ctx, hearth.ToUser("u"), 1005, "") },
				"room name": func() (int, error) { return r.Join(ctx, hearth.ToUser("u"), "ws:x") },
				"no user":   func() (int, error) { return r.Join(ctx, hearth.ToUser(""), "x") },
				"too many":  func() (int, error) { return r.Leave(ctx, hearth.ToUser("u"), make([]string, 129)...) },
			} {
				if n, err := f(); n != 0 || err == nil {
					t.Errorf("%s: %d, %v", what, n, err)
				}
			}
			if n, err := r.Join(ctx, hearth.ToUser("u"), "x"); n != 1 || err != nil || !r.client(p).In("x") {
				t.Errorf("join: %d, %v", n, err)
			}
			if n, err := r.Count(ctx, hearth.ToRoom("x")); n != 1 || err != nil {
				t.Errorf("count: %d, %v", n, err)
			}
			if nodes := r.Nodes(); len(nodes) != 1 || nodes[0].ID != r.ID() || nodes[0].Name != "hearth" || r.Stats().Nodes != 1 {
				t.Errorf("nodes: %+v", nodes)
			}
			must(t, r.Shutdown(ctx))
			if _, err := r.Count(ctx, hearth.ToAll()); !errors.Is(err, hearth.ErrNotRunning) {
				t.Errorf("after Shutdown: %v", err)
			}
		})
	}
}

// TestClusterCallsWithoutOneServer checks that a call names a killed server until that server is
// forgotten, and does not wait for a server that was shut down.
func TestClusterCallsWithoutOneServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newTestCluster(t, 3)
		one, ctx := h.servers[0], t.Context()
		if n, err := one.Count(ctx, hearth.ToUser("u")); n != 3 || err != nil {
			t.Fatalf("count: %d, %v", n, err)
		}
		must(t, h.servers[1].Shutdown(ctx))
		begin := time.Now()
		if n, err := one.Count(ctx, hearth.ToUser("u")); n != 2 || err != nil || time.Since(begin) > 0 {
			t.Errorf("count: %d, %v after %v", n, err, time.Since(begin))
		}
		must(t, h.brokers[2].Close())
		n, err := one.Count(ctx, hearth.ToUser("u"))
		var e *hearth.ClusterError
		if n != 1 || !errors.As(err, &e) || !slices.Equal(e.Missing, []string{h.servers[2].ID()}) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("count: %d, %v", n, err)
		}
		time.Sleep(25 * time.Second)
		if n, err := one.Count(ctx, hearth.ToUser("u")); n != 1 || err != nil || one.Stats().Nodes != 1 {
			t.Errorf("after the server was forgotten: %d, %v, %d nodes", n, err, one.Stats().Nodes)
		}
		if _, err := h.servers[2].Count(ctx, hearth.ToAll()); !errors.Is(err, broker.ErrClosed) {
			t.Errorf("call by the server that is cut off: %v", err)
		}
	})
}

// TestOwnRooms checks that a client cannot join the room that is named by another client's id, on
// any server. Rooms with names that only look like ids are ordinary rooms. It runs in a bubble, where
// the answers of other servers take no time.
func TestOwnRooms(t *testing.T) { bubble(t, testOwnRooms) }

func testOwnRooms(t *testing.T) {
	bus := memory.NewBus(memory.Config{})
	anything := func(_ context.Context, _ *client, rooms []string) ([]string, error) { return rooms, nil }
	one, two := startPiped(t, config{Broker: bus.Broker(), ValidateRooms: anything}), startPiped(t, config{Broker: bus.Broker(), ValidateRooms: anything})
	alone := startPiped(t, config{ValidateRooms: anything})
	a, b, c, d := one.member("a"), one.member("b"), two.member("c"), alone.member("d")
	must(t, leaveRoom(one, a.id, a.id))
	lookalike := uuid.NewString()
	join := func(r *rig, p *peer, rooms ...string) *client {
		r.t.Helper()
		last := "last " + uuid.NewString()
		list, err := json.Marshal(append(rooms, last))
		must(t, err)
		p.say("join", fmt.Sprintf(`{"rooms":%s}`, list))
		for r.Local().Count(hearth.ToRoom(last)) == 0 {
			pass(time.Millisecond)
		}
		return r.client(p)
	}
	if me := join(one, a, a.id, b.id); !me.In(a.id) || me.In(b.id) {
		t.Errorf("a is in %v", me.Rooms())
	}
	if me := join(one, a, c.id, "another"); me.In(c.id) || !me.In("another") {
		t.Errorf("a is in %v", me.Rooms())
	}
	for r, p := range map[*rig]*peer{one: b, two: c, alone: d} {
		if me := join(r, p, lookalike); !me.In(lookalike) {
			t.Errorf("%s is in %v, but not in %s", p.id, me.Rooms(), lookalike)
		}
	}
	many := make([]string, 500)
	for i := range many {
		many[i] = uuid.NewString()
	}
	if me := join(one, b, append(many, c.id)...); me.In(c.id) || !me.In(many[0]) {
		t.Errorf("b is in %d rooms", len(me.Rooms()))
	}
}

// TestJoinAsksNoServer checks that a server decides without asking another server whether a room
// name is another client's id: the other server may be dead or hang. Joins of ordinary rooms with
// UUIDs as names take no time.
func TestJoinAsksNoServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus(memory.Config{})
		anything := func(_ context.Context, _ *client, rooms []string) ([]string, error) { return rooms, nil }
		b := bus.Broker()
		one := startPiped(t, config{Broker: bus.Broker(), ValidateRooms: anything})
		two := startPiped(t, config{Broker: b, ValidateRooms: anything})
		left, closed, victim := one.member("left"), two.member("gone"), two.member("victim")
		left.hangUp()
		closed.hangUp()
		synctest.Wait()
		must(t, b.Close()) // no server answers any more, and none has announced its end
		p := one.member("attacker")
		lookalike := uuid.NewString()
		ids := []string{left.id, closed.id, victim.id}
		rooms, err := json.Marshal(append(slices.Clone(ids), lookalike, p.id))
		must(t, err)
		begin := time.Now()
		p.say("join", fmt.Sprintf(`{"rooms":%s}`, rooms))
		synctest.Wait()
		c := one.client(p)
		if !c.In(lookalike) || !c.In(p.id) || time.Since(begin) > 0 {
			t.Errorf("after %v the client is in %v", time.Since(begin), c.Rooms())
		}
		time.Sleep(time.Minute)
		for _, id := range ids {
			if c.In(id) {
				t.Errorf("the client is in the room of %s", id)
			}
		}
		if n := one.Stats().RoomsRejected; n != 3 {
			t.Errorf("%d rooms were rejected, want 3", n)
		}
	})
}

// lossyBroker delivers nothing while it is cut.
type lossyBroker struct {
	*memory.Broker
	receiver broker.Receiver
	cut      atomic.Bool
}

func (b *lossyBroker) Start(ctx context.Context, r broker.Receiver) error {
	b.receiver = r
	deliver := r.Deliver
	r.DeliverAll = nil
	r.Deliver = func(m protocol.Message) {
		if !b.cut.Load() {
			deliver(m)
		}
	}
	return b.Broker.Start(ctx, r)
}

// TestClusterCallsAfterLoss checks that a server that has missed messages asks for the other
// servers before it counts on its list of them.
func TestClusterCallsAfterLoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus(memory.Config{})
		lossy := &lossyBroker{Broker: bus.Broker()}
		one := startPiped(t, config{Broker: lossy})
		one.member("u")
		time.Sleep(time.Minute)
		lossy.cut.Store(true)
		startPiped(t, config{Broker: bus.Broker()}).member("u") // its announcement is lost
		lossy.cut.Store(false)
		lossy.receiver.Lost(broker.Loss{Since: time.Now(), Until: time.Now(), Cause: errCut})
		if n, err := one.Count(t.Context(), hearth.ToUser("u")); n != 2 || err != nil {
			t.Errorf("count: %d, %v", n, err)
		}
	})
}
