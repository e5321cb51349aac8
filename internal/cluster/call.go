package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

const (
	// callTimeout is how long a call waits for answers when its context has no deadline.
	callTimeout = 2 * time.Second

	// patience is how long a count must have waited for a node before the next one no longer waits for it.
	patience = 750 * time.Millisecond

	// maxCalls is how many calls of this node may be under way.
	maxCalls = 1024
)

// ErrTooManyCalls is returned when as many calls are under way as a node makes at a time.
var ErrTooManyCalls = errors.New("too many calls are in progress")

// errSilent is the cause when a count did not wait for nodes that have been silent since they left another one unanswered.
var errSilent = errors.New("cluster: not waited for: did not answer before")

// An Error says what is missing from the result of a call, which is right for all other nodes.
type Error struct {
	// Missing are the ids of the nodes that have not answered: those that were known and did not in time.
	Missing []string

	// Failed are the nodes, this one perhaps among them, that could not do it for all of their clients, in the order of their ids.
	Failed []Failure

	// Cause is why answers are missing: the context's error, the broker's, or that nodes are not waited for that did not
	// answer before. Nil if none is.
	Cause error
}

// A Failure is what one node has answered instead of, or beside, doing all that was asked.
type Failure struct {
	Node string // its id
	Err  error
}

func (e *Error) Error() string {
	var parts []string
	if len(e.Missing) > 0 {
		parts = append(parts, fmt.Sprintf("no answer from %d of the nodes (%s)", len(e.Missing), strings.Join(firsts(e.Missing), ", ")))
	}
	if e.Cause != nil {
		parts = append(parts, e.Cause.Error())
	}
	for _, f := range firsts(e.Failed) {
		parts = append(parts, fmt.Sprintf("node %s: %v", f.Node, f.Err))
	}
	return strings.Join(parts, "; ")
}

// firsts are as many as fit into a line.
func firsts[T any](all []T) []T { return all[:min(len(all), 4)] }

// Unwrap gives the cause and what failed.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	for _, f := range e.Failed {
		errs = append(errs, f.Err)
	}
	return errs
}

// A call is one of this node's that others are to answer. Guarded by Cluster.mu.
type call struct {
	began   time.Time       // read-only
	missing map[string]wait // by node
	unheard int             // how many are awaited
	done    chan struct{}   // closed when the last has answered, or the call has failed
	over    bool            // done is closed
	early   bool            // made before this node knows all: done is not closed until it does

	clients int
	failed  []Failure
	cause   error
}

// A wait is how a call stands with one node.
type wait uint8

const (
	answered wait = iota
	awaited
	doubted // has not answered, and is not waited for
)

func (x *call) expectLocked(id string) {
	if _, known := x.missing[id]; !known && !x.over && len(x.missing) < maxPeers {
		x.missing[id] = awaited
		x.unheard++
	}
}

// dismissLocked reports whether id was still expected.
func (x *call) dismissLocked(id string) bool {
	was := x.missing[id]
	if was == answered {
		return false
	}
	x.missing[id] = answered
	if was == awaited {
		x.unheard--
	}
	x.checkLocked()
	return true
}

func (x *call) checkLocked() {
	if x.unheard == 0 && !x.early && !x.over {
		x.over = true
		close(x.done)
	}
}

func (x *call) failLocked(err error) {
	if x.cause == nil {
		x.cause = err
	}
	if !x.over {
		x.over = true
		close(x.done)
	}
}

// Call has every node do what c says, and returns for how many clients they did, in all. c.ID and c.Within are Call's own.
// Without a deadline in ctx it waits for two seconds. An *Error comes with a result that lacks what the error tells.
func (cl *Cluster) Call(ctx context.Context, c protocol.Call) (clients int, err error) {
	if err := c.Check(); err != nil {
		return 0, err
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	x, young, err := cl.begin(&c)
	if err != nil {
		return 0, err
	}
	cl.ask(ctx, x, c)
	n, own := cl.cfg.Answer(ctx, c)
	cl.await(ctx, x, young)
	return cl.end(ctx, c, x, n, own)
}

// begin notes a call and whom it waits for. young is how long this node has to wait until it knows all.
func (cl *Cluster) begin(c *protocol.Call) (x *call, young time.Duration, err error) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if !cl.running {
		return nil, 0, ErrClosed
	}
	if len(cl.calls) >= maxCalls {
		return nil, 0, ErrTooManyCalls
	}
	cl.last++
	c.ID = cl.last
	young = settle - time.Since(cl.unsure)
	x = &call{began: time.Now(), missing: make(map[string]wait, len(cl.peers)), done: make(chan struct{}), early: young > 0}
	for id, p := range cl.peers {
		if p.doubted && c.Event == protocol.CallCount {
			x.missing[id] = doubted
		} else {
			x.expectLocked(id)
		}
	}
	x.checkLocked()
	cl.calls[c.ID] = x
	return x, young, nil
}

// ask publishes the call. Where that is not possible nobody is waited for.
func (cl *Cluster) ask(ctx context.Context, x *call, c protocol.Call) {
	deadline, _ := ctx.Deadline()
	c.Within = max(time.Until(deadline), time.Millisecond)
	data, err := c.Data()
	switch {
	case err != nil:
	case cl.deafNow():
		err = broker.ErrDown // no answer would come
	default:
		err = cl.cfg.Broker.Publish(ctx, protocol.Message{ServerID: cl.cfg.ID, Type: protocol.TypeNodes, Event: c.Event, Data: data})
	}
	if err != nil {
		cl.mu.Lock()
		defer cl.mu.Unlock()
		x.failLocked(err)
	}
}

// deafNow reports whether this node does not hear others: now, or when it was last looked at. A broker that is closed says so
// itself.
func (cl *Cluster) deafNow() bool {
	state := cl.cfg.Broker.Health().State
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return state == broker.StateDown || state != broker.StateIdle && cl.deaf
}

// await blocks until all have answered, the call has failed, or ctx is done.
func (cl *Cluster) await(ctx context.Context, x *call, young time.Duration) {
	if young > 0 {
		known := time.NewTimer(young)
		defer known.Stop()
		select {
		case <-known.C:
			cl.mu.Lock()
			x.early = false
			x.checkLocked()
			cl.mu.Unlock()
		case <-x.done:
		case <-ctx.Done():
		}
	}
	select {
	case <-x.done:
	case <-ctx.Done():
	}
}

// end forgets the call, and adds up: n and own are this node's result.
func (cl *Cluster) end(ctx context.Context, c protocol.Call, x *call, n int, own error) (clients int, err error) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	delete(cl.calls, c.ID)
	if own != nil {
		x.failed = append(x.failed, Failure{cl.cfg.ID, own})
	}
	e := &Error{Failed: x.failed, Cause: x.cause}
	for id, w := range x.missing {
		if w == answered {
			continue
		}
		e.Missing = append(e.Missing, id)
		if c.Event == protocol.CallCount && x.cause == nil && time.Since(x.began) >= patience {
			cl.doubtLocked(id, x.began)
		}
	}
	slices.Sort(e.Missing)
	slices.SortFunc(e.Failed, func(a, b Failure) int { return strings.Compare(a.Node, b.Node) })
	if e.Cause == nil && (x.early || len(e.Missing) > 0) {
		e.Cause = ctx.Err()
	}
	if e.Cause == nil && len(e.Missing) > 0 {
		e.Cause = errSilent
	}
	if e.Cause == nil && !cl.refused.IsZero() && time.Since(cl.refused) < silence {
		e.Cause = errTooManyNodes
	}
	if e.Cause == nil && len(e.Failed) == 0 {
		return n + x.clients, nil
	}
	return n + x.clients, e
}

// doubtLocked notes that a node has left a count unanswered that began then. A count is answered at once by a node that is
// there. What is heard of the node ends the doubt.
func (cl *Cluster) doubtLocked(id string, began time.Time) {
	if p := cl.peers[id]; p != nil && p.Seen.Before(began) {
		p.doubted = true
	}
}

// answered takes another node's answer. One that nobody waits for is no error: it came too late.
func (cl *Cluster) answered(m protocol.Message) error {
	r, err := protocol.ParseReply(m.Data)
	if err != nil {
		return err
	}
	cl.mu.Lock()
	defer cl.mu.Unlock()
	x := cl.calls[r.Call]
	if x == nil {
		return nil
	}
	if x.early { // from a node that this one had not heard of; one that says bye is not unheard of again
		x.expectLocked(m.ServerID)
	}
	if !x.dismissLocked(m.ServerID) {
		return nil
	}
	x.clients += r.Clients
	if r.Error != "" {
		x.failed = append(x.failed, Failure{m.ServerID, errors.New(r.Error)})
	}
	return nil
}
