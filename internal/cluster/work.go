package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/hearthws/hearth/protocol"
)

const (
	// maxWorkers is how many calls of others are seen to at a time, maxJobs how many wait. More are refused.
	maxWorkers = 4
	maxJobs    = 256

	// maxWithin is how long a node works for another, whatever that asks for.
	maxWithin = time.Minute
)

var errTooManyJobs = errors.New("too many calls wait")

// A job is another node's call.
type job struct {
	call     protocol.Call
	from     string
	deadline time.Time
}

// handleCall takes a call of another node. What only has to be looked up is answered at once; what may take longer is done
// elsewhere, since the broker must not wait.
func (c *Cluster) handleCall(m protocol.Message) error {
	call, err := protocol.ParseCall(m.Event, m.Data)
	if err != nil {
		return err
	}
	if call.Event == protocol.CallCount {
		n, err := c.cfg.Answer(c.base, call)
		c.reply(m.ServerID, call, n, err)
		return nil
	}
	j := job{call: call, from: m.ServerID, deadline: time.Now().Add(min(call.Within, maxWithin))}
	c.mu.Lock()
	switch {
	case !c.running:
	case len(c.jobs) >= maxJobs:
		c.mu.Unlock()
		c.reply(j.from, j.call, 0, errTooManyJobs)
		return nil
	default:
		c.jobs = append(c.jobs, j)
		if c.workers < maxWorkers {
			c.workers++
			c.goroutines.Go(c.worker) // ends when no job waits, or with Close, which waits for it
		}
	}
	c.mu.Unlock()
	return nil
}

func (c *Cluster) worker() {
	for {
		c.mu.Lock()
		if len(c.jobs) == 0 {
			c.workers--
			c.mu.Unlock()
			return
		}
		j := c.jobs[0]
		c.jobs[0] = job{}
		if c.jobs = c.jobs[1:]; len(c.jobs) == 0 {
			c.jobs = nil
		}
		c.mu.Unlock()
		c.runJob(j)
	}
}

// runJob sees to one job. What is no longer waited for is not begun: the asker has been told that this node did not answer.
func (c *Cluster) runJob(j job) {
	ctx, cancel := context.WithDeadline(c.base, j.deadline)
	defer cancel()
	if ctx.Err() != nil {
		return
	}
	n, err := c.cfg.Answer(ctx, j.call)
	c.reply(j.from, j.call, n, err)
}

func (c *Cluster) reply(to string, call protocol.Call, n int, err error) {
	r := protocol.Reply{Call: call.ID, Clients: n}
	if err != nil {
		r.Error = err.Error()
	}
	c.publish(protocol.Message{Type: protocol.TypeNode, Target: to, Event: call.Event}, func() ([]byte, error) { return r.Data() })
}
