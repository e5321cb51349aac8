package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/hearthws/hearth/protocol"
)

const (
	// maxWorkers is how many calls of other nodes run at a time, maxJobs how many may wait. Further
	// calls are rejected.
	maxWorkers = 4
	maxJobs    = 256

	// maxWithin is how long a call of another node may run at most, whatever time it asks for.
	maxWithin = time.Minute
)

var errTooManyJobs = errors.New("too many calls wait")

// A job is a call of another node.
type job struct {
	call     protocol.Call
	from     string
	deadline time.Time
}

// handleCall handles a call of another node. It answers some at once. It queues the others for a
// worker, since they may take time and the broker must not wait.
func (c *Cluster) handleCall(m protocol.Message) error {
	call, err := protocol.ParseCall(m.Event, m.Data)
	if err != nil {
		return err
	}
	if atOnce(call.Event) {
		r, err := c.answer(c.base, call)
		c.reply(m.ServerID, call, r, err)
		return nil
	}
	j := job{call: call, from: m.ServerID, deadline: time.Now().Add(min(call.Within, maxWithin))}
	if !c.enqueue(j) {
		c.reply(j.from, j.call, protocol.Reply{}, errTooManyJobs)
	}
	return nil
}

// enqueue queues j and starts a worker if fewer than maxWorkers are running. It returns false if
// too many jobs wait. If the cluster is not running, it drops j.
func (c *Cluster) enqueue(j job) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running {
		return true
	}
	if c.jobs.Len() >= maxJobs {
		return false
	}
	c.jobs.Push(j)
	if c.workers < maxWorkers {
		c.workers++
		c.goroutines.Go(c.worker) // ends when no job waits, or with Close, which waits for it
	}
	return true
}

// worker runs jobs until none waits.
func (c *Cluster) worker() {
	for {
		c.mu.Lock()
		if c.jobs.Len() == 0 {
			c.workers--
			c.mu.Unlock()
			return
		}
		j := c.jobs.Pop()
		c.mu.Unlock()
		c.runJob(j)
	}
}

// runJob runs one job and replies. It skips a job whose deadline has passed: the calling node has
// reported this node as missing.
func (c *Cluster) runJob(j job) {
	ctx, cancel := context.WithDeadline(c.base, j.deadline)
	defer cancel()
	if ctx.Err() != nil {
		return
	}
	r, err := c.answer(ctx, j.call)
	c.reply(j.from, j.call, r, err)
}

// answer runs a call for this node's clients.
func (c *Cluster) answer(ctx context.Context, call protocol.Call) (r protocol.Reply, err error) {
	switch {
	case call.Event != protocol.CallResume:
		r.Clients, err = c.cfg.Answer(ctx, call)
	case c.cfg.Claim != nil:
		r.Clients, r.Rejected = c.cfg.Claim(call.Claims)
	}
	return r, err
}

// reply answers a call of another node.
func (c *Cluster) reply(to string, call protocol.Call, r protocol.Reply, err error) {
	r.Call = call.ID
	if err != nil {
		r.Error = err.Error()
	}
	c.publish(protocol.Message{Type: protocol.TypeNode, Target: to, Event: call.Event}, func() ([]byte, error) { return r.Data() })
}
