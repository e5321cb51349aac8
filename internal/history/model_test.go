package history_test

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/hearthws/hearth/internal/history"
	"github.com/hearthws/hearth/protocol"
)

// network is a broker that loses, delays and repeats messages between the history and two nodes.
type network struct {
	history *roomLog
	nodes   []*world
	queues  [][]protocol.Message // sent and not delivered, by node
	clients []*modelClient
}

type modelClient struct {
	*client
	node int // -1: it is away
}

// TestModel publishes, loses, repeats and delays messages, evicts and removes history, fails reads,
// and moves clients between two nodes, all at random. Each client checks that it gets every message
// in order, or is told that it does not. At the end, with a network that works, every client is at
// the position of the log.
func TestModel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) { // without t.Deadline, which a bubble lacks
			n := &network{history: &roomLog{}}
			for range 2 {
				w := &world{T: t, roomLog: n.history}
				w.Rooms = history.New(w.config(n.history))
				w.Start()
				defer w.Close()
				n.nodes = append(n.nodes, w)
				n.queues = append(n.queues, nil)
			}
			for range 3 {
				n.clients = append(n.clients, &modelClient{client: &client{positions: true}, node: -1})
			}
			rt.Repeat(map[string]func(*rapid.T){
				"publish": n.publish,
				"deliver": n.deliver,
				"lose":    n.lose,
				"repeat":  n.repeat,
				"report":  n.report,
				"enter":   n.enter,
				"exit":    n.exit,
				"evict":   func(t *rapid.T) { n.history.evict(rapid.IntRange(0, 5).Draw(t, "keep")) },
				"remove":  func(*rapid.T) { n.history.remove() },
				"fail":    func(*rapid.T) { n.history.fail(errBroken) },
				"work":    func(*rapid.T) { n.history.fail(nil) },
				"time":    func(*rapid.T) { wait(time.Second) },
				"":        n.check,
			})
			n.history.fail(nil)
			for i := range n.nodes {
				n.deliverAll(i)
			}
			wait(2 * time.Minute)
			for _, c := range n.clients {
				n.returned(c)
			}
			wait(2 * time.Minute)
			n.check(rt)
			for i, c := range n.clients {
				if c.node >= 0 && !c.interrupted && c.at != n.history.position() && c.at != (protocol.Position{}) {
					rt.Errorf("client %d is at %v, the history at %v", i, c.at, n.history.position())
				}
			}
		})
	})
}

func (n *network) publish(t *rapid.T) {
	ms := n.history.publish(rapid.IntRange(1, 3).Draw(t, "messages"))
	for i := range n.queues {
		n.queues[i] = append(n.queues[i], ms...)
	}
}

func (n *network) node(t *rapid.T) int { return rapid.IntRange(0, len(n.nodes)-1).Draw(t, "node") }

func (n *network) deliver(t *rapid.T) {
	i := n.node(t)
	k := rapid.IntRange(0, len(n.queues[i])).Draw(t, "messages")
	if k > 0 {
		n.nodes[i].Deliver(n.queues[i][:k])
		n.queues[i] = n.queues[i][k:]
	}
}

func (n *network) deliverAll(i int) {
	if len(n.queues[i]) > 0 {
		n.nodes[i].Deliver(n.queues[i])
		n.queues[i] = nil
	}
}

func (n *network) lose(t *rapid.T) {
	if i := n.node(t); len(n.queues[i]) > 0 {
		n.queues[i] = n.queues[i][1:]
	}
}

func (n *network) repeat(t *rapid.T) {
	if i := n.node(t); len(n.queues[i]) > 0 {
		n.queues[i] = append(n.queues[i][:1:1], n.queues[i]...)
	}
}

func (n *network) report(t *rapid.T) { n.nodes[n.node(t)].Lost(nil) }

func (n *network) client(t *rapid.T) *modelClient {
	return rapid.SampledFrom(n.clients).Draw(t, "client")
}

func (n *network) enter(t *rapid.T) {
	c := n.client(t)
	if c.node >= 0 {
		n.exit(t)
		return
	}
	c.node = n.node(t)
	c.w = n.nodes[c.node]
	c.w.enter(c.client, 0)
}

func (n *network) exit(t *rapid.T) {
	if c := n.client(t); c.node >= 0 {
		c.w.exit(c.client)
		c.node = -1
	}
}

// returned lets a client that was interrupted join again.
func (n *network) returned(c *modelClient) {
	if c.node >= 0 && c.interrupted {
		c.rejoin(c.w)
	}
}

func (n *network) check(t *rapid.T) {
	synctest.Wait()
	for _, c := range n.clients {
		if c.w != nil {
			c.client.check(t)
		}
	}
}
