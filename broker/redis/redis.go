package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// ErrTooLarge is returned by Publish and PublishAll for a message of more than Config.MaxMessage
// bytes. No receiver would accept it.
var ErrTooLarge = errors.New("redis: message larger than Config.MaxMessage")

// A Broker connects a node, or an emitter, to the others through Redis. Safe for concurrent use.
type Broker struct {
	config    Config // read-only
	dialer    *dialer
	publisher *publisher
	health    health
	malformed *limitedLog
	partial   *limitedLog // for reads that have failed for some of the rooms
	closeOnce sync.Once
	router    *router       // reads and removes histories
	reading   chan struct{} // holds an element for each call of router

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu           sync.Mutex // guards the fields below
	phase        lifecycle
	subscription *subscription // since Start
	inbox        *inbox        // since Start
	goroutines   sync.WaitGroup
}

// A lifecycle is the state of a Broker.
type lifecycle uint8

const (
	idle lifecycle = iota
	starting
	running
	closed
)

var (
	_ broker.History   = (*Broker)(nil)
	_ broker.Confirmer = (*Broker)(nil)
)

// New makes a broker. It does not connect: Start does, or the first message. Its error names the
// field that is wrong.
func New(config Config) (*Broker, error) {
	config, err := config.withURL()
	if err != nil {
		return nil, err
	}
	if err := config.validate(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	b := &Broker{config: config, dialer: newDialer(config)}
	b.publisher = newPublisher(config, b.dialer, &b.health)
	b.router, b.reading = newRouter(config, b.dialer), make(chan struct{}, maxReads)
	b.malformed = newLimitedLog(config.Logger, "ignored malformed messages")
	b.partial = newReasonLog(config.Logger, "history of some rooms not read")
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b, nil
}

// String returns the addresses, without any secret.
func (b *Broker) String() string { return b.config.String() }

// Start implements broker.Broker. It waits until a message that the node publishes to itself
// arrives, at most Config.ConnectTimeout. It fails at once for errors that retrying cannot fix,
// such as a wrong password.
func (b *Broker) Start(ctx context.Context, r broker.Receiver) error {
	if err := r.Check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	if err := b.beginStart(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, b.config.ConnectTimeout)
	defer cancel()
	stop := context.AfterFunc(b.ctx, cancel) // Close ends a waiting Start
	defer stop()
	in := newInbox(b.config.ReceiveQueue, &b.health)
	b.mu.Lock()
	b.inbox = in
	b.mu.Unlock()
	s := newSubscription(b, r.ServerID)
	in.onMissed = s.addMissed
	c, err := b.connect(ctx, s)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.phase == closed && err == nil {
		c.Close()
		err = broker.ErrClosed
	}
	if err != nil {
		if b.phase == starting {
			b.phase = idle
		}
		return err
	}
	s.provenAt, s.addr = time.Now(), c.addr
	s.reportedUntil = s.provenAt
	b.publisher.setServerID(r.ServerID)
	b.phase, b.subscription = running, s
	b.health.update(func() { b.health.running, b.health.receiveErr = true, nil })
	// Both end by Close, which waits for them: the first with b.ctx, the second with in.close.
	b.goroutines.Go(func() { s.run(b.ctx, c) })
	b.goroutines.Go(func() { in.deliver(r, b.malformed) })
	return nil
}

// beginStart checks that Start may be called. There is one Start at a time.
func (b *Broker) beginStart() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.phase {
	case starting, running:
		return broker.ErrStarted
	case closed:
		return broker.ErrClosed
	case idle:
	}
	b.phase = starting
	return nil
}

// connect retries until it has a subscription that works, an error that retrying cannot fix, or ctx
// ends.
func (b *Broker) connect(ctx context.Context, s *subscription) (*conn, error) {
	backoff := backoff{min: b.config.BackoffMin, max: b.config.BackoffMax}
	var last error
	var logged time.Time
	for {
		c, err := s.open(ctx)
		if err == nil {
			if err = s.verify(ctx, c); err == nil {
				return c, nil
			}
			c.Close()
		}
		// Keep the last error from before the deadline: a later one only says that the time is up.
		if until, _ := ctx.Deadline(); last == nil || time.Now().Before(until) && ctx.Err() == nil {
			last = err
			b.health.update(func() { b.health.receiveErr = err })
			b.health.setError(err)
		}
		if b.ctx.Err() != nil {
			return nil, broker.ErrClosed
		}
		if !isPermanent(err) {
			if time.Since(logged) > startLogInterval && ctx.Err() == nil {
				b.config.Logger.Warn("Redis cannot be used yet, retrying", "error", fmt.Errorf("%s%w", b.config.prefix(), err))
				logged = time.Now()
			}
			wait := time.NewTimer(backoff.next())
			select {
			case <-wait.C:
				continue
			case <-ctx.Done():
				wait.Stop()
			}
		}
		if b.ctx.Err() != nil {
			return nil, broker.ErrClosed
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %slast error: %w", ctx.Err(), b.config.prefix(), last)
		}
		return nil, fmt.Errorf("%s%w", b.config.prefix(), last)
	}
}

// startLogInterval is the time between two log lines of a Start that waits for Redis.
const startLogInterval = 5 * time.Second

// Publish implements broker.Publisher.
func (b *Broker) Publish(ctx context.Context, m protocol.Message) error {
	line, err := b.encode(m)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return b.publisher.put(b.outgoing(m, line))
}

// PublishAll implements broker.Confirmer.
func (b *Broker) PublishAll(ctx context.Context, ms []protocol.Message) []error {
	if len(ms) == 0 {
		return nil
	}
	c := newCall(len(ms))
	messages := make([]outgoing, len(ms))
	for i, m := range ms {
		line, err := b.encode(m)
		if err != nil {
			b.publisher.reject(c, i, err)
			continue
		}
		messages[i] = b.outgoing(m, line)
	}
	errs := b.publisher.putAll(ctx, c, messages)
	if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return nil
	}
	return errs
}

// outgoing returns m as it waits to be published. line is its JSON.
func (b *Broker) outgoing(m protocol.Message, line string) outgoing {
	return outgoing{channel: b.config.channel(m.Channel()), payload: line, log: b.config.historyOf(m)}
}

// encode returns the JSON of m without a position. The string shares the bytes, which are not
// changed afterwards.
func (b *Broker) encode(m protocol.Message) (string, error) {
	if err := m.Check(); err != nil {
		return "", err
	}
	m.Position = protocol.Position{}
	line := protocol.AppendMessage(make([]byte, 0, encodedSize(m)), m)
	most := b.config.MaxMessage
	if m.Type == protocol.TypeRoom && b.HasHistory(m.Target) {
		most -= maxPosition
	}
	if len(line) > most {
		return "", fmt.Errorf("%w: %d bytes", ErrTooLarge, len(line))
	}
	return asString(line), nil
}

// encodedSize estimates the length of the JSON of m.
func encodedSize(m protocol.Message) int {
	n := 80 + len(m.ServerID) + len(m.Target) + len(m.Event) + len(m.Data)
	for _, id := range m.Exclude {
		n += len(id) + 3
	}
	return n
}

// Hold implements broker.Broker.
func (b *Broker) Hold(ctx context.Context, channels ...string) error {
	s, err := b.started()
	if err != nil {
		return err
	}
	return s.hold(ctx, channels)
}

// Release implements broker.Broker.
func (b *Broker) Release(channels ...string) {
	if s, err := b.started(); err == nil {
		s.release(channels)
	}
}

func (b *Broker) started() (*subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.phase {
	case closed:
		return nil, broker.ErrClosed
	case idle, starting:
		return nil, broker.ErrNotStarted
	case running:
	}
	return b.subscription, nil
}

// Health implements broker.Broker. The state of a broker that only publishes is idle; Err says what
// failed.
func (b *Broker) Health() broker.Health { return b.health.get() }

// Close implements broker.Broker. Messages that wait to be published have one second, if there is a
// connection.
func (b *Broker) Close() error {
	b.closeOnce.Do(func() {
		b.mu.Lock()
		b.phase = closed
		in := b.inbox
		b.mu.Unlock()
		b.publisher.stopAccepting()
		b.cancel()
		if in != nil {
			in.close()
		}
		b.goroutines.Wait()
		b.router.close()
		b.publisher.close()
		b.health.closed()
	})
	return nil
}
