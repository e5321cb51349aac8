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
	// A pipeline has at most so many messages, and not much more than so many bytes: one that fails takes all of them along.
	pipelineMessages = 512
	pipelineBytes    = 1 << 20

	// rest is how long a wire may do nothing and still be trusted. After it, and after the subscription has failed, it is
	// asked for a sign of life first: what is sent on a dead one is lost.
	checkAfterIdle = time.Second

	// closeGrace is how long Close waits for what is on its way out.
	closeGrace = time.Second
)

// Why messages never went out.
var (
	errTooOld       = errors.New("redis: waited too long for a connection")
	errClosedUnsent = errors.New("redis: closed before it was sent")
)

// errPending stands for an outcome that there is not yet.
var errPending = errors.New("redis: no outcome yet")

// An outgoing message waits to be published.
type outgoing struct {
	channel, payload string
	at               time.Duration // since the outbox was made
	call             *call         // nil for Publish
	index            int           // in call.errs
	queued           bool          // was in the queue
}

// A call is one PublishAll, or a probe. Its fields are guarded by outbox.mu until done is closed.
type call struct {
	errs      []error       // the outcomes
	left      int           // messages without one
	abandoned error         // why the caller has stopped waiting; what still waits gets this error
	done      chan struct{} // closed when left is 0
}

func newCall(n int) *call {
	return &call{errs: slices.Repeat([]error{errPending}, n), left: n, done: make(chan struct{})}
}

// An outbox publishes: a bounded queue, and one goroutine that sends what waits as one pipeline on one wire, so that
// messages arrive in the order in which they were put here.
type publisher struct {
	config  Config // read-only
	dialer  *dialer
	health  *health
	drops   *limitedLog
	created time.Time

	ctx        context.Context // ends when nothing more may be waited for
	cancel     context.CancelFunc
	wake       chan struct{} // holds one
	goroutines sync.WaitGroup

	mu          sync.Mutex // guards the fields below
	queue       fifo.Queue[outgoing]
	bytes       int           // of payloads in queue
	probe       *outgoing     // goes first
	inFlight    []outgoing    // the pipeline that Redis has not answered yet; its elements are the goroutine's
	spaceFreed  chan struct{} // closed when there is room again; nil while nobody waits for it
	started     bool
	closing     bool
	down        error         // why there is no connection, since an attempt to get one has failed; nil otherwise
	conn        *conn         // nil if there is none
	suspect     bool          // wire may be dead
	serverID    string        // who reports what may be missed
	unconfirmed unconfirmed   // what may have gone to the wrong server
	report      *report       // what other nodes are to be told as soon as there is a connection; nil for nothing
	lastUsed    time.Duration // when wire was, since the outbox was made
	checked     time.Duration // when wire was known to be the right one
}

func newPublisher(c Config, d *dialer, h *health) *publisher {
	p := &publisher{config: c, dialer: d, health: h, created: time.Now(), wake: make(chan struct{}, 1), serverID: protocol.EmitterID}
	if c.Sentinel.MasterSet != "" {
		p.unconfirmed.lag = sentinelLag
	}
	p.drops = newReasonLog(c.Logger, "messages to other nodes were dropped")
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// name says which node publishes.
func (p *publisher) setServerID(serverID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serverID = serverID
}

// startLocked starts the goroutine when there is something to do for it first.
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

// put queues one message, or says at once that it can't.
func (p *publisher) put(channel, payload string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closing:
		return broker.ErrClosed
	case !p.fitsLocked(len(payload)):
		p.health.dropped.Add(1)
		return broker.ErrQueueFull
	}
	p.pushLocked(outgoing{channel: channel, payload: payload})
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

// putProbe queues the node's message to itself, before all others. It replaces one that still waits.
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

// refuse says that message i of c never comes here.
func (p *publisher) reject(c *call, i int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finishLocked(outgoing{call: c, index: i}, err)
}

// putAll queues the messages that were not refused, waiting for room, and waits for what becomes of them.
func (p *publisher) putAll(ctx context.Context, c *call, messages []outgoing) []error {
	for i, m := range messages {
		if m.channel == "" { // refused
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

// giveUp has nobody wait for c any more. What is in the queue is taken out; of what is on the wire nobody will know.
func (p *publisher) giveUp(c *call, cause error) []error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.abandoned = cause
	p.removeLocked(outgoing.abandoned)
	errs := slices.Clone(c.errs) // what is on the wire will have an outcome yet
	for i, err := range errs {
		if err == errPending {
			errs[i] = fmt.Errorf("redis: publish: no answer: %w", cause)
		}
	}
	return errs
}

func (m outgoing) abandoned() error {
	if m.call == nil {
		return nil
	}
	return m.call.abandoned
}

// putWaiting queues m as soon as there is room.
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
		room := p.spaceFreed
		p.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
		}
		p.mu.Lock()
	}
}

// settleLocked says what became of m.
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

// purgeLocked takes out what has a reason to go, and keeps the rest in its order.
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

func (p *publisher) signalSpaceLocked() {
	if p.spaceFreed != nil {
		close(p.spaceFreed)
		p.spaceFreed = nil
	}
}

// take is what goes into one pipeline.
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

// settle says what became of a pipeline: replies has one for each message, or err is that of all.
func (p *publisher) finishBatch(batch []outgoing, replies []resp.Value, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inFlight = nil
	took := 0
	for i, m := range batch {
		if err != nil {
			p.finishLocked(m, fmt.Errorf("%w: %w", broker.ErrDown, err))
			continue
		}
		refused := p.rejection(replies[i].Err())
		if refused == nil && m.queued {
			took++
		}
		p.finishLocked(m, refused)
	}
	p.unconfirmed.add(took, time.Since(p.created))
}

// refusal is what Redis had against one message.
func (p *publisher) rejection(err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("redis: publish: %w", p.dialer.explain(err))
	p.health.setError(err)
	return err
}
