package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/fifo"
	"github.com/hearthws/hearth/internal/resp"
	"github.com/hearthws/hearth/protocol"
)

const (
	// pipelineMessages and pipelineBytes bound a pipeline, because all of it is lost if it fails.
	// It may exceed the bytes by one message.
	pipelineMessages = 512
	pipelineBytes    = 1 << 20

	// checkAfterIdle is how long the connection may be idle and still be trusted. After that, and
	// after the subscription has failed, the server must answer a HELLO before the next pipeline is
	// sent, because messages written to a dead connection are lost.
	checkAfterIdle = time.Second

	// closeGrace is how long Close waits until queued messages have been sent.
	closeGrace = time.Second
)

// Reasons why a message was not sent.
var (
	errTooOld       = errors.New("redis: not connected for too long")
	errClosedUnsent = errors.New("redis: closed before the message was sent")
)

// errPending is the result of a message that has none yet.
var errPending = errors.New("redis: no result yet")

// outgoing is a message that waits to be published.
type outgoing struct {
	channel, payload string
	log              *logged       // nil if the room has no history
	at               time.Duration // since publisher.created
	call             *call         // nil for Publish
	index            int           // in call.errs
	queued           bool          // counted as published; the probe is not
}

// A call is one PublishAll, or a probe. Its fields are guarded by publisher.mu until done is
// closed.
type call struct {
	errs      []error       // the results
	left      int           // messages without a result
	abandoned error         // why the caller stopped waiting; nil if it has not
	done      chan struct{} // closed when left is 0
}

func newCall(n int) *call {
	return &call{errs: slices.Repeat([]error{errPending}, n), left: n, done: make(chan struct{})}
}

// A publisher has a bounded queue of messages, and one goroutine that sends them in pipelines on
// one connection, so that they arrive in the order in which they were queued.
type publisher struct {
	config  Config // read-only
	health  *health
	drops   *limitedLog
	router  *router // for messages to rooms with history in a Cluster
	created time.Time

	ctx        context.Context // ends when the goroutine must not wait for Redis any more
	cancel     context.CancelFunc
	wake       chan struct{} // has room for one; tells the goroutine to look again
	goroutines sync.WaitGroup

	mu          sync.Mutex // guards the fields below
	queue       fifo.Queue[outgoing]
	bytes       int           // of payloads in queue
	probe       *outgoing     // sent before the queue; nil for none
	inFlight    []outgoing    // not answered by Redis; the goroutine owns the elements
	spaceFreed  chan struct{} // closed when there is space again; nil while no caller waits
	started     bool
	closing     bool
	down        error         // why the last attempt to connect failed; nil if it did not
	conn        *conn         // nil if there is none
	suspect     bool          // the connection may be dead
	serverID    string        // the node that sends reports
	unconfirmed unconfirmed   // messages that may have been sent to the wrong server
	report      *report       // sent first on the next connection; nil for none
	lastUsed    time.Duration // when the connection was used, since created
	checked     time.Duration // when the server was known to be the right one, since created
}

func newPublisher(c Config, d *dialer, h *health) *publisher {
	p := &publisher{config: c, router: newRouter(c, d), health: h, created: time.Now(), wake: make(chan struct{}, 1), serverID: protocol.EmitterID}
	if c.Sentinel.MasterSet != "" {
		p.unconfirmed.lag = sentinelLag
	}
	p.drops = newReasonLog(c.Logger, "dropped messages to other nodes")
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// setServerID sets the node that sends reports.
func (p *publisher) setServerID(serverID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serverID = serverID
}

// wakeLocked wakes the goroutine. The first call starts it.
func (p *publisher) wakeLocked() {
	if !p.started && !p.closing {
		p.started = true
		p.goroutines.Go(p.run) // ends with close, which waits for it
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// put queues one message, or returns an error at once.
func (p *publisher) put(m outgoing) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closing:
		return broker.ErrClosed
	case !p.fitsLocked(len(m.payload)):
		p.health.dropped.Add(1)
		return broker.ErrQueueFull
	}
	p.pushLocked(m)
	return nil
}

func (p *publisher) fitsLocked(size int) bool {
	n := p.queue.Len()
	return n == 0 || n < p.config.PublishQueue.Messages && p.bytes+size <= p.config.PublishQueue.Bytes
}

func (p *publisher) pushLocked(m outgoing) {
	m.at, m.queued = time.Since(p.created), true
	p.queue.Push(m)
	p.bytes += len(m.payload)
	p.health.published.Add(1)
	p.wakeLocked()
}

// putProbe queues the node's message to itself, before all others. It replaces one that still
// waits.
func (p *publisher) putProbe(channel, payload string) *call {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := newCall(1)
	if p.probe != nil {
		p.finishLocked(*p.probe, errTooOld)
	}
	p.probe = &outgoing{channel: channel, payload: payload, call: c}
	if p.closing {
		p.finishLocked(*p.probe, broker.ErrClosed)
		p.probe = nil
	}
	p.wakeLocked()
	return c
}

// reject sets the result of message i of c, which is not queued.
func (p *publisher) reject(c *call, i int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finishLocked(outgoing{call: c, index: i}, err)
}

// putAll queues the messages that were not rejected, waits for space if necessary, and returns all
// results.
func (p *publisher) putAll(ctx context.Context, c *call, messages []outgoing) []error {
	for i, m := range messages {
		if m.channel == "" { // rejected
			continue
		}
		m.call, m.index = c, i
		if err := p.putWaiting(ctx, m); err != nil {
			p.reject(c, i, err)
		}
	}
	select {
	case <-c.done:
		return c.errs
	case <-ctx.Done():
		return p.giveUp(c, ctx.Err())
	}
}

// giveUp returns the results of a call whose caller stops waiting. Its messages in the queue are
// removed. Those in flight may or may not be published.
func (p *publisher) giveUp(c *call, cause error) []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.abandoned = cause
	p.removeLocked(outgoing.abandoned)
	errs := slices.Clone(c.errs) // messages in flight get a result later
	for i, err := range errs {
		if err == errPending {
			errs[i] = fmt.Errorf("redis: publish: no answer: %w", cause)
		}
	}
	return errs
}

// abandoned returns why the caller stopped waiting, nil if it waits or never did.
func (m outgoing) abandoned() error {
	if m.call == nil {
		return nil
	}
	return m.call.abandoned
}

// putWaiting queues m as soon as there is space.
func (p *publisher) putWaiting(ctx context.Context, m outgoing) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.closing:
			return broker.ErrClosed
		case p.down != nil:
			return fmt.Errorf("%w: %w", broker.ErrDown, p.down)
		case ctx.Err() != nil:
			return fmt.Errorf("publish: %w", ctx.Err())
		case p.fitsLocked(len(m.payload)):
			p.pushLocked(m)
			return nil
		}
		if p.spaceFreed == nil {
			p.spaceFreed = make(chan struct{})
		}
		freed := p.spaceFreed
		p.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
		}
		p.mu.Lock()
	}
}

// finishLocked sets the result of m: it counts and logs a failure, and ends the call that waits.
func (p *publisher) finishLocked(m outgoing, err error) {
	if err != nil && m.queued {
		p.health.dropped.Add(1)
	}
	if m.call == nil {
		if err != nil {
			p.drops.warn(err)
		}
		return
	}
	m.call.errs[m.index] = err
	if m.call.left--; m.call.left == 0 {
		close(m.call.done)
	}
}

// removeLocked removes the messages for which reason returns an error, and finishes them with it.
func (p *publisher) removeLocked(reason func(outgoing) error) {
	for range p.queue.Len() {
		m := p.popLocked()
		if err := reason(m); err != nil {
			p.finishLocked(m, err)
			continue
		}
		p.queue.Push(m)
		p.bytes += len(m.payload)
	}
	p.signalSpaceLocked()
}

func (p *publisher) popLocked() outgoing {
	m := p.queue.Pop()
	p.bytes -= len(m.payload)
	return m
}

// signalSpaceLocked wakes the callers that wait for space.
func (p *publisher) signalSpaceLocked() {
	if p.spaceFreed != nil {
		close(p.spaceFreed)
		p.spaceFreed = nil
	}
}

// take removes the messages of one pipeline from the queue and appends them to batch. It drops
// those that are too old or that no caller waits for.
func (p *publisher) take(batch []outgoing) []outgoing {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.probe != nil {
		batch = append(batch, *p.probe)
		p.probe = nil
	}
	oldest := time.Since(p.created) - p.config.PublishMaxAge
	for bytes := 0; p.queue.Len() > 0 && len(batch) < pipelineMessages && bytes < pipelineBytes; {
		m := p.popLocked()
		if err := m.abandoned(); err != nil {
			p.finishLocked(m, err)
			continue
		}
		if m.call == nil && m.at < oldest {
			p.finishLocked(m, errTooOld)
			continue
		}
		bytes += len(m.payload)
		batch = append(batch, m)
	}
	p.inFlight = batch
	p.signalSpaceLocked()
	return batch
}

// An answer is the reply to a message, or why there is none.
type answer struct {
	reply resp.Value
	err   error
}

// finishBatch finishes the messages of a pipeline.
func (p *publisher) finishBatch(batch []outgoing, answers []answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inFlight = nil
	accepted := 0
	for i, m := range batch {
		if err := answers[i].err; err != nil {
			p.finishLocked(m, fmt.Errorf("%w: redis: publish: %w", broker.ErrDown, err))
			continue
		}
		rejected := p.rejection(answers[i].reply.Err())
		if rejected == nil && m.queued {
			accepted++
		}
		p.finishLocked(m, rejected)
	}
	p.unconfirmed.add(accepted, time.Since(p.created))
}

// rejection returns the error for a message that Redis rejected, and records it in Health. It
// returns nil for nil.
func (p *publisher) rejection(err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("redis: publish: %w", p.router.dialer.explain(err))
	p.health.setError(err)
	return err
}
