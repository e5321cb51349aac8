// Package memory is the broker for nodes of one process: a single node, which is the default, or
// several on one Bus, for tests and examples. It needs no installation and no configuration.
//
// Publishing on a single node costs next to nothing. With several nodes, each message goes into a
// bounded queue for each other node. A goroutine delivers from a queue only while the queue has
// messages.
package memory

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/fifo"
	"github.com/hearthws/hearth/protocol"
)

// Config is the configuration of a Bus. The zero value is ready to use.
type Config struct {
	// QueueMessages is the maximum number of messages that wait for one node. Default 65536.
	QueueMessages int

	// QueueBytes is the maximum number of bytes of data that wait for one node. An empty queue
	// accepts a message of any size. Default 64 MiB.
	QueueBytes int

	// History selects the rooms with history (broker.History). The logs belong to the bus: all its
	// nodes share them. A room that has no messages anymore keeps its epoch for 24 hours after its
	// last use, or less if 65,536 other rooms without messages were used since. A log remembers the
	// last 100,000 keys. If a rule is invalid, Start and the methods that publish and read return
	// the error of HistoryRules.Check. Default: no room has history.
	History broker.HistoryRules
}

func (c Config) withDefaults() Config {
	if c.QueueMessages <= 0 {
		c.QueueMessages = 1 << 16
	}
	if c.QueueBytes <= 0 {
		c.QueueBytes = 64 << 20
	}
	return c
}

// A Bus connects the brokers that it makes. It does not need to be closed: it keeps only brokers
// that have been started and not closed.
type Bus struct {
	config Config // read-only
	logs   *logs  // has its own lock

	// Guards changes of nodes; lock it after a Broker's mu, never before.
	mu    sync.Mutex
	nodes atomic.Pointer[[]*Broker] // started brokers; the slice is replaced and never changed
}

// NewBus makes a Bus without nodes.
func NewBus(config Config) *Bus {
	b := &Bus{config: config.withDefaults(), logs: newLogs(config.History)}
	b.nodes.Store(new([]*Broker))
	return b
}

// New makes the broker of a single node, with its own bus.
func New() *Broker { return NewBus(Config{}).Broker() }

// Broker makes the broker of a further node.
func (b *Bus) Broker() *Broker { return &Broker{bus: b} }

func (b *Bus) add(n *Broker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	nodes := append(slices.Clone(*b.nodes.Load()), n)
	b.nodes.Store(&nodes)
}

func (b *Bus) remove(n *Broker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	nodes := slices.DeleteFunc(slices.Clone(*b.nodes.Load()), func(o *Broker) bool { return o == n })
	b.nodes.Store(&nodes)
}

// A Broker is one node's connection to a Bus. It delivers every message of the bus, held or not:
// Hold and Release only keep the logs of rooms with history. Publish never fails with
// broker.ErrQueueFull. If the queue of a receiving node is full, that node gets a loss report.
type Broker struct {
	bus *Bus // read-only

	published atomic.Uint64
	phase     atomic.Uint32 // idle, running or closed; changes under mu

	mu         sync.Mutex
	receiver   broker.Receiver // set by Start, then read-only
	queue      fifo.Queue[item]
	queued     int       // bytes of data in queue
	delivering bool      // a goroutine is delivering
	since      time.Time // last change of the state
	// Losses since the last queued message; Messages is 0 if there are none.
	pendingLoss broker.Loss
	health      broker.Health // the counters and Err

	held map[string]int // holds of rooms with history; guarded by logs.mu

	deliveries sync.WaitGroup // the goroutine that delivers; started with mu held while running
}

const (
	idle = iota
	running
	closed
)

var _ broker.History = (*Broker)(nil)

// Start implements broker.Broker. It never waits. The error of HistoryRules.Check is returned for
// invalid rules in Config.History.
func (n *Broker) Start(ctx context.Context, r broker.Receiver) error {
	if err := r.Check(); err != nil {
		return err
	}
	if err := n.bus.logs.err; err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch n.phase.Load() {
	case running:
		return broker.ErrStarted
	case closed:
		return broker.ErrClosed
	}
	n.receiver = r
	n.since = time.Now()
	n.phase.Store(running)
	n.bus.add(n)
	return nil
}

// Publish implements broker.Publisher. When it returns, the message is in the queue of each other
// node, and in the log of its room.
func (n *Broker) Publish(ctx context.Context, m protocol.Message) error {
	if n.phase.Load() == closed {
		return broker.ErrClosed
	}
	if err := m.Check(); err != nil {
		return err
	}
	if err := n.bus.logs.err; err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	m.Position = protocol.Position{}
	if m.Type == protocol.TypeRoom {
		if rule := n.bus.logs.rule(m.Target); rule != nil {
			n.bus.logs.publish(rule, m, n.bus.deliver)
			n.published.Add(1)
			return nil
		}
	}
	m.Key = ""
	n.published.Add(1)
	n.bus.deliver(m)
	return nil
}

// deliver queues a message for each node that gets it.
func (b *Bus) deliver(m protocol.Message) {
	for _, n := range *b.nodes.Load() {
		if n.receiver.ServerID != m.ServerID || m.Position.Offset > 0 {
			n.enqueue(m)
		}
	}
}

// Hold implements broker.Broker. It never waits.
func (n *Broker) Hold(ctx context.Context, channels ...string) error {
	n.holdRooms(channels)
	switch n.phase.Load() {
	case idle:
		return broker.ErrNotStarted
	case closed:
		return broker.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	return nil
}

// Release implements broker.Broker.
func (n *Broker) Release(channels ...string) { n.releaseRooms(channels) }

// Health implements broker.Broker. The state of a running memory broker is always ok; Err is the
// last loss.
func (n *Broker) Health() broker.Health {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.health
	h.Published = n.published.Load()
	h.Since = n.since
	if n.phase.Load() == running {
		h.State = broker.StateOK
	}
	return h
}

// Close implements broker.Broker. Messages that wait in this node's queue are discarded.
func (n *Broker) Close() error {
	n.mu.Lock()
	if was := n.phase.Swap(closed); was == running {
		n.bus.remove(n)
		n.queue, n.queued = fifo.Queue[item]{}, 0
		n.since = time.Now()
	}
	n.mu.Unlock()
	n.releaseAll()
	n.deliveries.Wait()
	return nil
}
