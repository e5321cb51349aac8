// Package cluster is what one node knows of the other Hearth nodes, and how it asks them: membership by announcements,
// and calls that every node answers for its own clients. It needs nothing of a broker but that it carries messages, so
// it works over any; the other implementations of the protocol do not listen where it speaks (docs/protocol.md §9).
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/protocol"
)

const (
	// announceInterval is the time between two announcements of a node, silence how long one is waited for before it is forgotten.
	announceInterval = 5 * time.Second
	peerTimeout      = 3*announceInterval + announceInterval/2

	// holdTimeout is how long a broker may take to say that it delivers what is for nodes.
	holdTimeout = time.Second

	// warmUp is how long a node waits for the answers to its hello before it takes the nodes that it knows for all: when it is
	// new, and when it may have missed the hello of another node.
	warmUp = 500 * time.Millisecond

	// maxPeers is how many other nodes are remembered; more are not believed, and calls say so.
	maxPeers = 1024

	// helloPause is how soon the same node's hello is answered again.
	helloPause = time.Second
)

// errTooManyNodes is the cause when a call cannot wait for all nodes.
var errTooManyNodes = errors.New("cluster: more nodes than a node remembers")

// ErrClosed is returned for calls while the node ends, or before it has begun.
var ErrClosed = errors.New("cluster is not running")

// Config is what a Cluster is made with. All fields are required, Clock excepted.
type Config struct {
	ID     string // the node's; protocol.IsID
	Name   string // for people
	Broker broker.Broker
	Clock  *clock.Clock // measures the others' silence. Default: one that does not notice standstills
	Log    *slog.Logger

	// Answer does what a call asks, for this node's clients, and returns for how many it did. With an error, some of them may
	// be missing. It may block until ctx ends, except for protocol.CallCount, which must not block.
	Answer func(ctx context.Context, c protocol.Call) (clients int, err error)
}

// A Node is one of the Hearth nodes that share a broker.
type Node struct {
	ID    string
	Name  string    // as it calls itself; for people
	Since time.Time // when this node first heard of it
	Seen  time.Time // when this node last heard of it
}

// A Cluster is one node's view of all. Its methods may be called from any goroutine.
type Cluster struct {
	// Set by New, then read-only.
	cfg    Config
	base   context.Context // of what is done for other nodes
	cancel context.CancelFunc

	goroutines   sync.WaitGroup // announcing, and workers; added to under mu while running
	lossReported chan struct{}  // holds one: messages for nodes may be missing

	mu              sync.Mutex // guards the fields below; no other lock is taken under it
	running         bool
	started         time.Time // when Start did
	incompleteSince time.Time // since when this node may not know all: it has asked, or is about to
	peerRejected    time.Time // when a node was last not believed, because there are too many
	isolated        bool      // when it was last looked at, what is for nodes did not come in
	peers           map[string]*peer
	calls           map[uint64]*pendingCall // of this node, not yet answered by all
	lastCall        uint64                  // ID of a call
	jobs            []job                   // of other nodes, waiting
	workers         int
}

// A peer is another node. Guarded by Cluster.mu.
type peer struct {
	Node
	helloAnswered time.Time     // its hello
	silentSince   clock.Instant // since when; later than Seen if this node could not have heard it
	unresponsive  bool          // it has been silent since it left a count unanswered: the next one does not wait for it
}

// New makes a cluster of which this node knows only itself.
func New(cfg Config) *Cluster {
	if cfg.Clock == nil {
		cfg.Clock = clock.New()
	}
	c := &Cluster{cfg: cfg, peers: make(map[string]*peer), calls: make(map[uint64]*pendingCall), lossReported: make(chan struct{}, 1)}
	c.base, c.cancel = context.WithCancel(context.Background())
	return c
}

// Start asks who else is there, and answers others from then on. The broker must have been started, with a receiver that
// hands messages of TypeNodes and TypeNode to Deliver. What the broker can't confirm yet it goes on asking for: no error, but
// calls fail until it is confirmed.
func (c *Cluster) Start(ctx context.Context) {
	err := c.cfg.Broker.Hold(ctx, c.channels()...)
	if err != nil {
		c.cfg.Log.Warn("broker has not confirmed the channels between nodes", "error", err)
	}
	c.mu.Lock()
	c.running, c.started, c.isolated = true, time.Now(), err != nil
	c.goroutines.Go(func() { c.announceLoop(err == nil) }) // ends with Close, which waits for it
	c.mu.Unlock()
	c.announce(protocol.NodeHello)
}

// Lost says that messages for nodes may be missing, among them the hello of a node that is new. It is the broker's; never
// blocks. Until the others have had time to answer, calls do not take the nodes that are known for all.
func (c *Cluster) Lost() {
	c.mu.Lock()
	c.incompleteSince = time.Now()
	c.mu.Unlock()
	select {
	case c.lossReported <- struct{}{}:
	default:
	}
}

// Close tells the others not to wait for this node, gives up what it does for them, and fails calls that are under way. It waits
// for all of that, but not for the broker, which is the caller's to close.
func (c *Cluster) Close() {
	c.mu.Lock()
	was := c.running
	c.running = false
	for _, x := range c.calls {
		x.failLocked(ErrClosed)
	}
	c.jobs = nil
	c.mu.Unlock()
	c.cancel()
	if was {
		c.announce(protocol.NodeBye)
		c.cfg.Broker.Release(c.channels()...)
	}
	c.goroutines.Wait()
}

// announceLoop tells the others, at intervals, that this node is there, and forgets those that have not done so. heard says whether
// this node hears them.
func (c *Cluster) announceLoop(heard bool) {
	tick := time.NewTicker(announceInterval)
	defer tick.Stop()
	asked := time.Time{}
	for {
		select {
		case <-tick.C:
		case <-c.lossReported:
			heard = false
			if time.Since(asked) < helloPause {
				continue // nobody would answer; the next tick asks again
			}
		case <-c.base.Done():
			return
		}
		state := c.cfg.Broker.Health().State
		hears := c.checkReceives(state)
		if c.base.Err() != nil { // bye has been said, or is about to be
			return
		}
		event := protocol.NodeHere
		switch {
		case !hears: // others may be silent because they can't be heard
			c.resetSilence()
		case !heard:
			c.resetSilence()
			event, asked = protocol.NodeHello, time.Now()
		default:
			c.removeSilent(c.cfg.Clock.Now().Add(-peerTimeout))
		}
		if heard = hears; state != broker.StateDown {
			c.announce(event)
		}
	}
}

// checkReceives reports whether this node would hear the others. A broker that is degraded is asked: what it lacks may be only the room
// of a client, for any time, and calls should not wait for dead nodes until then. So is one that is ok again.
func (c *Cluster) checkReceives(state broker.State) (yes bool) {
	c.mu.Lock()
	was := !c.isolated
	c.mu.Unlock()
	switch state {
	case broker.StateOK, broker.StateDegraded:
		if yes = state == broker.StateOK && was; yes {
			break
		}
		ctx, cancel := context.WithTimeout(c.base, holdTimeout)
		defer cancel()
		channels := c.channels()
		yes = c.cfg.Broker.Hold(ctx, channels...) == nil
		c.cfg.Broker.Release(channels...)
	case broker.StateDown, broker.StateIdle:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.isolated = !yes
	return yes
}

// channels are those by which the others speak to this node.
func (c *Cluster) channels() []string {
	return []string{protocol.NodesChannel, protocol.NodeChannel(c.cfg.ID)}
}

// resetSilence lets the silence of all begin anew.
func (c *Cluster) resetSilence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Clock.Now()
	for _, p := range c.peers {
		p.silentSince = now
	}
}

// removeSilent drops the nodes that have been silent since.
func (c *Cluster) removeSilent(since clock.Instant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, p := range c.peers {
		if p.silentSince < since {
			delete(c.peers, id)
			c.cfg.Log.Warn("another node has gone silent", "node", id, "name", p.Name, "seen", p.Seen)
		}
	}
}

// announce announces this node to all. With a hello it asks who they are.
func (c *Cluster) announce(event string) {
	if event == protocol.NodeHello {
		c.mu.Lock()
		c.incompleteSince = time.Now()
		c.mu.Unlock()
	}
	c.publish(protocol.Message{Type: protocol.TypeNodes, Event: event}, c.presence)
}

func (c *Cluster) presence() (data []byte, err error) {
	return protocol.Presence{Name: c.cfg.Name}.Data()
}

// publish fills in the sender and the data. Failures are logged: the broker counts them, and whoever waits will notice.
func (c *Cluster) publish(m protocol.Message, data func() ([]byte, error)) {
	raw, err := data()
	if err == nil {
		m.ServerID, m.Data = c.cfg.ID, raw
		err = c.cfg.Broker.Publish(context.Background(), m)
	}
	if err != nil {
		c.cfg.Log.Debug("message to other nodes not sent", "event", m.Event, "error", err)
	}
}

// Nodes are this node and, in the order of their ids, all others that it knows.
func (c *Cluster) Nodes() []Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	nodes := make([]Node, 0, len(c.peers)+1)
	for _, p := range c.peers {
		nodes = append(nodes, p.Node)
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.ID, b.ID) })
	return slices.Insert(nodes, 0, Node{ID: c.cfg.ID, Name: c.cfg.Name, Since: c.started, Seen: time.Now()})
}

// Count is how many Nodes there are.
func (c *Cluster) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return 1 + len(c.peers)
}

// Deliver takes a message of TypeNodes or TypeNode. It is the broker's: quick, whatever the message. The error says why one
// was dropped, and is for the log.
func (c *Cluster) Deliver(m protocol.Message) error {
	if !protocol.IsID(m.ServerID) || m.Type == protocol.TypeNode && m.Target != c.cfg.ID {
		return fmt.Errorf("message %.64q to nodes: from or to no node", m.Event)
	}
	m = m.Clone() // some of it is kept
	c.mu.Lock()
	if p := c.peers[m.ServerID]; p != nil {
		p.Seen, p.unresponsive = time.Now(), false
		p.silentSince = c.cfg.Clock.Now()
	}
	running := c.running
	c.mu.Unlock()
	switch {
	case !running:
		return nil
	case m.Type == protocol.TypeNodes && m.Event == protocol.NodeBye:
		c.removePeer(m.ServerID)
		return nil
	case m.Event == protocol.NodeHello || m.Event == protocol.NodeHere:
		return c.addPeer(m)
	case m.Type == protocol.TypeNode:
		return c.handleReply(m)
	}
	return c.handleCall(m)
}

// addPeer remembers a node that has announced itself, and answers its hello.
func (c *Cluster) addPeer(m protocol.Message) error {
	presence, err := protocol.ParsePresence(m.Data)
	if err != nil {
		return err
	}
	now := time.Now()
	c.mu.Lock()
	p := c.peers[m.ServerID]
	if p == nil && len(c.peers) >= maxPeers {
		c.peerRejected = now
		c.mu.Unlock()
		return fmt.Errorf("node %s is one too many", m.ServerID)
	}
	if p == nil {
		p = &peer{Node: Node{ID: m.ServerID, Since: now, Seen: now}, silentSince: c.cfg.Clock.Now()}
		c.peers[m.ServerID] = p
		c.cfg.Log.Info("another node is there", "node", m.ServerID, "name", presence.Name)
		if m.Type == protocol.TypeNode { // it was there before this node: calls that are under way have reached it
			for _, x := range c.calls {
				x.expectLocked(m.ServerID)
			}
		}
	}
	p.Name = presence.Name
	answer := m.Event == protocol.NodeHello && now.Sub(p.helloAnswered) >= helloPause
	if answer {
		p.helloAnswered = now
	}
	c.mu.Unlock()
	if answer {
		c.publish(protocol.Message{Type: protocol.TypeNode, Target: m.ServerID, Event: protocol.NodeHere}, c.presence)
	}
	return nil
}

// removePeer forgets a node that has said so; no call waits for it any more.
func (c *Cluster) removePeer(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[id]; p != nil {
		delete(c.peers, id)
		c.cfg.Log.Info("another node has gone", "node", id, "name", p.Name)
	}
	for _, x := range c.calls {
		x.resolveLocked(id)
	}
}
