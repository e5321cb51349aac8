package node

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/transport/epoll"
	"github.com/hearthws/hearth/internal/transport/netconn"
	"github.com/hearthws/hearth/internal/workpool"
)

// transports runs the node's transports, and the clock that they depend on. Each loop of a
// transport has one lane of the hub: the event loops have the first lanes, netconn's loop has the
// last.
type transports struct {
	// Set by newTransports, then read-only.
	env   *session.Env
	loops int // event loops; 0 if only netconn is used

	// Set by start, then read-only: no goroutine reads it before there is a client.
	ranges []loopRange

	// Owned by Node.Start and Node.Shutdown, which never run at the same time.
	clockWatcher sync.WaitGroup // runs env.Clock.Watch
	stopClock    chan struct{}  // ends the watcher when closed; nil while there is none
}

// A loopRange is a transport and the lane of its loop 0. The lanes of its other loops follow.
type loopRange struct {
	transport.Transport
	firstLane int
}

// newTransports returns transports that are not running. Start them after env.Hub is set.
func newTransports(cfg Config, env *session.Env) *transports {
	t := &transports{env: env}
	if cfg.Transport != NetConn && epoll.Supported {
		t.loops = cfg.Loops
	}
	return t
}

// lanes returns the number of lanes that the hub needs.
func (t *transports) lanes() int { return t.loops + 1 }

// start starts the clock and the loops. After an error, the caller calls close.
func (t *transports) start() error {
	stop := make(chan struct{})
	t.stopClock = stop
	t.clockWatcher.Go(func() { t.env.Clock.Watch(stop) }) // ends with close, which waits for it
	if t.loops > 0 {
		e, err := epoll.New(t.config(t.loops, 0))
		if err != nil {
			return fmt.Errorf("event loops: %w", err)
		}
		t.ranges = append(t.ranges, loopRange{e, 0})
	}
	nc, err := netconn.New(t.config(1, t.loops))
	if err != nil {
		return fmt.Errorf("netconn: %w", err)
	}
	t.ranges = append(t.ranges, loopRange{nc, t.loops})
	return nil
}

// close cuts all connections, ends the loops, and then stops the clock. It may be called again.
func (t *transports) close() error {
	var err error
	for _, r := range t.ranges {
		if cerr := r.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close transport: %w", cerr))
		}
	}
	t.env.Pool.Kick()
	t.env.Hub.ResumeAll()
	if t.stopClock != nil {
		close(t.stopClock)
		t.stopClock = nil
		t.clockWatcher.Wait()
	}
	return err
}

// config returns the configuration of a transport with that many loops.
func (t *transports) config(loops, firstLane int) transport.Config {
	cfg := transport.Config{
		Loops: loops, BackpressureLimit: t.env.Limits.BackpressureLimit, CloseTimeout: t.env.Timeouts.Close, Clock: t.env.Clock,
	}
	if firstLane == t.loops { // netconn does not read on its loop, so that has nothing to yield
		cfg.Tick = func(loop int) bool { return t.env.Hub.Lane(firstLane + loop).Tick() }
		return cfg
	}
	yielders := make([]*workpool.Yielder, loops)
	for i := range yielders {
		yielders[i] = workpool.NewYielder()
	}
	cfg.Tick = func(loop int) bool {
		t.env.Pool.RunDeferred(yielders[loop])
		return t.env.Hub.Lane(firstLane + loop).Tick()
	}
	return cfg
}

// wake wakes the loop of a lane; see hub.Config.
func (t *transports) wake(lane int) {
	if r, ok := t.byLane(lane); ok {
		r.Wake(lane - r.firstLane)
	}
}

// backlogged reports whether the loop of a lane has a backlog; see hub.Config.
func (t *transports) backlogged(lane int) bool {
	r, ok := t.byLane(lane)
	return ok && r.Backlogged(lane-r.firstLane)
}

// byLane returns the transport that serves the lane. Before start there is none, and ok is false.
func (t *transports) byLane(lane int) (r loopRange, ok bool) {
	switch {
	case len(t.ranges) == 0:
		return r, false
	case lane == t.loops:
		return t.ranges[len(t.ranges)-1], true
	default:
		return t.ranges[0], true
	}
}
