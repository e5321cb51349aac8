package redis_test

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// TestClusterMovesSlots moves slots, with keys in them, from one master to another while messages
// go through channels that hash to them. All arrive, once and in order, and no subscription is
// left.
func TestClusterMovesSlots(t *testing.T) {
	slow(t)
	cluster := redistest.StartCluster(t)
	a, b := startNode(t, "a", quick(t, cluster.URL())), startNode(t, "b", quick(t, cluster.URL()))
	var rooms, channels []string
	for i := 0; len(rooms) < 10; i++ {
		room := fmt.Sprint("room ", i)
		if owner(t, cluster, protocol.RoomChannel(room)) == cluster.Servers[1] {
			rooms, channels = append(rooms, room), append(channels, protocol.RoomChannel(room))
		}
	}
	if err := b.Hold(ctx(t), channels...); err != nil {
		t.Fatal(err)
	}
	n := 0
	publish := func() {
		for _, room := range rooms {
			a.confirm(a.room(room, fmt.Sprint(n)))
			n++
		}
	}
	for _, channel := range channels {
		publish()
		cluster.MoveSlot(channel, 1, 2, publish)
	}
	publish()
	for i := range n {
		if got := b.next().Event; got != fmt.Sprint(i) {
			t.Fatalf("got %s where %d should be", got, i)
		}
	}
	if h := b.Health(); h.Losses != 0 || h.Delivered != uint64(n) {
		t.Errorf("health is %+v", h)
	}
	b.Release(channels...)
	await(t, "the end of the subscriptions", func() bool {
		for _, s := range cluster.Servers {
			if list, err := s.Do("PUBSUB", "CHANNELS", "ws:room:*").Strings(); err != nil || len(list) > 0 {
				return false
			}
		}
		return true
	})
}

// TestClusterReplicaTakesOver removes the master at which a node is subscribed. The node notices,
// subscribes elsewhere, reports a loss, and receives all messages published from then on.
func TestClusterReplicaTakesOver(t *testing.T) {
	slow(t)
	for name, fail := range map[string]func(*redistest.Server){"killed": (*redistest.Server).Kill, "frozen": (*redistest.Server).Freeze} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := startTakeover(t, 4*time.Second) // to notice a frozen one
			x.publish()
			x.arrives()
			began := time.Now()
			fail(x.master)
			x.cluster.TakeOver(x.replica, "TAKEOVER")
			l := x.b.nextLoss()
			if l.Cause == nil || l.Channels != nil || l.Until.Before(began) || l.Since.After(l.Until) {
				t.Errorf("reported %+v for a fault after %v", l, began)
			}
			if h := x.b.awaitState(broker.StateOK); h.Since.Before(began) || h.Err == nil || h.Reason != "" {
				t.Errorf("health is %+v", h) // the same as if it had been ok throughout
			}
			x.a.awaitState(broker.StateOK)
			x.publish()
			x.arrives()
		})
	}
}

// TestClusterFailover checks that nothing is lost, and no loss is reported, when a master hands
// over to its replica and stays.
func TestClusterFailover(t *testing.T) {
	slow(t)
	x := startTakeover(t, testTimeout)
	x.publish()
	x.cluster.TakeOver(x.replica)
	x.publish()
	x.arrives()
	if h := x.b.Health(); h.State != broker.StateOK || h.Losses != 0 {
		t.Errorf("health is %+v", h)
	}
}

// A takeover is of the master at which node b is subscribed to rooms that hash to that master.
type takeover struct {
	cluster         *redistest.Cluster
	a, b            *node
	master, replica *redistest.Server
	rooms           []string
	n, got          int // messages that a has published, and that b has received
}

// startTakeover prepares a takeover. The nodes take a Redis that does not answer for so long to be
// down.
func startTakeover(t *testing.T, timeout time.Duration) *takeover {
	t.Helper()
	x := &takeover{cluster: redistest.StartCluster(t)}
	c := quick(t, x.cluster.URL())
	c.DialTimeout, c.WriteTimeout, c.ProbeTimeout = timeout, timeout, timeout
	x.a, x.b = startNode(t, "a", c), startNode(t, "b", c)
	for _, s := range x.cluster.Servers {
		if list, err := s.Do("PUBSUB", "NUMSUB", "hearth:probe:b").Array(); err == nil && len(list) == 2 {
			if n, _ := list[1].Int(); n == 1 {
				x.master = s
			}
		}
	}
	if x.master == nil {
		t.Fatal("no master has the node's subscription")
	}
	for i := 0; len(x.rooms) < 10; i++ {
		if room := fmt.Sprint("room ", i); owner(t, x.cluster, protocol.RoomChannel(room)) == x.master {
			x.rooms = append(x.rooms, room)
		}
	}
	for _, room := range x.rooms {
		if err := x.b.Hold(ctx(t), protocol.RoomChannel(room)); err != nil {
			t.Fatal(err)
		}
	}
	x.replica = x.cluster.AddReplica(x.master)
	return x
}

// publish publishes one message to each room, until a Redis has accepted it.
func (x *takeover) publish() {
	x.a.t.Helper()
	for _, room := range x.rooms {
		x.a.confirm(x.a.room(room, fmt.Sprint(x.n)))
		x.n++
	}
}

// arrives checks that all published messages have arrived, in order. Those that Redis did not
// confirm in time were published again, and may arrive twice.
func (x *takeover) arrives() {
	x.b.t.Helper()
	for x.got < x.n {
		event := x.b.next().Event
		n, err := strconv.Atoi(event)
		if err != nil || n > x.got {
			x.b.t.Fatalf("got %s where %d should be", event, x.got)
		}
		if n == x.got {
			x.got++
		}
	}
}

// owner returns the master of the slot of a key, of three masters with a third each.
func owner(t *testing.T, c *redistest.Cluster, key string) *redistest.Server {
	t.Helper()
	slot, err := c.Servers[0].Do("CLUSTER", "KEYSLOT", key).Int()
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range c.Servers {
		if slot < int64((i+1)*(1<<14)/3) {
			return s
		}
	}
	t.Fatalf("no slot for %q", key)
	return nil
}
