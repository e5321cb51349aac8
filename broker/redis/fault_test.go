package redis_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// A pair is two nodes with common rooms, before and after a fault of Redis.
type pair struct {
	t    *testing.T
	a, b *node
}

const pairRooms = 1500 // more than one command names

func startPair(t *testing.T, url string) *pair {
	t.Helper()
	return pairOf(t, calm(t, url))
}

func pairOf(t *testing.T, c redis.Config) *pair {
	t.Helper()
	p := &pair{t: t, a: startNode(t, "a", c), b: startNode(t, "b", c)}
	channels := make([]string, pairRooms)
	for i := range channels {
		channels[i] = protocol.RoomChannel(fmt.Sprint("room ", i))
	}
	for _, n := range []*node{p.a, p.b} {
		if err := n.Hold(ctx(t), channels...); err != nil {
			t.Fatal(err)
		}
	}
	p.checkWorks("before")
	return p
}

// checkWorks checks that messages published now arrive, both ways, in old rooms, in a new one, and
// as a broadcast.
func (p *pair) checkWorks(when string) {
	p.t.Helper()
	for _, way := range [][2]*node{{p.a, p.b}, {p.b, p.a}} {
		from, to := way[0], way[1]
		room := fmt.Sprintf("%s, from %s", when, from.id)
		switch err := to.Hold(ctx(p.t), protocol.RoomChannel(room)); {
		case errors.Is(err, broker.ErrDown): // it is subscribed when Redis runs again
			to.awaitState(broker.StateOK)
		case err != nil:
			p.t.Fatalf("%s: hold: %v", when, err)
		}
		want := map[string]bool{}
		for i, target := range []string{"room 0", "room 700", "room 1499", room} {
			event := fmt.Sprintf("%s: %s %d", when, from.id, i)
			want[event] = true
			from.confirm(from.room(target, event))
		}
		last := fmt.Sprintf("%s: %s broadcast", when, from.id)
		from.confirm(from.broadcast(last))
		for {
			event := to.next().Event
			delete(want, event)
			if event == last {
				break
			}
		}
		if len(want) > 0 {
			p.t.Errorf("%s: %v did not arrive at %s", when, want, to.id)
		}
		to.Release(protocol.RoomChannel(room))
	}
}

// checkRecovers checks the recovery of Redis: both nodes are ok again, have reported one loss each
// that covers the time of the fault, which began at began, and everything works.
func (p *pair) checkRecovers(began time.Time) {
	p.t.Helper()
	failed := time.Now()
	for _, n := range []*node{p.a, p.b} {
		l := n.nextLoss()
		if l.Cause == nil || l.Messages != 0 || l.Channels != nil || l.Since.After(failed) || l.Until.Before(began) || l.Until.Before(l.Since) {
			p.t.Errorf("%s reported %+v for a fault between %v and %v", n.id, l, began, failed)
		}
		n.awaitState(broker.StateOK)
	}
	p.checkWorks("after")
	for _, n := range []*node{p.a, p.b} {
		select {
		case l := <-n.lost:
			p.t.Errorf("%s reported another loss: %+v", n.id, l)
		default:
		}
		if h := n.Health(); h.State != broker.StateOK || h.Err == nil || h.Losses != 1 || h.Lost != 0 {
			p.t.Errorf("%s: health is %+v", n.id, h)
		}
	}
}

func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("waits for Redis to fail and come back")
	}
	t.Parallel()
}

// TestCrash is not parallel, because it counts goroutines.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for Redis to fail and come back")
	}
	server := redistest.Start(t)
	p := startPair(t, server.URL())
	goroutines := runtime.NumGoroutine()
	began := time.Now()
	server.Kill()
	p.b.awaitState(broker.StateDown)
	held := protocol.RoomChannel("held while down")
	if err := p.b.Hold(ctx(t), held); !errors.Is(err, broker.ErrDown) {
		t.Errorf("hold while down: error %v, want ErrDown", err)
	}
	await(t, "ErrDown from PublishAll", func() bool {
		errs := p.a.PublishAll(ctx(t), []protocol.Message{p.a.broadcast("confirmed?")})
		return len(errs) == 1 && errors.Is(errs[0], broker.ErrDown)
	})
	p.a.publish(p.a.broadcast("waits for Redis")) // a short outage loses no message of this node
	server.Restart()
	p.checkRecovers(began)
	p.a.confirm(p.a.room("held while down", "to the room"))
	for p.b.next().Event != "to the room" {
	}
	if now := runtime.NumGoroutine(); now > goroutines+10 {
		t.Errorf("%d goroutines, %d before", now, goroutines)
	}
	_, clients := server.Subscriptions()
	if clients != 4 {
		t.Errorf("%d connections, want two for each node", clients)
	}
}

// TestFrozen checks that probes notice a Redis whose connections stay open and that does not
// answer.
func TestFrozen(t *testing.T) {
	slow(t)
	server := redistest.Start(t)
	c := calm(t, server.URL())
	c.WriteTimeout, c.ProbeTimeout = 5*time.Second, 5*time.Second
	p := pairOf(t, c)
	began := time.Now()
	server.Freeze()
	p.a.awaitState(broker.StateDown)
	p.b.awaitState(broker.StateDown)
	server.Thaw()
	p.checkRecovers(began)
}

// TestKilledConnections makes Redis close one kind of connections.
func TestKilledConnections(t *testing.T) {
	slow(t)
	server := redistest.Start(t)
	t.Run("subscriptions", func(t *testing.T) {
		p := startPair(t, server.URL())
		began := time.Now()
		server.Do("CLIENT", "KILL", "TYPE", "pubsub")
		p.checkRecovers(began)
	})
	t.Run("publishers", func(t *testing.T) {
		p := startPair(t, server.URL())
		for range 3 {
			server.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			p.checkWorks("after a kill")
		}
		p.a.awaitState(broker.StateOK)
		if h := p.b.Health(); h.Losses != 0 {
			t.Errorf("a loss was reported, but there was none: %+v", h)
		}
	})
	await(t, "the end of closed connections", func() bool {
		channels, clients := server.Subscriptions()
		return channels == 0 && clients == 0
	})
}

// TestFailover makes the Sentinels name another master.
func TestFailover(t *testing.T) {
	slow(t)
	set := redistest.StartSentinel(t)
	p := startPair(t, set.URL())
	began := time.Now()
	set.Failover()
	p.checkRecovers(began)
}

// TestReconnectErrorIsLogged checks that the reason is logged, once, when a Redis runs again and
// rejects the node.
func TestReconnectErrorIsLogged(t *testing.T) {
	slow(t)
	server := redistest.Start(t, "user node on >before +@all ~* allchannels")
	c := calm(t, "redis://node:before@"+server.Addr)
	var said lineCounter
	c.Logger = slog.New(containing{&said, "WRONGPASS"})
	n := startNode(t, "n", c)
	server.Do("ACL", "SETUSER", "node", "resetpass", ">after")
	server.Do("CLIENT", "KILL", "TYPE", "pubsub")
	await(t, "the reason", func() bool { return said.lines.Load() > 0 })
	await(t, "more attempts", func() bool { return failedLogins(t, server) > 10 })
	server.Do("ACL", "SETUSER", "node", ">before")
	n.nextLoss()
	n.awaitState(broker.StateOK)
	if lines := said.lines.Load(); lines != 1 {
		t.Errorf("logged in %d lines", lines)
	}
}

// containing passes on records that have a text in their values.
type containing struct {
	*lineCounter
	text string
}

func (c containing) Handle(ctx context.Context, r slog.Record) error {
	var err error
	r.Attrs(func(a slog.Attr) bool {
		if strings.Contains(a.Value.String(), c.text) && !strings.HasPrefix(r.Message, "publishing") {
			err = c.lineCounter.Handle(ctx, r)
		}
		return true
	})
	return err
}

// failedLogins returns how many HELLOs a server has rejected.
func failedLogins(t *testing.T, s *redistest.Server) int {
	t.Helper()
	text, err := s.Do("INFO", "commandstats").Text()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(text, "cmdstat_hello:")
	_, rest, _ = strings.Cut(rest, "failed_calls=")
	n := 0
	_, _ = fmt.Sscan(rest, &n)
	return n
}

func TestMasterDies(t *testing.T) {
	slow(t)
	set := redistest.StartSentinel(t)
	p := startPair(t, set.URL())
	began := time.Now()
	set.Servers[0].Kill()
	set.AwaitNewMaster(set.Servers[0].Addr)
	p.checkRecovers(began)
}

// TestSilentSentinels checks that joins and messages do not wait for Sentinels that do not answer,
// one or all, and that a silent Sentinel does not keep the others from being asked.
func TestSilentSentinels(t *testing.T) {
	slow(t)
	set := redistest.StartSentinel(t)
	first, second, third := set.Sentinels[1], set.Sentinels[0], set.Sentinels[2]
	c := quick(t, "redis://"+first.Addr+"?master_set="+redistest.MasterSet+"&addr="+second.Addr+"&addr="+third.Addr)
	c.DialTimeout, c.WriteTimeout, c.ProbeTimeout = time.Minute, time.Minute, time.Minute
	n := startNode(t, "n", c)
	works := func(when string) {
		t.Helper()
		for began, i := time.Now(), 0; i < 3 || time.Since(began) < 10*c.ProbeInterval; i++ {
			room := fmt.Sprintf("room %d with %s", i, when)
			if err := n.Hold(ctx(t), protocol.RoomChannel(room)); err != nil {
				t.Fatalf("%s: hold: %v", when, err)
			}
			if errs := n.PublishAll(ctx(t), []protocol.Message{n.room(room, "x")}); errs != nil {
				t.Fatalf("%s: publish: %v", when, errs)
			}
		}
	}
	first.Freeze()
	works("one silent")
	set.Failover()
	n.nextLoss()
	n.awaitState(broker.StateOK)
	works("one silent, after a failover")
	second.Freeze()
	third.Freeze()
	works("all silent")
	for _, s := range set.Sentinels {
		s.Thaw()
	}
	if h := n.Health(); h.State != broker.StateOK || h.Losses != 1 {
		t.Errorf("health is %+v", h)
	}
}

// TestBecomesReplica turns the server into a replica, which goes on answering: messages published
// there do not reach other nodes.
func TestBecomesReplica(t *testing.T) {
	slow(t)
	other := redistest.Start(t)
	server := redistest.Start(t)
	p := startPair(t, server.URL())
	began := time.Now()
	host, port := split(other.Addr)
	server.Do("REPLICAOF", host, port)
	for _, n := range []*node{p.a, p.b} {
		if h := n.awaitState(broker.StateDown); h.Err == nil {
			t.Error("down without an error")
		}
	}
	server.Do("REPLICAOF", "NO", "ONE")
	p.checkRecovers(began)
}

func TestClusterNodeDies(t *testing.T) {
	slow(t)
	cluster := redistest.StartCluster(t)
	p := startPair(t, cluster.URL())
	// One after the other, so that each connection has to find another node. The last two still see
	// each other.
	moved := cluster.Servers[1]
	moved.Do("CLUSTER", "SETSLOT", "6000", "MIGRATING", nodeID(t, cluster.Servers[2]))
	p.checkWorks("with a slot on its way")
	cluster.Servers[0].Kill()
	for _, n := range []*node{p.a, p.b} {
		await(t, "another node of the cluster", func() bool { return n.PublishAll(ctx(t), []protocol.Message{n.broadcast("x")}) == nil })
		n.awaitState(broker.StateOK)
	}
	p.checkWorks("with a node less")
}

func nodeID(t *testing.T, s *redistest.Server) string {
	t.Helper()
	id, err := s.Do("CLUSTER", "MYID").Text()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestQueueWhileDown checks that messages published while Redis is down wait for it for a limited
// time.
func TestQueueWhileDown(t *testing.T) {
	slow(t)
	server := redistest.Start(t)
	c := calm(t, server.URL())
	c.PublishMaxAge = 2 * time.Second
	c.PublishQueue.Messages = 10
	a, b := newBroker(t, c), startNode(t, "b", calm(t, server.URL()))
	defer func() { _ = a.Close() }()
	server.Kill()
	b.awaitState(broker.StateDown)
	emitted := func(event string) protocol.Message {
		return protocol.Message{ServerID: protocol.EmitterID, Type: protocol.TypeBroadcast, Event: event}
	}
	full := 0
	for range 20 {
		if err := a.Publish(ctx(t), emitted("old")); errors.Is(err, broker.ErrQueueFull) {
			full++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if full != 10 {
		t.Errorf("a queue of 10 rejected %d of 20", full)
	}
	await(t, "the end of old messages", func() bool { return a.Health().Dropped == 20 })
	server.Restart()
	b.awaitState(broker.StateOK)
	await(t, "publishing", func() bool { return a.PublishAll(ctx(t), []protocol.Message{emitted("new")}) == nil })
	if got := b.next().Event; got != "new" {
		t.Errorf("got %q, which is too old", got)
	}
	if h := a.Health(); h.Published < 11 || h.Err == nil {
		t.Errorf("health is %+v", h)
	}
}
