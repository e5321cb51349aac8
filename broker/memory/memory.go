// Package memory is the broker for nodes of one process: a single node, which is the default, or several on one Bus,
// for tests and examples. Nothing to install, nothing to configure.
//
// A node on its own publishes to nobody, at the cost of a look. With several, each message goes into a bounded queue for
// each other node; the goroutine that delivers from it exists only while there is something in it.
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

// Config is how a Bus is made. The zero value is ready to use.
type Config struct {
	// QueueMessages is how many messages may wait for one node. Default 65536.
	QueueMessages int

	// QueueBytes is how many bytes of data may wait for one node; an empty queue takes a message of any size.
	// Default 64 MiB.
	QueueBytes int
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

// A Bus connects the brokers that it makes. It needs no closing: it holds nothing but brokers that have been started
// and not closed.
type Bus struct {
	config Config // read-only

	mu    sync.Mutex                // guards changes of nodes; taken after a Broker's mu, never before
	nodes atomic.Pointer[[]*Broker] // those started; the slice is never changed, only replaced
}

// NewBus makes a bus without nodes.
func NewBus(config Config) *Bus {
	b := &Bus{config: config.withDefaults()}
	b.nodes.Store(new([]*Broker))
	return b
}

// New makes the broker of a single node, with a bus of its own.
func New() *Broker { return NewBus(Config{}).Broker() }

// Broker makes the broker of one more node.
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

// A Broker is one node's end of a Bus. It delivers every message of the bus, whatever is held: Hold and Release cost
// nothing and remember nothing. Publish never fails with broker.ErrQueueFull: where a node's queue is full, that node is
// told of a loss.
type Broker struct {
	bus *Bus // read-only

	published atomic.Uint64
	phase     atomic.Uint32 // idle, running or closed; changes under mu

	mu          sync.Mutex
	receiver    broker.Receiver // set by Start, then read-only
	queue       fifo.Queue[item]
	queued      int           // bytes of data in queue
	delivering  bool          // a goroutine is delivering
	since       time.Time     // of the state
	pendingLoss broker.Loss   // what was lost since the queue's last message; Messages is 0 for nothing
	health      broker.Health // the counters and Err

	deliveries sync.WaitGroup // the goroutine that delivers; added to under mu while running
}

const (
	idle = iota
	running
	closed
)

var _ broker.Broker = (*Broker)(nil)

// Start implements broker.Broker. It never waits.
func (n *Broker) Start(ctx context.Context, r broker.Receiver) error {
	if err := r.Check(); err != nil {
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

// Publish implements broker.Publisher. The message is in the queue of each other node when it returns.
func (n *Broker) Publish(ctx context.Context, m protocol.Message) error {
	if n.phase.Load() == closed {
		return broker.ErrClosed
	}
	if err := m.Check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	n.published.Add(1)
	for _, o := range *n.bus.nodes.Load() {
		if o.receiver.ServerID != m.ServerID {
			o.enqueue(m)
		}
	}
	return nil
}

// Hold implements broker.Broker. It never waits.
func (n *Broker) Hold(ctx context.Context, _ ...string) error {
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
func (n *Broker) Release(...string) {}

// Health implements broker.Broker. A memory broker is ok while it runs; Err is the last loss.
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

// Close implements broker.Broker. What waits in this node's queue is not delivered any more.
func (n *Broker) Close() error {
	n.mu.Lock()
	if was := n.phase.Swap(closed); was == running {
		n.bus.remove(n)
		n.queue, n.queued = fifo.Queue[item]{}, 0
		n.since = time.Now()
	}
	n.mu.Unlock()
	n.deliveries.Wait()
	return nil
}
