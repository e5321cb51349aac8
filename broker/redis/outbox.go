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
	rest = time.Second

	// closeGrace is how long Close waits for what is on its way out.
	closeGrace = time.Second
)

// Why messages never went out.
var (
	errTooOld = errors.New("redis: waited too long for a connection")
	errClose  = errors.New("redis: closed before it was sent")
)

// errPending stands for an outcome that there is not yet.
var errPending = errors.New("redis: no outcome yet")

// An outgoing message waits to be published.
type outgoing struct {
	channel, payload string
	at               time.Duration // since the outbox was made
	call             *call         // nil for Publish
	index            int           // in call.errs
	taken            bool          // was in the queue
}

// A call is one PublishAll, or a probe. Its fields are guarded by outbox.mu until done is closed.
type call struct {
	errs  []error       // the outcomes
	left  int           // messages without one
	given error         // why the caller has stopped waiting; what still waits gets this error
	done  chan struct{} // closed when left is 0
}

func newCall(n int) *call {
	return &call{errs: slices.Repeat([]error{errPending}, n), left: n, done: make(chan struct{})}
}

// An outbox publishes: a bounded queue, and one goroutine that sends what waits as one pipeline on one wire, so that
// messages arrive in the order in which they were put here.
type outbox struct {
	config Config // read-only
	dialer *dialer
	health *health
	drops  *throttle
	begun  time.Time

	ctx    context.Context // ends when nothing more may be waited for
	cancel context.CancelFunc
	wake   chan struct{} // holds one
	runs   sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	queue    fifo.Queue[outgoing]
	bytes    int           // of payloads in queue
	probe    *outgoing     // goes first
	onWire   []outgoing    // the pipeline that Redis has not answered yet; its elements are the goroutine's
	room     chan struct{} // closed when there is room again; nil while nobody waits for it
	started  bool
	closing  bool
	down     error         // why there is no connection, since an attempt to get one has failed; nil otherwise
	wire     *conn         // nil if there is none
	suspect  bool          // wire may be dead
	serverID string        // who reports what may be missed
	trail    trail         // what may have gone to the wrong server
	report   *report       // what other nodes are to be told as soon as there is a connection; nil for nothing
	lastUsed time.Duration // when wire was, since the outbox was made
	checked  time.Duration // when wire was known to be the right one
}

func newOutbox(c Config, d *dialer, h *health) *outbox {
	o := &outbox{config: c, dialer: d, health: h, begun: time.Now(), wake: make(chan struct{}, 1), serverID: protocol.EmitterID}
	if c.Sentinel.MasterSet != "" {
		o.trail.lag = sentinelLag
	}
	o.drops = newReasoned(c.Logger, "messages to other nodes were dropped")
	o.ctx, o.cancel = context.WithCancel(context.Background())
	return o
}

// name says which node publishes.
func (o *outbox) name(serverID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.serverID = serverID
}

// startLocked starts the goroutine when there is something to do for it first.
func (o *outbox) startLocked() {
	if !o.started && !o.closing {
		o.started = true
		o.runs.Go(o.run) // ends with close, which waits for it
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// put queues one message, or says at once that it can't.
func (o *outbox) put(channel, payload string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closing:
		return broker.ErrClosed
	case !o.fitsLocked(len(payload)):
		o.health.dropped.Add(1)
		return broker.ErrQueueFull
	}
	o.pushLocked(outgoing{channel: channel, payload: payload})
	return nil
}

func (o *outbox) fitsLocked(size int) bool {
	n := o.queue.Len()
	return n == 0 || n < o.config.PublishQueue.Messages && o.bytes+size <= o.config.PublishQueue.Bytes
}

func (o *outbox) pushLocked(m outgoing) {
	m.at, m.taken = time.Since(o.begun), true
	o.queue.Push(m)
	o.bytes += len(m.payload)
	o.health.published.Add(1)
	o.startLocked()
}

// putProbe queues the node's message to itself, before all others. It replaces one that still waits.
func (o *outbox) putProbe(channel, payload string) *call {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := newCall(1)
	if o.probe != nil {
		o.settleLocked(*o.probe, errTooOld)
	}
	o.probe = &outgoing{channel: channel, payload: payload, call: c}
	if o.closing {
		o.settleLocked(*o.probe, broker.ErrClosed)
		o.probe = nil
	}
	o.startLocked()
	return c
}

// refuse says that message i of c never comes here.
func (o *outbox) refuse(c *call, i int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settleLocked(outgoing{call: c, index: i}, err)
}

// putAll queues the messages that were not refused, waiting for room, and waits for what becomes of them.
func (o *outbox) putAll(ctx context.Context, c *call, messages []outgoing) []error {
	for i, m := range messages {
		if m.channel == "" { // refused
			continue
		}
		m.call, m.index = c, i
		if err := o.putWaiting(ctx, m); err != nil {
			o.refuse(c, i, err)
		}
	}
	select {
	case <-c.done:
		return c.errs
	case <-ctx.Done():
		return o.giveUp(c, ctx.Err())
	}
}

// giveUp has nobody wait for c any more. What is in the queue is taken out; of what is on the wire nobody will know.
func (o *outbox) giveUp(c *call, cause error) []error {
	o.mu.Lock()
	defer o.mu.Unlock()
	c.given = cause
	o.purgeLocked(outgoing.callGiven)
	errs := slices.Clone(c.errs) // what is on the wire will have an outcome yet
	for i, err := range errs {
		if err == errPending {
			errs[i] = fmt.Errorf("redis: publish: no answer: %w", cause)
		}
	}
	return errs
}

func (m outgoing) callGiven() error {
	if m.call == nil {
		return nil
	}
	return m.call.given
}

// putWaiting queues m as soon as there is room.
func (o *outbox) putWaiting(ctx context.Context, m outgoing) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		switch {
		case o.closing:
			return broker.ErrClosed
		case o.down != nil:
			return fmt.Errorf("%w: %w", broker.ErrDown, o.down)
		case ctx.Err() != nil:
			return fmt.Errorf("publish: %w", ctx.Err())
		case o.fitsLocked(len(m.payload)):
			o.pushLocked(m)
			return nil
		}
		if o.room == nil {
			o.room = make(chan struct{})
		}
		room := o.room
		o.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
		}
		o.mu.Lock()
	}
}

// settleLocked says what became of m.
func (o *outbox) settleLocked(m outgoing, err error) {
	if err != nil && m.taken {
		o.health.dropped.Add(1)
	}
	if m.call == nil {
		if err != nil {
			o.drops.log(err)
		}
		return
	}
	m.call.errs[m.index] = err
	if m.call.left--; m.call.left == 0 {
		close(m.call.done)
	}
}

// purgeLocked takes out what has a reason to go, and keeps the rest in its order.
func (o *outbox) purgeLocked(reason func(outgoing) error) {
	for range o.queue.Len() {
		m := o.popLocked()
		if err := reason(m); err != nil {
			o.settleLocked(m, err)
			continue
		}
		o.queue.Push(m)
		o.bytes += len(m.payload)
	}
	o.roomLocked()
}

func (o *outbox) popLocked() outgoing {
	m := o.queue.Pop()
	o.bytes -= len(m.payload)
	return m
}

func (o *outbox) roomLocked() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// take is what goes into one pipeline.
func (o *outbox) take(batch []outgoing) []outgoing {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.probe != nil {
		batch = append(batch, *o.probe)
		o.probe = nil
	}
	oldest := time.Since(o.begun) - o.config.PublishMaxAge
	for bytes := 0; o.queue.Len() > 0 && len(batch) < pipelineMessages && bytes < pipelineBytes; {
		m := o.popLocked()
		if err := m.callGiven(); err != nil {
			o.settleLocked(m, err)
			continue
		}
		if m.call == nil && m.at < oldest {
			o.settleLocked(m, errTooOld)
			continue
		}
		bytes += len(m.payload)
		batch = append(batch, m)
	}
	o.onWire = batch
	o.roomLocked()
	return batch
}

// settle says what became of a pipeline: replies has one for each message, or err is that of all.
func (o *outbox) settle(batch []outgoing, replies []resp.Value, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.onWire = nil
	took := 0
	for i, m := range batch {
		if err != nil {
			o.settleLocked(m, fmt.Errorf("%w: %w", broker.ErrDown, err))
			continue
		}
		refused := o.refusal(replies[i].Err())
		if refused == nil && m.taken {
			took++
		}
		o.settleLocked(m, refused)
	}
	o.trail.add(took, time.Since(o.begun))
}

// refusal is what Redis had against one message.
func (o *outbox) refusal(err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("redis: publish: %w", o.dialer.explain(err))
	o.health.failed(err)
	return err
}
