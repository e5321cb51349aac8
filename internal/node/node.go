// Package node is one instance of Hearth: it joins the hub, the transports, the sessions and the broker, and sweeps.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/cluster"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ratelog"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/transport/epoll"
	"github.com/hearthws/hearth/internal/transport/netconn"
	"github.com/hearthws/hearth/protocol"
)

// Transport names what serves the connections.
type Transport string

// The transports.
const (
	Auto    Transport = ""        // epoll where it can, netconn for the rest
	Epoll   Transport = "epoll"   // the same, but New fails where there is no epoll
	NetConn Transport = "netconn" // netconn for all
)

// Config is what a Node is made with: complete and valid, defaults are the caller's. Where a setting has the name of one
// of hearth.Config, it means the same, except that 0 lifts a limit and switches off a timeout.
type Config struct {
	Name         string
	Path         string
	DefaultRooms []string
	Timeouts     session.Timeouts
	Limits       session.Limits
	Upgrade      Upgrade
	Compression  bool
	Encryption   session.Encryption
	Transport    Transport
	Loops        int
	Broker       broker.Broker // nil: this node is alone
	Resync       bool
	BrokerLost   func(context.Context, broker.Loss) // nil: none
	Log          *slog.Logger
	Calls        session.Callbacks
}

// Upgrade decides about opening handshakes. All but CheckOrigin may be nil.
type Upgrade struct {
	CheckOrigin         func(*http.Request) bool
	CheckOriginMayBlock bool // it is the application's
	ClientAddr          func(*http.Request) netip.Addr
	Subprotocol         func(r *http.Request, offered []string) (selected string, ok bool)
	FromRequest         func(*http.Request) (any, error)
}

// Errors of the life cycle.
var (
	ErrNotRunning = errors.New("server is not running")
	ErrStarted    = errors.New("server was already started")
	ErrInCallback = errors.New("called by a callback, which it would wait for: call it on another goroutine")
)

type lifecycle uint8

const (
	idle lifecycle = iota
	starting
	running
	draining
	closed
)

// Node is one instance. Its methods may be called from any goroutine.
type Node struct {
	// Set by New, then read-only.
	cfg      Config
	id       string
	env      *session.Env
	hub      *hub.Hub
	loops    int                // event loops: the lanes before the last, which is netconn's
	cancel   context.CancelFunc // of env.Base
	stopping chan struct{}      // closed when Shutdown begins

	// Set by Start, then read-only: nothing reads them before there is a client.
	loopRanges []loopRange
	sweeper    sync.WaitGroup

	// Owned by Start and Shutdown, of which one runs at a time.
	clockWatcher sync.WaitGroup // of env.Clock
	stopClock    chan struct{}  // ends it; nil: it does not run

	servers servers
	losses  []*lossNotifier  // set by New, then read-only
	cluster *cluster.Cluster // set by New, then read-only; nil without a broker
	created time.Time        // set by New, then read-only
	logs    *ratelog.Handler // set by New, then read-only: what cfg.Log writes to
	ids     idSource

	// Whether sends are accepted: from the end of Start until Shutdown has closed the connections. Any goroutine.
	canSend atomic.Bool

	// Guards phase. Held for reading while a connection is taken over, so that Shutdown misses none.
	mu    sync.RWMutex
	state lifecycle
}

// A loopRange is a transport whose loop 0 has the lane base of the hub.
type loopRange struct {
	transport.Transport
	firstLane int
}

// New makes a node. Nothing runs before Start.
func New(cfg Config) (*Node, error) {
	if cfg.Transport == Epoll && !epoll.Supported {
		return nil, errors.New("transport epoll: not on this system")
	}
	// Nearly all that is logged can be caused by a client, and as often as it likes.
	logs := ratelog.NewHandler(cfg.Log.Handler())
	cfg.Log = slog.New(logs)
	clk := clock.New()
	lobby := session.NewLobby(session.LobbyConfig{
		AuthTimeout: cfg.Timeouts.Auth, MaxUnauthenticated: cfg.Limits.MaxUnauthenticated,
		MaxUnauthenticatedPerAddr: cfg.Limits.MaxUnauthenticatedPerAddr, Clock: clk,
	})
	n := &Node{cfg: cfg, id: uuid.NewString(), created: time.Now(), stopping: make(chan struct{}), logs: logs}
	if cfg.Transport != NetConn && epoll.Supported {
		n.loops = cfg.Loops
	}
	n.hub = hub.New(hub.Config{
		Lanes: n.loops + 1, Wake: n.wake, Backlogged: n.backlogged, MaxRooms: cfg.Limits.MaxRooms, RoomNames: cfg.Limits.RoomNames,
		Queue: cfg.Limits.SendQueue, Backpressure: cfg.Limits.BackpressureLimit, BatchLimit: cfg.Encryption.BatchLimit,
	})
	base, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	n.env = &session.Env{
		Base: base, Hub: n.hub, Pool: &session.Pool{}, Lobby: lobby, Calls: cfg.Calls,
		Clock: clk, Log: cfg.Log, Stats: &session.Stats{}, Limits: cfg.Limits, Timeouts: cfg.Timeouts, Encryption: cfg.Encryption,
		DefaultRooms: cfg.DefaultRooms,
	}
	if cfg.Broker != nil {
		n.env.Interest = &interest{broker: cfg.Broker, log: cfg.Log}
		n.cluster = cluster.New(cluster.Config{ID: n.id, Name: cfg.Name, Broker: cfg.Broker, Clock: clk, Log: cfg.Log, Answer: n.handleCall})
	}
	n.losses = n.newLossNotifiers()
	return n, nil
}

// startTransports runs the loops, and the clock that they and the sweep depend on.
func (n *Node) startTransports() error {
	unwatch := make(chan struct{})
	n.stopClock = unwatch
	n.clockWatcher.Go(func() { n.env.Clock.Watch(unwatch) }) // ends with closeTransports, which waits for it
	if n.loops > 0 {
		t, err := epoll.New(n.transportConfig(n.loops, 0))
		if err != nil {
			return fmt.Errorf("event loops: %w", err)
		}
		n.loopRanges = append(n.loopRanges, loopRange{t, 0})
	}
	t, err := netconn.New(n.transportConfig(1, n.loops))
	if err != nil {
		return fmt.Errorf("netconn: %w", errors.Join(err, n.closeTransports()))
	}
	n.loopRanges = append(n.loopRanges, loopRange{t, n.loops})
	return nil
}

// closeTransports cuts all connections and ends the loops.
func (n *Node) closeTransports() error {
	var err error
	for _, c := range n.loopRanges {
		if cerr := c.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close transport: %w", cerr))
		}
	}
	n.env.Pool.Attend()
	n.hub.Release()
	if n.stopClock != nil {
		close(n.stopClock)
		n.stopClock = nil
		n.clockWatcher.Wait()
	}
	return err
}

func (n *Node) transportConfig(loops, base int) transport.Config {
	cfg := transport.Config{Loops: loops, Backpressure: n.cfg.Limits.BackpressureLimit, CloseTimeout: n.cfg.Timeouts.Close, Clock: n.env.Clock}
	if base == n.loops { // netconn reads on other goroutines than its loop: there is nothing to lend
		cfg.Tick = func(loop int) bool { return n.hub.Lane(base + loop).Tick() }
		return cfg
	}
	lenders := make([]*session.Lender, loops)
	for i := range lenders {
		lenders[i] = session.NewLender()
	}
	cfg.Tick = func(loop int) bool {
		n.env.Pool.Lend(lenders[loop])
		return n.hub.Lane(base + loop).Tick()
	}
	return cfg
}

// wake is the hub's.
func (n *Node) wake(lane int) {
	if c, ok := n.loopRange(lane); ok {
		c.Wake(lane - c.firstLane)
	}
}

// backlogged is the hub's.
func (n *Node) backlogged(lane int) bool {
	c, ok := n.loopRange(lane)
	return ok && c.Backlogged(lane-c.firstLane)
}

// loopRange is the transport whose loop has that lane; there is none before Start.
func (n *Node) loopRange(lane int) (c loopRange, ok bool) {
	switch {
	case len(n.loopRanges) == 0:
		return c, false
	case lane == n.loops:
		return n.loopRanges[len(n.loopRanges)-1], true
	default:
		return n.loopRanges[0], true
	}
}

// ID is the node's server id, by which brokers tell its messages from others'.
func (n *Node) ID() string { return n.id }

// Hub is the node's index of clients.
func (n *Node) Hub() *hub.Hub { return n.hub }

// Stats are the node's counters.
func (n *Node) Stats() *session.Stats { return n.env.Stats }

// Unauthenticated is the number of clients that have not authenticated yet.
func (n *Node) Unauthenticated() int { return n.env.Lobby.Count() }

// Health is the broker's.
func (n *Node) Health() broker.Health {
	if n.cfg.Broker == nil {
		return broker.Health{State: broker.StateOK}
	}
	return n.cfg.Broker.Health()
}

// Start makes the node ready: it waits for the broker as long as ctx allows, and accepts connections from then on. A Start
// that failed may be repeated.
func (n *Node) Start(ctx context.Context) (err error) {
	if !n.setState(idle, starting) {
		return ErrStarted
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.closeTransports())
			n.loopRanges = nil
			n.setState(starting, idle)
		}
	}()
	if err := n.startTransports(); err != nil {
		return err
	}
	if n.cfg.Broker != nil {
		r := broker.Receiver{ServerID: n.id, Deliver: n.deliver, DeliverAll: n.deliverAll, Lost: n.brokerLost}
		if err := n.cfg.Broker.Start(ctx, r); err != nil {
			return fmt.Errorf("broker: %w", err)
		}
		n.cluster.Start(ctx)
	}
	n.sweeper.Go(n.sweep) // ends with n.ended, Shutdown waits for it
	n.canSend.Store(true) // before there can be a client whose callbacks send
	n.setState(starting, running)
	return nil
}

// setState changes the phase, if it is as expected.
func (n *Node) setState(from, to lifecycle) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state != from {
		return false
	}
	n.state = to
	return true
}

// beginWork has Shutdown wait for something that ends with env.Running.Done, if there is still time.
func (n *Node) beginWork() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.state != running {
		return false
	}
	n.env.Running.Add(1)
	return true
}

// Running reports whether connections are accepted.
func (n *Node) Running() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.state == running
}

// Shutdown ends the node: clients are closed with 1001 once their messages are handled, callbacks get until ctx is done, and
// everything is waited for that can be. The error is ctx's when connections had to be cut then, or callbacks were still
// running. ErrNotRunning when it was not running, ErrInCallback when a function that it waits for has called it.
func (n *Node) Shutdown(ctx context.Context) error {
	if callback.Within() {
		return ErrInCallback
	}
	if !n.setState(running, draining) {
		return ErrNotRunning
	}
	close(n.stopping)
	n.sweeper.Wait()
	if n.cluster != nil {
		n.cluster.Close()
	}
	for _, s := range n.sessions() {
		s.Shutdown()
	}
	err := errors.Join(n.servers.shutdown(ctx), n.drain(ctx))
	n.env.Lobby.Close()
	err = errors.Join(err, n.closeTransports(), n.waitSealing(ctx))
	n.canSend.Store(false) // until here Disconnected callbacks may publish
	if n.cfg.Broker != nil {
		if cerr := n.cfg.Broker.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close broker: %w", cerr))
		}
	}
	err = errors.Join(err, n.waitLosses(ctx))
	n.cancel()
	n.logs.Close()
	n.setState(draining, closed)
	return err
}

// sessions are all, authenticated or not.
func (n *Node) sessions() []*session.Session {
	all := n.env.Lobby.Sessions()
	for _, m := range n.hub.Members(nil, hub.Target{Kind: hub.All}) {
		all = append(all, session.Of(m))
	}
	return all
}

// drain waits for the sessions to end; when ctx is done first it cuts the connections and cancels the callbacks.
func (n *Node) drain(ctx context.Context) error {
	drained := make(chan struct{})
	go func() { // ends with the last session; whoever leaves before that has been told by an error
		n.env.Running.Wait()
		n.env.Pool.Wait()
		close(drained)
	}()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
	}
	n.cancelClients(drained)
	if err := n.closeTransports(); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	select {
	case <-drained:
		return ctx.Err()
	case <-time.After(grace):
		return fmt.Errorf("callbacks are still running: %w", ctx.Err())
	}
}

// cancelClients cancels the callbacks, drops the messages that no callback has begun with, and closes the clients that waited for
// those. The loops get a moment to send the close frames.
func (n *Node) cancelClients(drained <-chan struct{}) {
	n.env.Abandoned.Store(true)
	n.cancel()
	late := n.sessions()
	if len(late) == 0 {
		return
	}
	for _, s := range late {
		s.Close(protocol.CloseGoingAway, protocol.ReasonGoingAway)
	}
	select {
	case <-drained:
	case <-time.After(grace):
	}
}

// waitSealing waits for what is still being encrypted, for nobody, once the loops have ended; when ctx is done first it cancels
// the callbacks.
func (n *Node) waitSealing(ctx context.Context) error {
	settled := make(chan struct{})
	go func() { // ends with the last transformer; whoever leaves before that has been told by an error
		n.hub.Wait()
		close(settled)
	}()
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
	}
	n.cancel()
	select {
	case <-settled:
		return ctx.Err()
	case <-time.After(grace):
		return fmt.Errorf("transformers are still running: %w", ctx.Err())
	}
}

// grace is how long callbacks get to notice that their context is cancelled, when a shutdown has waited long enough.
const grace = 250 * time.Millisecond
