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

	// unresponsiveAfter is how long a count must have waited for a node before the next one no longer waits for it.
	unresponsiveAfter = 750 * time.Millisecond

	// maxCalls is how many calls of this node may be under way.
	maxCalls = 1024
)

// ErrTooManyCalls is returned when as many calls are under way as a node makes at a time.
var ErrTooManyCalls = errors.New("too many calls are in progress")

// errUnresponsive is the cause when a count did not wait for nodes that have been silent since they left another one unanswered.
var errUnresponsive = errors.New("cluster: not waited for: did not answer before")

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
		parts = append(parts, fmt.Sprintf("no answer from %d of the nodes (%s)", len(e.Missing), strings.Join(firstFew(e.Missing), ", ")))
	}
	if e.Cause != nil {
		parts = append(parts, e.Cause.Error())
	}
	for _, f := range firstFew(e.Failed) {
		parts = append(parts, fmt.Sprintf("node %s: %v", f.Node, f.Err))
	}
	return strings.Join(parts, "; ")
}

// firstFew are as many as fit into a line.
func firstFew[T any](all []T) []T { return all[:min(len(all), 4)] }

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

// A pendingCall is one of this node's that others are to answer. Guarded by Cluster.mu.
type pendingCall struct {
	began     time.Time              // read-only
	nodes     map[string]answerState // by node
	awaited   int                    // how many are awaited
	done      chan struct{}          // closed when the last has answered, or the call has failed
	finished  bool                   // done is closed
	warmingUp bool                   // made before this node knows all: done is not closed until it does

	clients int
	failed  []Failure
	cause   error
}

// A answerState is how a call stands with one node.
type answerState uint8

const (
	answered answerState = iota
	awaited
	skipped // has not answered, and is not waited for
)

func (x *pendingCall) expectLocked(id string) {
	if _, known := x.nodes[id]; !known && !x.finished && len(x.nodes) < maxPeers {
		x.nodes[id] = awaited
		x.awaited++
	}
}

// resolveLocked reports whether id was still expected.
func (x *pendingCall) resolveLocked(id string) bool {
	was := x.nodes[id]
	if was == answered {
		return false
	}
	x.nodes[id] = answered
	if was == awaited {
		x.awaited--
	}
	x.finishIfAnsweredLocked()
	return true
}

func (x *pendingCall) finishIfAnsweredLocked() {
	if x.awaited == 0 && !x.warmingUp && !x.finished {
		x.finished = true
		close(x.done)
	}
}

func (x *pendingCall) failLocked(err error) {
	if x.cause == nil {
		x.cause = err
	}
	if !x.finished {
		x.finished = true
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
	x, young, err := cl.beginCall(&c)
	if err != nil {
		return 0, err
	}
	cl.sendCall(ctx, x, c)
	n, own := cl.cfg.Answer(ctx, c)
	cl.await(ctx, x, young)
	return cl.endCall(ctx, c, x, n, own)
}

// beginCall notes a call and whom it waits for. young is how long this node has to wait until it knows all.
func (cl *Cluster) beginCall(c *protocol.Call) (x *pendingCall, young time.Duration, err error) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	if !cl.running {
		return nil, 0, ErrClosed
	}
	if len(cl.calls) >= maxCalls {
		return nil, 0, ErrTooManyCalls
	}
	cl.lastCall++
	c.ID = cl.lastCall
	young = warmUp - time.Since(cl.incompleteSince)
	x = &pendingCall{began: time.Now(), nodes: make(map[string]answerState, len(cl.peers)), done: make(chan struct{}), warmingUp: young > 0}
	for id, p := range cl.peers {
		if p.unresponsive && c.Event == protocol.CallCount {
			x.nodes[id] = skipped
		} else {
			x.expectLocked(id)
		}
	}
	x.finishIfAnsweredLocked()
	cl.calls[c.ID] = x
	return x, young, nil
}

// sendCall publishes the call. Where that is not possible nobody is waited for.
func (cl *Cluster) sendCall(ctx context.Context, x *pendingCall, c protocol.Call) {
	deadline, _ := ctx.Deadline()
	c.Within = max(time.Until(deadline), time.Millisecond)
	data, err := c.Data()
	switch {
	case err != nil:
	case cl.isolatedNow():
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

// isolatedNow reports whether this node does not hear others: now, or when it was last looked at. A broker that is closed says so
// itself.
func (cl *Cluster) isolatedNow() bool {
	state := cl.cfg.Broker.Health().State
	cl.mu.Lock()
	defer cl.mu.Unlock()
	return state == broker.StateDown || state != broker.StateIdle && cl.isolated
}

// await blocks until all have answered, the call has failed, or ctx is done.
func (cl *Cluster) await(ctx context.Context, x *pendingCall, young time.Duration) {
	if young > 0 {
		known := time.NewTimer(young)
		defer known.Stop()
		select {
		case <-known.C:
			cl.mu.Lock()
			x.warmingUp = false
			x.finishIfAnsweredLocked()
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

// endCall forgets the call, and adds up: n and own are this node's result.
func (cl *Cluster) endCall(ctx context.Context, c protocol.Call, x *pendingCall, n int, own error) (clients int, err error) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	delete(cl.calls, c.ID)
	if own != nil {
		x.failed = append(x.failed, Failure{cl.cfg.ID, own})
	}
	e := &Error{Failed: x.failed, Cause: x.cause}
	for id, w := range x.nodes {
		if w == answered {
			continue
		}
		e.Missing = append(e.Missing, id)
		if c.Event == protocol.CallCount && x.cause == nil && time.Since(x.began) >= unresponsiveAfter {
			cl.markUnresponsiveLocked(id, x.began)
		}
	}
	slices.Sort(e.Missing)
	slices.SortFunc(e.Failed, func(a, b Failure) int { return strings.Compare(a.Node, b.Node) })
	if e.Cause == nil && (x.warmingUp || len(e.Missing) > 0) {
		e.Cause = ctx.Err()
	}
	if e.Cause == nil && len(e.Missing) > 0 {
		e.Cause = errUnresponsive
	}
	if e.Cause == nil && !cl.peerRejected.IsZero() && time.Since(cl.peerRejected) < peerTimeout {
		e.Cause = errTooManyNodes
	}
	if e.Cause == nil && len(e.Failed) == 0 {
		return n + x.clients, nil
	}
	return n + x.clients, e
}

// markUnresponsiveLocked notes that a node has left a count unanswered that began then. A count is answered at once by a node that is
// there. What is heard of the node ends the doubt.
func (cl *Cluster) markUnresponsiveLocked(id string, began time.Time) {
	if p := cl.peers[id]; p != nil && p.Seen.Before(began) {
		p.unresponsive = true
	}
}

// handleReply takes another node's answer. One that nobody waits for is no error: it came too late.
func (cl *Cluster) handleReply(m protocol.Message) error {
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
	if x.warmingUp { // from a node that this one had not heard of; one that says bye is not unheard of again
		x.expectLocked(m.ServerID)
	}
	if !x.resolveLocked(m.ServerID) {
		return nil
	}
	x.clients += r.Clients
	if r.Error != "" {
		x.failed = append(x.failed, Failure{m.ServerID, errors.New(r.Error)})
	}
	return nil
}
