// Package cluster keeps one node's list of the other Hearth nodes, and makes calls to them. Each
// node answers a call for its own clients. The package needs a broker only to carry messages, so it
// works with any broker. Other implementations of the protocol do not subscribe to its channels
// (docs/protocol.md §9).
//
// Nodes know each other by three announcements. NodeHello says that a node is running, and asks the
// others to answer; a node sends it at its start, and when it may have missed messages. NodeHere
// says that it is still running; a node sends it every five seconds, and as the answer to a hello.
// NodeBye says that it leaves.
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
	"github.com/hearthws/hearth/internal/fifo"
	"github.com/hearthws/hearth/protocol"
)

const (
	// announceInterval is the time between two announcements of a node. A node that is silent for
	// peerTimeout is removed from the list.
	announceInterval = 5 * time.Second
	peerTimeout      = 3*announceInterval + announceInterval/2

	// holdTimeout is how long a broker may take to confirm the channels between nodes.
	holdTimeout = time.Second

	// warmUp is how long a node waits for answers to its hello before it treats its list of nodes
	// as complete: after its start, and after it may have missed the hello of another node.
	warmUp = 500 * time.Millisecond

	// maxPeers is how many other nodes the list holds. Further nodes are ignored, and calls report
	// that.
	maxPeers = 1024

	// helloPause is the time after which another hello of the same node is answered.
	helloPause = time.Second
)

// errTooManyNodes is the cause of an incomplete call when there are more than maxPeers other nodes.
var errTooManyNodes = errors.New("cluster: there are more nodes than a node keeps in its list")

// ErrClosed is returned by Call before Start and after Close.
var ErrClosed = errors.New("cluster is not running")

// Config configures a Cluster. All fields except Clock and Claim are required.
type Config struct {
	ID     string // this node's id; protocol.IsID
	Name   string // for people
	Broker broker.Broker
	Clock  *clock.Clock // measures the silence of other nodes. Default: a new clock without Watch
	Log    *slog.Logger

	// Answer runs a call for this node's clients, except protocol.CallResume, and returns the
	// number of clients for which it succeeded. With an error, it may have failed for some. It may
	// block until ctx is done, but must not block for protocol.CallCount.
	Answer func(ctx context.Context, c protocol.Call) (clients int, err error)

	// Claim records that a node resumes sessions, and returns the number of clients that it closes
	// here, and the claims that this node rejects. It must not block. Default: it rejects none.
	Claim func(claims []protocol.Claim) (clients int, rejected []protocol.RejectedClaim)
}

// A Node is one of the Hearth nodes that share a broker.
type Node struct {
	ID    string
	Name  string    // for people; the node chose it
	Since time.Time // when this node learned of it
	Seen  time.Time // when its last message arrived here
}

// A Cluster is one node's view of all nodes. Its methods may be called from any goroutine.
type Cluster struct {
	// Set by New, then read-only.
	cfg    Config
	base   context.Context // of the work for other nodes
	cancel context.CancelFunc

	goroutines   sync.WaitGroup // announceLoop and workers; added to under mu while running
	lossReported chan struct{}  // wakes announceLoop after Lost; holds one

	mu           sync.Mutex // guards the fields below; no other lock is taken under it
	running      bool
	started      time.Time // the time of Start
	warmUpStart  time.Time // when peers last became possibly incomplete; see warmUp
	peerRejected time.Time // when a node was last ignored because of maxPeers
	cutOff       bool      // the broker did not deliver messages of other nodes at the last check
	peers        map[string]*peer
	calls        map[uint64]*pendingCall // calls of this node that are in progress
	lastCall     uint64                  // the ID of the latest call
	jobs         fifo.Queue[job]         // calls of other nodes, waiting for a worker
	workers      int
}

// A peer is another node. Guarded by Cluster.mu.
type peer struct {
	Node
	helloAnswered time.Time     // when its hello was last answered
	silentSince   clock.Instant // later than Seen after this node was cut off
	unresponsive  bool          // it did not answer a call at once, and has been silent since
}

// New makes a cluster that knows no other node. It starts no goroutines; Start does.
func New(cfg Config) *Cluster {
	if cfg.Clock == nil {
		cfg.Clock = clock.New()
	}
	c := &Cluster{cfg: cfg, peers: make(map[string]*peer), calls: make(map[uint64]*pendingCall), lossReported: make(chan struct{}, 1)}
	c.base, c.cancel = context.WithCancel(context.Background())
	return c
}

// Start announces this node to the others, asks them to answer, and handles their messages from
// then on. The broker must have been started, with a receiver that passes messages of TypeNodes and
// TypeNode to Deliver. If the broker does not confirm the channels between nodes, Start logs that
// and returns; the cluster tries again, and calls fail until the channels are confirmed.
func (c *Cluster) Start(ctx context.Context) {
	err := c.cfg.Broker.Hold(ctx, c.channels()...)
	if err != nil {
		c.cfg.Log.Warn("broker did not confirm the channels between nodes: retrying", "error", err)
	}
	c.mu.Lock()
	c.running, c.started, c.cutOff = true, time.Now(), err != nil
	c.goroutines.Go(func() { c.announceLoop(err == nil) }) // ends with Close, which waits for it
	c.mu.Unlock()
	c.announce(protocol.NodeHello)
}

// Lost reports that messages between nodes may be missing, such as the hello of a new node. The
// broker calls it. It never blocks. Until the other nodes have had time to answer a new hello,
// calls treat the list of nodes as incomplete.
func (c *Cluster) Lost() {
	c.mu.Lock()
	c.warmUpStart = time.Now()
	c.mu.Unlock()
	select {
	case c.lossReported <- struct{}{}:
	default:
	}
}

// Close announces to the others that this node leaves, cancels its work for them, and fails the
// calls in progress. It waits for its goroutines to end. The caller closes the broker.
func (c *Cluster) Close() {
	c.mu.Lock()
	wasRunning := c.running
	c.running = false
	for _, pc := range c.calls {
		pc.failLocked(ErrClosed)
	}
	c.jobs = fifo.Queue[job]{}
	c.mu.Unlock()
	c.cancel()
	if wasRunning {
		c.announce(protocol.NodeBye)
		c.cfg.Broker.Release(c.channels()...)
	}
	c.goroutines.Wait()
}

// announceLoop announces this node at intervals, and removes the nodes that have been silent for
// too long. received is whether the broker delivers the messages of other nodes at the start.
func (c *Cluster) announceLoop(received bool) {
	tick := time.NewTicker(announceInterval)
	defer tick.Stop()
	lastHello := time.Time{}
	for {
		select {
		case <-tick.C:
		case <-c.lossReported:
			received = false // says hello again
			if time.Since(lastHello) < helloPause {
				continue // no node would answer; the next tick says hello
			}
		case <-c.base.Done():
			return
		}
		state := c.cfg.Broker.Health().State
		receives := c.checkReceives(state)
		if c.base.Err() != nil { // Close announces, or has announced, that this node leaves
			return
		}
		event := protocol.NodeHere
		switch {
		case !receives: // the silence of others says nothing about them
			c.resetSilence()
		case !received: // messages arrive again
			c.resetSilence()
			event, lastHello = protocol.NodeHello, time.Now()
		default:
			c.removeSilent(c.cfg.Clock.Now().Add(-peerTimeout))
		}
		if received = receives; state != broker.StateDown {
			c.announce(event)
		}
	}
}

// checkReceives reports whether the broker delivers the messages of other nodes, and records it in
// cutOff. If the broker is degraded, checkReceives asks it to confirm the channels between nodes.
// It may be degraded for a long time only because of the channel of a client's room, and calls
// should not wait for dead nodes until that is over. It also asks a broker that is OK again. Start
// holds the channels already, so the hold that asks is released at once.
func (c *Cluster) checkReceives(state broker.State) (receives bool) {
	c.mu.Lock()
	wasCutOff := c.cutOff
	c.mu.Unlock()
	switch state {
	case broker.StateOK, broker.StateDegraded:
		if state == broker.StateOK && !wasCutOff {
			receives = true
			break
		}
		ctx, cancel := context.WithTimeout(c.base, holdTimeout)
		defer cancel()
		channels := c.channels()
		receives = c.cfg.Broker.Hold(ctx, channels...) == nil
		c.cfg.Broker.Release(channels...)
	case broker.StateDown, broker.StateIdle: // nothing is delivered
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutOff = !receives
	return receives
}

// channels returns the channels on which other nodes publish messages for this node.
func (c *Cluster) channels() []string {
	return []string{protocol.NodesChannel, protocol.NodeChannel(c.cfg.ID)}
}

// resetSilence restarts the timeout of every other node.
func (c *Cluster) resetSilence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Clock.Now()
	for _, p := range c.peers {
		p.silentSince = now
	}
}

// removeSilent removes the nodes that have been silent since before that instant.
func (c *Cluster) removeSilent(since clock.Instant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, p := range c.peers {
		if p.silentSince < since {
			delete(c.peers, id)
			c.cfg.Log.Warn("another node stopped responding", "node", id, "name", p.Name, "seen", p.Seen)
		}
	}
}

// announce publishes this node's presence to all nodes. They answer a NodeHello with theirs.
func (c *Cluster) announce(event string) {
	if event == protocol.NodeHello {
		c.mu.Lock()
		c.warmUpStart = time.Now()
		c.mu.Unlock()
	}
	c.publish(protocol.Message{Type: protocol.TypeNodes, Event: event}, c.presence)
}

// presence returns the data of this node's announcements.
func (c *Cluster) presence() (data []byte, err error) {
	return protocol.Presence{Name: c.cfg.Name}.Data()
}

// publish publishes a message, after filling in the sender and the data. It only logs a failure:
// the broker counts it, and a call that waits for the message reports the node as missing.
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

// Nodes returns this node and then, in the order of their ids, all others that it knows.
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

// Count returns the number of nodes that Nodes lists.
func (c *Cluster) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return 1 + len(c.peers)
}

// Deliver handles a message of TypeNodes or TypeNode. The broker calls it, so it is quick for every
// message. The error says why a message was dropped; the caller logs it.
func (c *Cluster) Deliver(m protocol.Message) error {
	if !protocol.IsID(m.ServerID) || m.Type == protocol.TypeNode && m.Target != c.cfg.ID {
		return fmt.Errorf("message %.64q between nodes: invalid sender, or not for this node", m.Event)
	}
	m = m.Clone() // parts of it are kept
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
	case m.Type == protocol.TypeNode: // to this node alone: nothing else than a reply
		return c.handleReply(m)
	}
	return c.handleCall(m) // to all nodes
}

// addPeer adds a node that has announced itself to the list, and answers its hello.
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
		return fmt.Errorf("node %s ignored: there are more than %d other nodes", m.ServerID, maxPeers)
	}
	if p == nil {
		p = &peer{Node: Node{ID: m.ServerID, Since: now, Seen: now}, silentSince: c.cfg.Clock.Now()}
		c.peers[m.ServerID] = p
		c.cfg.Log.Info("another node joined", "node", m.ServerID, "name", presence.Name)
		// The answer to a hello comes from a node that was there before, so it got the calls in
		// progress.
		if m.Type == protocol.TypeNode {
			for _, pc := range c.calls {
				pc.expectLocked(m.ServerID)
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

// removePeer removes a node that announced that it leaves. No call waits for it any more.
func (c *Cluster) removePeer(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[id]; p != nil {
		delete(c.peers, id)
		c.cfg.Log.Info("another node left", "node", id, "name", p.Name)
	}
	for _, pc := range c.calls {
		pc.resolveLocked(id)
	}
}
