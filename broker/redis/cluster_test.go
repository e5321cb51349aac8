package redis_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
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

// TestClusterHistoryMovesSlots moves the slots of rooms with history while several nodes publish to
// them. No message is lost or delivered twice, and in each room they have one order at all nodes. A
// room whose slot moves gets a new epoch.
func TestClusterHistoryMovesSlots(t *testing.T) {
	slow(t)
	const rooms = 6
	cluster := redistest.StartCluster(t)
	c := withHistory(t, cluster.URL())
	var names []string
	for i := 0; len(names) < rooms; i++ {
		if name := fmt.Sprint("log ", i); owner(t, cluster, "{"+name+"}") == cluster.Servers[1] {
			names = append(names, name)
		}
	}
	nodes := []*node{holder(t, "a", c, names...), holder(t, "b", c, names...)}
	var all sync.WaitGroup
	moved := make(chan struct{})
	counts := make([]int, len(nodes))
	for i, n := range nodes {
		all.Go(func() { // ends with the first messages after the slots have moved
			for last := false; !last; {
				select {
				case <-moved:
					last = true
				default:
				}
				ms := make([]protocol.Message, 0, 2*rooms)
				for _, name := range names {
					ms = append(ms, n.room(name, fmt.Sprint(n.id, counts[i])), n.room(name, fmt.Sprint(n.id, counts[i]+1)))
				}
				counts[i] += 2
				if errs := n.PublishAll(ctx(t), ms); errs != nil {
					t.Errorf("publish: %v", errors.Join(errs...))
					return
				}
			}
		})
	}
	for _, name := range names[:rooms-1] {
		cluster.MoveSlot("{"+name+"}", 1, 2, func() {})
	}
	for _, name := range names[:rooms-1] {
		cluster.MoveSlot("{"+name+"}", 2, 0, func() {})
	}
	close(moved)
	all.Wait()
	total := rooms * (counts[0] + counts[1])
	x := clusterOrder{t: t, first: map[protocol.Position]string{}}
	for _, n := range nodes {
		x.start()
		for range total {
			x.take(n.id, n.next())
		}
	}
	if len(x.first) != total {
		t.Errorf("%d positions for %d messages", len(x.first), total)
	}
	for i, name := range names {
		epochs := x.epochs[name]
		if part := nodes[0].read(name, protocol.Position{}); part.Position.Offset != epochs[part.Position.Epoch] {
			t.Errorf("%s: the log is at %+v, the nodes at %v", name, part.Position, epochs)
		}
		if want := 3; i < rooms-1 && len(epochs) != want || i == rooms-1 && len(epochs) != 1 {
			t.Errorf("%s has had %d epochs", name, len(epochs))
		}
	}
	for _, n := range nodes {
		if h := n.Health(); h.Dropped+h.Losses+h.Malformed != 0 {
			t.Errorf("health of %s is %+v", n.id, h)
		}
	}
}

// A clusterOrder checks the messages that nodes receive: in each epoch they are in the order of
// their offsets, and those of one publisher in its order. When a slot has moved, the first messages
// of the new owner may arrive before the last ones of the old owner.
type clusterOrder struct {
	t      *testing.T
	epochs map[string]map[string]uint64 // by room and epoch: the offset of the last message
	last   map[string]int               // by room, epoch and publisher: the number of the last message
	first  map[protocol.Position]string // the messages that the first node received
}

// start begins with the messages of another node.
func (x *clusterOrder) start() {
	x.epochs, x.last = map[string]map[string]uint64{}, map[string]int{}
}

func (x *clusterOrder) take(at string, m protocol.Message) {
	x.t.Helper()
	epochs := x.epochs[m.Target]
	if epochs == nil {
		epochs = map[string]uint64{}
		x.epochs[m.Target] = epochs
	}
	if epochs[m.Position.Epoch]++; m.Position.Offset != epochs[m.Position.Epoch] {
		x.t.Fatalf("%s: %s in %s has offset %d, want %d", at, m.Event, m.Target, m.Position.Offset, epochs[m.Position.Epoch])
	}
	from := fmt.Sprint(m.Target, m.Position.Epoch, m.ServerID)
	number, err := strconv.Atoi(strings.TrimPrefix(m.Event, m.ServerID))
	if last, ok := x.last[from]; err != nil || ok && number != last+1 {
		x.t.Fatalf("%s: %s in %s after %d", at, m.Event, m.Target, last)
	}
	x.last[from] = number
	if other, ok := x.first[m.Position]; ok && other != m.Event {
		x.t.Fatalf("%s: %s is at %+v, where another node has %s", at, m.Event, m.Position, other)
	}
	x.first[m.Position] = m.Event
}

// TestClusterHistoryReplicaTakesOver removes the owner of the slot of a room. Messages to other
// rooms go on, and the room has a new epoch when its replica has taken over.
func TestClusterHistoryReplicaTakesOver(t *testing.T) {
	slow(t)
	for name, fail := range map[string]func(*redistest.Server){"killed": (*redistest.Server).Kill, "frozen": (*redistest.Server).Freeze} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testHistoryReplicaTakesOver(t, fail)
		})
	}
}

func testHistoryReplicaTakesOver(t *testing.T, fail func(*redistest.Server)) {
	cluster := redistest.StartCluster(t)
	c := withHistory(t, cluster.URL())
	c.DialTimeout, c.WriteTimeout, c.ProbeTimeout = 2*time.Second, 2*time.Second, 2*time.Second
	master := cluster.Servers[1]
	var lost, other string
	for i := 0; lost == "" || other == ""; i++ {
		name := fmt.Sprint("log ", i)
		if owner(t, cluster, "{"+name+"}") == master {
			lost = name
		} else {
			other = name
		}
	}
	a, b := holder(t, "a", c, lost, other), holder(t, "b", c, lost, other)
	before := a.confirmNext(lost, "before").Position
	replica := cluster.AddReplica(master)
	fail(master)
	await(t, "messages to another room", func() bool { return a.PublishAll(ctx(t), []protocol.Message{a.room(other, "other")}) == nil })
	if errs := a.PublishAll(ctx(t), []protocol.Message{a.room(lost, "lost")}); errs == nil || !errors.Is(errs[0], broker.ErrDown) {
		t.Errorf("without the owner of the slot: errors %v, want ErrDown", errs)
	}
	await(t, "messages to another room, and not to this one", func() bool {
		errs := a.PublishAll(ctx(t), []protocol.Message{a.room(lost, "lost"), a.room(other, "other")})
		return len(errs) == 2 && errors.Is(errs[0], broker.ErrDown) && errs[1] == nil
	})
	cluster.TakeOver(replica, "TAKEOVER")
	for _, n := range []*node{a, b} {
		n.awaitState(broker.StateOK)
	}
	a.awaitWorks(lost, b)
	if m := a.confirmNext(lost, "after"); m.Position.Epoch == before.Epoch || b.next().Position != m.Position {
		t.Errorf("afterwards the position is %+v", m.Position)
	}
	part := b.read(lost, before)
	if part.Unrecovered != protocol.UnrecoveredReset {
		t.Errorf("read from %+v: %+v", before, part)
	}
}
