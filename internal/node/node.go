// Package node is one instance of Hearth. It connects the hub, the transports, the sessions and the
// broker, starts and stops them, and checks the clients for timeouts.
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
	"github.com/hearthws/hearth/internal/history"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ratelog"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/transport/epoll"
	"github.com/hearthws/hearth/internal/workpool"
)

// Transport names the implementation that serves the connections.
type Transport string

// The transports.
const (
	Auto    Transport = ""        // epoll where it is supported, netconn otherwise
	Epoll   Transport = "epoll"   // the same, except that New fails on systems without epoll
	NetConn Transport = "netconn" // netconn for all connections
)

// Config configures a Node. It is complete and valid: the caller fills in the defaults. A setting
// with the same name as one of hearth.Config has the same meaning, except that 0 removes a limit
// and disables a timeout.
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
	Broker       broker.Broker // nil: there are no other nodes
	Resync       bool
	Resume       Resume
	BrokerLost   func(context.Context, broker.Loss) // may be nil
	Log          *slog.Logger
	Calls        session.Callbacks
}

// Upgrade holds the application's callbacks for opening handshakes. All except CheckOrigin may be
// nil.
type Upgrade struct {
	CheckOrigin         func(*http.Request) bool
	CheckOriginMayBlock bool // CheckOrigin is the application's function
	ClientAddr          func(*http.Request) netip.Addr
	Subprotocol         func(r *http.Request, offered []string) (selected string, ok bool)
	FromRequest         func(*http.Request) (any, error)
}

// Errors of Start, Shutdown, and of methods that need a running node.
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
	draining // the clients are being closed
	stopping
	closed
)

// Node is one instance. Its methods may be called from any goroutine.
type Node struct {
	// Set by New, then read-only.
	cfg        Config
	id         string
	env        *session.Env
	hub        *hub.Hub
	transports *transports
	upgrader   *upgrader
	conns      *connLimit
	losses     *losses
	claims     *claims            // nil without tickets, or without a broker
	history    *history.Rooms     // nil if no room has history
	cluster    *cluster.Cluster   // nil without a broker
	created    time.Time          // when New was called
	logs       *ratelog.Handler   // the handler of cfg.Log
	cancel     context.CancelFunc // cancels env.Base
	stopping   chan struct{}      // closed when Shutdown has closed the clients

	sweeper sync.WaitGroup // started by Start, awaited by Shutdown
	servers servers
	ids     idSource

	// Reports whether sends are accepted: from the end of Start until Shutdown has closed the
	// connections. Any goroutine.
	canSend atomic.Bool

	// Guards state. Held for reading while a connection is adopted, so that Shutdown misses none.
	mu    sync.RWMutex
	state lifecycle
}

// New makes a node. It starts no goroutines; Start does.
func New(cfg Config) (*Node, error) {
	if cfg.Transport == Epoll && !epoll.Supported {
		return nil, errors.New("transport epoll: not supported on this system")
	}
	// Clients can cause nearly all log lines, in any number, so the lines are limited in rate.
	logs := ratelog.NewHandler(cfg.Log.Handler())
	cfg.Log = slog.New(logs)
	clk := clock.New()
	tickets, err := newTickets(cfg, clk)
	if err != nil {
		return nil, fmt.Errorf("resume: %w", err)
	}
	lobby := session.NewLobby(session.LobbyConfig{
		AuthTimeout: cfg.Timeouts.Auth, MaxUnauthenticated: cfg.Limits.MaxUnauthenticated,
		MaxUnauthenticatedPerAddr: cfg.Limits.MaxUnauthenticatedPerAddr, Clock: clk,
	})
	base, cancel := context.WithCancel(context.Background())
	env := &session.Env{
		Base: base, Pool: &workpool.Pool{}, Lobby: lobby, Calls: cfg.Calls,
		Clock: clk, Log: cfg.Log, Stats: &session.Stats{}, Limits: cfg.Limits, Timeouts: cfg.Timeouts, Encryption: cfg.Encryption,
		DefaultRooms: cfg.DefaultRooms, Tickets: tickets,
	}
	t := newTransports(cfg, env)
	env.Hub = hub.New(hub.Config{
		Lanes: t.lanes(), Wake: t.wake, Backlogged: t.backlogged, MaxRooms: cfg.Limits.MaxRooms, RoomNames: cfg.Limits.RoomNames,
		SendQueue: cfg.Limits.SendQueue, BackpressureLimit: cfg.Limits.BackpressureLimit, BatchLimit: cfg.Encryption.BatchLimit,
	})
	n := &Node{
		cfg: cfg, id: uuid.NewString(), env: env, hub: env.Hub, transports: t, upgrader: newUpgrader(cfg, env),
		conns: &connLimit{max: int64(cfg.Limits.MaxConnections), env: env}, created: time.Now(), logs: logs, cancel: cancel,
		stopping: make(chan struct{}),
	}
	if cfg.Broker != nil {
		env.Interest = &interest{node: n}
		n.cluster = cluster.New(cluster.Config{
			ID: n.id, Name: cfg.Name, Broker: cfg.Broker, Clock: clk, Log: cfg.Log, Answer: localCalls{n.hub, tickets}.handle, Claim: localCalls{n.hub, tickets}.claim,
		})
	}
	tracks := func(room string) bool { return n.history != nil && n.history.Tracks(room) }
	n.claims = newClaims(n)
	n.losses = newLosses(cfg, env, n.stopping, tracks)
	if n.history = newHistory(n); n.history != nil {
		env.History = n.history
	}
	return n, nil
}

// ID returns the node's server id, by which brokers tell its messages from those of other nodes.
func (n *Node) ID() string { return n.id }

// Hub returns the node's index of clients.
func (n *Node) Hub() *hub.Hub { return n.hub }

// Stats returns the node's counters.
func (n *Node) Stats() *session.Stats { return n.env.Stats }

// Unauthenticated returns the number of clients that have not authenticated yet.
func (n *Node) Unauthenticated() int { return n.env.Lobby.Count() }

// Health returns the broker's health; without a broker it is OK. Once Shutdown has begun, the state
// is idle.
func (n *Node) Health() broker.Health {
	h := broker.Health{State: broker.StateOK}
	if n.cfg.Broker != nil {
		h = n.cfg.Broker.Health()
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.state >= draining {
		h.State = broker.StateIdle
	}
	return h
}

// Start starts the node. It waits for the broker until ctx is done; afterwards the node accepts
// connections. After an error, Start may be called again.
func (n *Node) Start(ctx context.Context) (err error) {
	if !n.setState(idle, starting) {
		return ErrStarted
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.transports.close())
			n.transports.ranges = nil
			n.setState(starting, idle)
		}
	}()
	if err := n.transports.start(); err != nil {
		return err
	}
	if n.cfg.Broker != nil {
		r := broker.Receiver{ServerID: n.id, Deliver: n.deliver, DeliverAll: n.deliverAll, Lost: n.brokerLost}
		if err := n.cfg.Broker.Start(ctx, r); err != nil {
			return fmt.Errorf("broker: %w", err)
		}
		n.cluster.Start(ctx)
	}
	if n.history != nil {
		n.history.Start()
	}
	s := &sweeper{env: n.env, stop: n.stopping}
	n.sweeper.Go(s.run) // ends when n.stopping is closed; Shutdown waits for it
	if n.env.Tickets != nil {
		n.sweeper.Go(func() { n.env.Tickets.Run(n.stopping) }) // the same
	}
	n.canSend.Store(true) // before there can be a client whose callbacks send
	n.setState(starting, running)
	return nil
}

// setState changes the state from one to the other and reports true, or reports false if it is not
// from.
func (n *Node) setState(from, to lifecycle) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state != from {
		return false
	}
	n.state = to
	return true
}

// beginWork makes Shutdown wait until the caller calls env.Running.Done. It reports false, and
// does nothing, if the node is not running.
func (n *Node) beginWork() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.state != running {
		return false
	}
	n.env.Running.Add(1)
	return true
}

// hasClients reports whether the node serves clients: it is running, or closing them.
func (n *Node) hasClients() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.state == running || n.state == draining
}

// Running reports whether connections are accepted.
func (n *Node) Running() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.state == running
}

// Shutdown stops the node. It closes the clients within Timeouts.Drain, each after handling the
// client's messages, and gives those with tickets time to resume on other nodes. It lets callbacks
// run until ctx is done, and waits for every goroutine that ends in time. The error wraps ctx's if
// connections had to be cut or callbacks are still running. It is ErrNotRunning if the node was not
// running, and ErrInCallback if the caller is a function that Shutdown waits for.
func (n *Node) Shutdown(ctx context.Context) error {
	if callback.Within() {
		return ErrInCallback
	}
	if !n.setState(running, draining) {
		return ErrNotRunning
	}
	served := make(chan error, 1)
	go func() { served <- n.servers.shutdown(ctx) }() // ends with the requests, or ctx; awaited below
	d := drainer{n.env}
	others := n.CountNodes() > 1
	if !others {
		d.closeAbsences() // no other node can claim a session
	}
	d.closeClients(ctx)
	d.awaitReturns(ctx, others)
	d.closeAbsences()
	n.setState(draining, stopping)
	close(n.stopping)
	n.sweeper.Wait()
	if n.cluster != nil {
		n.cluster.Close()
	}
	err := errors.Join(<-served, waitWithGrace(ctx, "callbacks", d.wait, func(drained <-chan struct{}) error {
		n.env.Abandoned.Store(true)
		n.cancel()
		d.closeRest(drained)
		return n.transports.close()
	}))
	n.env.Lobby.Close()
	n.env.Expirations.Close()
	err = errors.Join(err, n.transports.close())
	// Messages may still be in encryption after the loops have ended, although no client will get
	// them.
	err = errors.Join(err, waitWithGrace(ctx, "transformers", n.hub.Wait, n.cancelCallbacks))
	n.canSend.Store(false) // until here Disconnected callbacks may publish
	if n.history != nil {
		n.history.Close()
	}
	if n.cfg.Broker != nil {
		if cerr := n.cfg.Broker.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close broker: %w", cerr))
		}
	}
	// The broker is closed and reports no further losses. A callback that ends when its context is
	// cancelled is no failure.
	if lerr := waitWithGrace(ctx, "BrokerLost callbacks", n.losses.wait, n.cancelCallbacks); errors.Is(lerr, errStillRunning) {
		err = errors.Join(err, lerr)
	}
	n.cancel()
	if n.claims != nil {
		n.claims.goroutine.Wait()
	}
	n.logs.Close()
	n.setState(stopping, closed)
	return err
}

// cancelCallbacks cancels the context of the callbacks.
func (n *Node) cancelCallbacks(<-chan struct{}) error {
	n.cancel()
	return nil
}
