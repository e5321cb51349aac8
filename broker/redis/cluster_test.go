package redis_test

import (
	"fmt"
	"testing"

	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// TestClusterMovesSlots: slots, with keys in them, move from one master to another while messages go through channels
// that hash to them. All arrive, once and in order, and nobody stays subscribed.
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
			m := s.Do("PUBSUB", "CHANNELS", "ws:room:*")
			if list, err := m.AsStrSlice(); err != nil || len(list) > 0 {
				return false
			}
		}
		return true
	})
}

// owner is the master of the slot of a key, of three with a third each.
func owner(t *testing.T, c *redistest.Cluster, key string) *redistest.Server {
	t.Helper()
	m := c.Servers[0].Do("CLUSTER", "KEYSLOT", key)
	slot, err := m.AsInt64()
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
