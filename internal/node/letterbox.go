package node

import (
	"context"
	"slices"
	"time"

	"github.com/hearthws/hearth/protocol"
)

// elsewhereTimeout is how long a join may wait to learn whether it would open another client's letter box.
const elsewhereTimeout = 2 * time.Second

// elsewhere returns those of the names that are, or may be, ids of clients on other nodes (session.Env). It asks for many at
// once: that somebody has one of them is so rare, and so seldom meant well, that it does not matter which. A node that does
// not answer has clients no longer, or is as cut off from what goes to their rooms as they are.
func (n *Node) elsewhere(ctx context.Context, names []string) (foreign []string) {
	ctx, cancel := context.WithTimeout(ctx, elsewhereTimeout)
	defer cancel()
	for some := range slices.Chunk(names, protocol.MaxRoomsPerCall) {
		clients, err := n.cluster.Call(ctx, protocol.Call{Event: protocol.CallNamed, Type: protocol.TypeBroadcast, Rooms: some})
		if err != nil {
			n.cfg.Log.Debug("not all nodes have said whether rooms are ids of their clients", "rooms", len(some), "error", err)
		}
		if clients > 0 {
			foreign = append(foreign, some...)
		}
	}
	return foreign
}

// named is how many of the names are ids of clients of this node.
func (n *Node) named(names []string) (clients int) {
	for _, name := range names {
		if n.hub.Client(name) != nil {
			clients++
		}
	}
	return clients
}
