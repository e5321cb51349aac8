package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/hearthws/hearth/broker"
	brokerredis "github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/emitter"

	"github.com/hearthws/hearth/bench/internal/process"
	"github.com/hearthws/hearth/bench/internal/redis"
)

// A cluster is a number of Hearth nodes on one Redis. It is for one goroutine.
type cluster struct {
	lab     *lab
	entrant entrant
	options nodeOptions
	url     string // of Redis
	nodes   []*node
	called  int // how often nodes that have ended had called Authenticate
}

// startCluster starts Redis and nodes on fixed ports, so that a node can be started again.
func startCluster(ctx context.Context, l *lab, e entrant, nodes int, o nodeOptions) (*cluster, error) {
	r, err := redis.Start(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("start redis: %w", err)
	}
	l.stops = append(l.stops, r.Stop)
	o.redis = r.URL()
	c := &cluster{lab: l, entrant: e, options: o, url: r.URL()}
	for range nodes {
		n, err := c.start(ctx, freeAddress)
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

// start starts a node on an address.
func (c *cluster) start(ctx context.Context, address func() (string, error)) (n *node, err error) {
	o := c.options
	if o.listen, err = address(); err != nil {
		return nil, err
	}
	return c.entrant.start(ctx, c.lab, o)
}

// freeAddress returns an address of 127.0.0.1 on which no process listens. Its port is below those
// that the kernel gives to outgoing connections, so it stays free.
func freeAddress() (string, error) {
	const first, count, tries = 20_000, 10_000, 100
	for range tries {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(count)))
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			return addr, ln.Close()
		}
	}
	return "", errors.New("found no free port")
}

// addrs returns the addresses of the nodes.
func (c *cluster) addrs() []string {
	addrs := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addrs[i] = n.addr
	}
	return addrs
}

// restart stops a node in order and starts it again on its port.
func (c *cluster) restart(ctx context.Context, number int) error {
	n := c.nodes[number]
	called, err := n.authenticated(ctx)
	if err != nil {
		return err
	}
	if err := n.process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop node %d: %w", number, err)
	}
	if limit := c.options.drain + process.StopTimeout; !n.process.EndsWithin(limit) {
		return fmt.Errorf("node %d does not end within %v", number, limit)
	}
	if err := n.process.Err(); err != nil {
		return fmt.Errorf("node %d ended with %w: %s", number, err, n.process.Stderr)
	}
	c.called += called
	c.nodes[number], err = c.start(ctx, func() (string, error) { return n.addr, nil })
	return err
}

// kill kills a node.
func (c *cluster) kill(ctx context.Context, number int) error {
	called, err := c.nodes[number].authenticated(ctx)
	c.called += called
	c.nodes[number].process.Kill()
	return err
}

// authenticated returns how often all nodes so far have called Authenticate.
func (c *cluster) authenticated(ctx context.Context) (int, error) {
	sum := c.called
	for i, n := range c.nodes {
		if !n.process.Alive() {
			continue // killed, and counted
		}
		called, err := n.authenticated(ctx)
		if err != nil {
			return 0, fmt.Errorf("ask node %d: %w", i, err)
		}
		sum += called
	}
	return sum, nil
}

// An emitting publisher sends through Redis, so it does not depend on a node.
type emitting struct{ *emitter.Emitter }

func (c *cluster) publisher() (publisher, error) {
	config := brokerredis.Config{URL: c.url}
	if c.options.history > 0 || c.entrant.recovers {
		config.History = broker.HistoryRules{{Rooms: "kept:*", Size: historySize, Age: 5 * time.Minute}}
	}
	b, err := brokerredis.New(config)
	if err != nil {
		return nil, err
	}
	e, err := emitter.New(b)
	return emitting{e}, err
}

func (e emitting) publish(ctx context.Context, room string, number int) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return e.Send(ctx, emitter.ToRoom(room), "m", roomMessage{room, number})
}

func (e emitting) close() { _ = e.Emitter.Close() }

// A fault is what happens to the nodes of a cluster while messages are published.
type fault func(ctx context.Context, cl *cluster, c *crowd) error

// disturb publishes to the clients of a cluster while a fault happens. calls is how often nodes
// have called Authenticate after all clients were connected. The clients have ended.
func disturb(ctx context.Context, cl *cluster, size load, happen fault) (c *crowd, r result, calls int, err error) {
	p, err := cl.publisher()
	if err != nil {
		return nil, r, 0, err
	}
	defer p.close()
	rooms := size.roomNames()
	c = newCrowd(cl.entrant.dialect, cl.addrs(), size.clients, rooms, size.each)
	c.tickets = cl.entrant.tickets
	sent := 0
	err = c.during(ctx, func(ctx context.Context) error {
		before, err := cl.authenticated(ctx)
		if err != nil {
			return err
		}
		published := make(chan error, 1)
		go func() { // ends with its messages or ctx; the result is received below
			var err error
			sent, err = publishTo(ctx, p, rooms, size.rate, size.length)
			published <- err
		}()
		err = happen(ctx, cl, c)
		if err := errors.Join(err, <-published); err != nil {
			return err
		}
		if err := c.settle(ctx, sent); err != nil {
			return err
		}
		after, err := cl.authenticated(ctx)
		calls = after - before
		return err
	})
	if err != nil {
		return c, r, 0, err
	}
	r = c.result(sent)
	c.addTickets(&r)
	if cl.entrant.recovers {
		r.require("received", r.Tally.received(), atLeast, 100)
		r.requireOrder()
	}
	r.add("calls of Authenticate", float64(calls), "")
	if cl.entrant.tickets {
		r.require("calls of Authenticate", float64(calls), atMost, 0)
	}
	return c, r, calls, nil
}
