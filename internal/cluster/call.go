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

	// unresponsiveAfter is how long a call that is answered at once must have waited for a node
	// before later such calls skip it.
	unresponsiveAfter = 750 * time.Millisecond

	// maxCalls is how many calls of this node may be in progress.
	maxCalls = 1024
)

// ErrTooManyCalls is returned by Call when too many calls of this node are in progress.
var ErrTooManyCalls = errors.New("too many calls are in progress")

// errUnresponsive is the cause when a call skipped nodes that did not answer an earlier one.
var errUnresponsive = errors.New("cluster: skipped nodes that did not answer an earlier call")

// An Error reports what is missing from the result of a call. The result is right for all other
// nodes.
type Error struct {
	// Missing lists the ids of the known nodes that did not answer in time.
	Missing []string

	// Failed lists the nodes that could not run the call for all of their clients, in the order of
	// their ids. This node may be one of them.
	Failed []Failure

	// Cause is the reason for missing answers: the error of the context or of the broker, or an
	// error that says that nodes were skipped or that there are too many. Nil if no answers are
	// missing.
	Cause error
}

// A Failure is the error of one node, which may still have run the call for some of its clients.
type Failure struct {
	Node string // its id
	Err  error
}

// Error lists the missing nodes, the cause and the failures.
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

// firstFew returns the elements that an error text names.
func firstFew[T any](all []T) []T { return all[:min(len(all), 4)] }

// Unwrap returns the cause and the errors of the failures.
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

// A pendingCall is a call of this node that waits for answers. Guarded by Cluster.mu.
type pendingCall struct {
	began     time.Time // read-only
	nodes     map[string]answerState
	awaited   int           // the number of nodes in state awaited
	done      chan struct{} // closed when all nodes have answered, or the call has failed
	finished  bool          // done is closed
	warmingUp bool          // the list of nodes may be incomplete, so done stays open

	clients  int
	rejected []protocol.RejectedClaim
	failed   []Failure
	cause    error
}

// An answerState says whether a call waits for a node.
type answerState uint8

const (
	answered answerState = iota // or left; also the state of a node that the call does not expect
	awaited
	skipped // counts as missing, and the call does not wait for it
)

// expectLocked makes the call wait for a node that it does not know yet.
func (pc *pendingCall) expectLocked(id string) {
	if _, known := pc.nodes[id]; !known && !pc.finished && len(pc.nodes) < maxPeers {
		pc.nodes[id] = awaited
		pc.awaited++
	}
}

// resolveLocked records that the node has answered or left. It reports false if the call did not
// expect its answer.
func (pc *pendingCall) resolveLocked(id string) bool {
	was := pc.nodes[id]
	if was == answered {
		return false
	}
	pc.nodes[id] = answered
	if was == awaited {
		pc.awaited--
	}
	pc.finishIfAnsweredLocked()
	return true
}

// finishIfAnsweredLocked closes done if there is no node to wait for.
func (pc *pendingCall) finishIfAnsweredLocked() {
	if pc.awaited == 0 && !pc.warmingUp {
		pc.finishLocked()
	}
}

// failLocked closes done and records the cause.
func (pc *pendingCall) failLocked(err error) {
	if pc.cause == nil {
		pc.cause = err
	}
	pc.finishLocked()
}

func (pc *pendingCall) finishLocked() {
	if !pc.finished {
		pc.finished = true
		close(pc.done)
	}
}

// atOnce reports whether a running node answers a call at once, so that one that does not is likely
// to be gone.
func atOnce(event string) bool { return event == protocol.CallCount || event == protocol.CallResume }

// Silent reports whether the result is incomplete only because nodes did not answer in time.
func (e *Error) Silent() bool {
	return len(e.Failed) == 0 && len(e.Missing) > 0 && (errors.Is(e.Cause, context.DeadlineExceeded) || errors.Is(e.Cause, errUnresponsive))
}

// Call runs the call on every node, and returns the number of clients for which it succeeded, in
// all. Call sets call.ID and call.Within. If ctx has no deadline, it waits for two seconds at most.
// With an *Error, the result is incomplete, and the error says what is missing.
func (c *Cluster) Call(ctx context.Context, call protocol.Call) (clients int, err error) {
	r, err := c.call(ctx, call)
	return r.Clients, err
}

// Claim says to every node that this one resumes sessions, and returns the claims that any of them
// rejects; see Call.
func (c *Cluster) Claim(ctx context.Context, claims []protocol.Claim) ([]protocol.RejectedClaim, error) {
	r, err := c.call(ctx, protocol.Call{Event: protocol.CallResume, Type: protocol.TypeBroadcast, Claims: claims})
	return r.Rejected, err
}

// call returns the sum of all answers to a call.
func (c *Cluster) call(ctx context.Context, call protocol.Call) (protocol.Reply, error) {
	if err := call.Check(); err != nil {
		return protocol.Reply{}, err
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	pc, warmUpLeft, err := c.beginCall(&call)
	if err != nil {
		return protocol.Reply{}, err
	}
	c.sendCall(ctx, pc, call)
	own, ownErr := c.answer(ctx, call)
	c.await(ctx, pc, warmUpLeft)
	return c.endCall(ctx, call, pc, own, ownErr)
}

// beginCall registers a call and the nodes that it waits for. warmUpLeft is the time until the list
// of nodes counts as complete.
func (c *Cluster) beginCall(call *protocol.Call) (pc *pendingCall, warmUpLeft time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running {
		return nil, 0, ErrClosed
	}
	if len(c.calls) >= maxCalls {
		return nil, 0, ErrTooManyCalls
	}
	c.lastCall++
	call.ID = c.lastCall
	warmUpLeft = warmUp - time.Since(c.warmUpStart)
	pc = &pendingCall{
		began: time.Now(), nodes: make(map[string]answerState, len(c.peers)), done: make(chan struct{}), warmingUp: warmUpLeft > 0,
	}
	for id, p := range c.peers {
		if p.unresponsive && atOnce(call.Event) {
			pc.nodes[id] = skipped
		} else {
			pc.expectLocked(id)
		}
	}
	pc.finishIfAnsweredLocked()
	c.calls[call.ID] = pc
	return pc, warmUpLeft, nil
}

// sendCall publishes the call. If that fails, the call fails, and waits for no node.
func (c *Cluster) sendCall(ctx context.Context, pc *pendingCall, call protocol.Call) {
	deadline, _ := ctx.Deadline()
	call.Within = max(time.Until(deadline), time.Millisecond)
	data, err := call.Data()
	switch {
	case err != nil:
	case c.isCutOff():
		err = broker.ErrDown // answers would not arrive
	default:
		err = c.cfg.Broker.Publish(ctx, protocol.Message{ServerID: c.cfg.ID, Type: protocol.TypeNodes, Event: call.Event, Data: data})
	}
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		pc.failLocked(err)
	}
}

// isCutOff reports whether messages of other nodes do not arrive, now or at the last check. It
// reports false for a broker that is closed, since Publish then returns the error.
func (c *Cluster) isCutOff() bool {
	state := c.cfg.Broker.Health().State
	c.mu.Lock()
	defer c.mu.Unlock()
	return state == broker.StateDown || state != broker.StateIdle && c.cutOff
}

// await blocks until all nodes have answered, the call has failed, or ctx is done. Before the list
// of nodes is complete, the call does not end because all known nodes have answered.
func (c *Cluster) await(ctx context.Context, pc *pendingCall, warmUpLeft time.Duration) {
	if warmUpLeft > 0 {
		complete := time.NewTimer(warmUpLeft)
		defer complete.Stop()
		select {
		case <-complete.C:
			c.mu.Lock()
			pc.warmingUp = false
			pc.finishIfAnsweredLocked()
			c.mu.Unlock()
		case <-pc.done:
		case <-ctx.Done():
		}
	}
	select {
	case <-pc.done:
	case <-ctx.Done():
	}
}

// endCall removes the call and returns the sum of the results. own and ownErr are the result of
// this node.
func (c *Cluster) endCall(ctx context.Context, call protocol.Call, pc *pendingCall, own protocol.Reply, ownErr error) (protocol.Reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, call.ID)
	if ownErr != nil {
		pc.failed = append(pc.failed, Failure{c.cfg.ID, ownErr})
	}
	e := &Error{Failed: pc.failed, Cause: pc.cause}
	for id, state := range pc.nodes {
		if state == answered {
			continue
		}
		e.Missing = append(e.Missing, id)
		if atOnce(call.Event) && pc.cause == nil && time.Since(pc.began) >= unresponsiveAfter {
			c.markUnresponsiveLocked(id, pc.began)
		}
	}
	slices.Sort(e.Missing)
	slices.SortFunc(e.Failed, func(a, b Failure) int { return strings.Compare(a.Node, b.Node) })
	if e.Cause == nil {
		e.Cause = c.causeLocked(ctx, pc, len(e.Missing) > 0)
	}
	own.Clients += pc.clients
	own.Rejected = append(own.Rejected, pc.rejected...)
	if e.Cause == nil && len(e.Failed) == 0 {
		return own, nil
	}
	return own, e
}

// causeLocked returns the reason why the result of a call that has not failed may be incomplete, or
// nil if it is complete.
func (c *Cluster) causeLocked(ctx context.Context, pc *pendingCall, missing bool) error {
	if err := ctx.Err(); err != nil && (pc.warmingUp || missing) {
		return err
	}
	if missing {
		return errUnresponsive
	}
	if !c.peerRejected.IsZero() && time.Since(c.peerRejected) < peerTimeout {
		return errTooManyNodes
	}
	return nil
}

// markUnresponsiveLocked records that a node did not answer a call that began at that time, and
// that a running node answers at once. The next message from the node ends the state.
func (c *Cluster) markUnresponsiveLocked(id string, began time.Time) {
	if p := c.peers[id]; p != nil && p.Seen.Before(began) {
		p.unresponsive = true
	}
}

// handleReply handles another node's answer to a call. An answer that arrives after the end of the
// call is not an error.
func (c *Cluster) handleReply(m protocol.Message) error {
	r, err := protocol.ParseReply(m.Data)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	pc := c.calls[r.Call]
	if pc == nil {
		return nil
	}
	if pc.warmingUp { // the node may not be in the list yet; one that has left stays resolved
		pc.expectLocked(m.ServerID)
	}
	if !pc.resolveLocked(m.ServerID) {
		return nil
	}
	pc.clients += r.Clients
	pc.rejected = append(pc.rejected, r.Rejected...)
	if r.Error != "" {
		pc.failed = append(pc.failed, Failure{m.ServerID, errors.New(r.Error)})
	}
	return nil
}
