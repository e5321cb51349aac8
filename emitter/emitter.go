// Package emitter sends events to clients from programs that serve no clients: workers, cron jobs,
// other services. A broker carries the events to every server, both Hearth servers and servers of
// the Ignis helper, which deliver them to their clients.
//
//	b, err := redis.New(redis.Config{URL: "redis://localhost:6379"})
//	…
//	e, err := emitter.New(b)
//	…
//	defer e.Close()
//	err = e.Send(ctx, emitter.ToUser("ada"), "mail", map[string]int{"unread": 3})
//
// An emitter cannot ask. A tool that counts or disconnects clients makes a hearth.Server on the
// same broker, starts it, and serves nothing.
//
// A program that serves clients uses Send of its hearth.Server instead, which reaches its own
// clients, too.
package emitter

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// An Emitter sends events to clients of all servers on its broker. Safe for concurrent use.
//
// Send sends an event to the target's clients on all servers. The data may be any value that
// encoding/json can encode. A json.RawMessage is sent unchanged, including digits and spaces. A nil
// is null; NoData{} sends the event without data. Data and exclusions are copied, so the caller may
// change them afterwards. It is an error if the event is empty or has a name of the protocol
// (protocol.CheckEvent), if the target is invalid (Target.Check), or if the data cannot be encoded.
// A target without clients is not an error, because an emitter cannot know.
//
// With a broker.Confirmer, such as the Redis broker, a send returns when the transport (for Redis,
// the Redis server) has accepted the message, or with the error. Sends of several goroutines share
// a connection and do not wait for each other. With any other publisher, nil means that the message
// is queued. In both cases a send blocks while the queue is full, until ctx is done. Delivery is at
// most once: an emitter never sends a message twice.
//
// Messages of one goroutine arrive in order. Use a Batch for many messages at once: single sends
// each wait for their own confirmation.
//
// An error says whether the message may have been published, in which case a second send can
// deliver it twice:
//   - protocol.ErrEvent, protocol.ErrTarget, protocol.ErrSyntax, an error of encoding/json, or
//     redis.ErrTooLarge: not published. The arguments are wrong, so a second send fails, too.
//   - broker.ErrClosed: not published. The emitter or its broker is closed.
//   - broker.ErrQueueFull, which only a publisher that is no Confirmer returns, together with the
//     error of ctx: not published. A second send cannot deliver twice.
//   - broker.ErrDown: unknown. The connection was missing, or broke after the message was written.
//   - context.DeadlineExceeded and context.Canceled without broker.ErrQueueFull: unknown. The message
//     may have been on its way when ctx ended.
//   - any other error of the Redis broker is an answer of Redis that rejects the message, for example
//     for a missing permission: not published.
//
// Where the outcome is unknown, repeat a send only if clients can ignore a duplicate, for example
// by an id in the data, or if it was a SendOnce.
//
// A *hearth.Server has the same Send, so code can use either; see hearth.Sender.
type Emitter struct {
	// Set by New, then read-only.
	publisher broker.Publisher
	confirmer broker.Confirmer // the same, if it is one

	closing chan struct{} // closed by Close: ends the waits for space in the queue
	close   sync.Once
	err     error // of closing the publisher; set within close

	mu     sync.Mutex // guards closed; nothing is called with it held
	closed bool

	calls sync.WaitGroup // sends in progress; added to under mu while not closed
}

// New returns an emitter that sends through p and owns it: Close closes it, as hearth.Server closes
// its broker. The broker need not be started. To share a broker, pass it without its Close:
//
//	emitter.New(struct{ broker.Confirmer }{b})
func New(p broker.Publisher) (*Emitter, error) {
	if p == nil {
		return nil, errors.New(`emitter: no publisher: make one with redis.New(redis.Config{URL: "redis://…"}) of broker/redis, and pass it to New`)
	}
	e := &Emitter{publisher: p, closing: make(chan struct{})}
	e.confirmer, _ = p.(broker.Confirmer)
	return e, nil
}

// Target selects the clients for a message. Servers and emitters share this type.
type Target = protocol.Target

// NoData is the data of an event without data. (A nil is JSON null.)
type NoData = protocol.NoData

// ToClient returns the target for the client with that id.
func ToClient(id string) Target { return protocol.ToClient(id) }

// ToUser returns the target for every client of that user.
func ToUser(id string) Target { return protocol.ToUser(id) }

// ToRoom returns the target for every member of that room.
func ToRoom(name string) Target { return protocol.ToRoom(name) }

// ToAll returns the target for every authenticated client.
func ToAll() Target { return protocol.ToAll() }

// Send sends an event to the target's clients; see Emitter for its arguments, errors and blocking.
func (e *Emitter) Send(ctx context.Context, t Target, event string, data any) error {
	return sendError(event, t, e.send(ctx, t, event, data, nil))
}

// SendOnce is Send to a room with history (broker.HistoryRules), with a key of at most
// protocol.MaxKey bytes. If the history of the room got a message with the same key within
// broker.KeyLifetime, SendOnce does nothing and returns nil. So it can be repeated with the same
// key until it succeeds, whatever the error was. The key is for this message only: for example, the
// id of the job that sends it.
//
// The publisher of the emitter must be a broker.History. The error is broker.ErrNoHistory if the
// room has no history there, and protocol.ErrMessage if the key is empty or too long.
func (e *Emitter) SendOnce(ctx context.Context, t Target, event string, data any, key string) error {
	return sendError(event, t, e.send(ctx, t, event, data, &key))
}

// Close waits for the sends in progress, each of which ends at the latest with its context, and
// then closes the publisher if it has a Close. Sends that wait for space in a full queue, and all
// later ones, return broker.ErrClosed. A second Close waits for the first and returns the same
// error.
func (e *Emitter) Close() error {
	e.close.Do(func() {
		e.mu.Lock()
		e.closed = true
		e.mu.Unlock()
		close(e.closing)
		e.calls.Wait()
		if c, ok := e.publisher.(io.Closer); ok {
			if err := c.Close(); err != nil {
				e.err = fmt.Errorf("emitter: close the publisher: %w", err)
			}
		}
	})
	return e.err
}

// begin registers a send, which must call e.calls.Done. After Close it returns broker.ErrClosed.
func (e *Emitter) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return broker.ErrClosed
	}
	e.calls.Add(1)
	return nil
}

// send sends a message. key is nil for Send.
func (e *Emitter) send(ctx context.Context, t Target, event string, data any, key *string) error {
	if err := e.begin(); err != nil {
		return err
	}
	defer e.calls.Done()
	m, err := e.message(t, event, data, key)
	if err != nil {
		return err
	}
	if e.confirmer == nil {
		return e.publish(ctx, m)
	}
	if errs := e.confirmer.PublishAll(ctx, []protocol.Message{m}); errs != nil {
		return errs[0]
	}
	return nil
}

// publish sends through a publisher that does not confirm. If the queue is full, it retries after a
// pause: the publisher does not signal when there is space.
func (e *Emitter) publish(ctx context.Context, m protocol.Message) error {
	for pause := time.Millisecond; ; pause = min(2*pause, maxPause) {
		err := e.publisher.Publish(ctx, m)
		if !errors.Is(err, broker.ErrQueueFull) {
			return err
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
			continue
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", err, ctx.Err())
		case <-e.closing:
			err = broker.ErrClosed
		}
		again.Stop()
		return err
	}
}

// maxPause is the longest pause between two attempts of publish.
const maxPause = 64 * time.Millisecond

// message returns the message to publish. It shares no memory with the caller. key is nil if it has
// none.
func (e *Emitter) message(t Target, event string, data any, key *string) (protocol.Message, error) {
	if err := t.Check(); err != nil {
		return protocol.Message{}, err
	}
	if err := protocol.CheckEvent(event); err != nil {
		return protocol.Message{}, err
	}
	raw, err := protocol.EncodeData(data)
	if err != nil {
		return protocol.Message{}, err
	}
	if _, isRaw := data.(json.RawMessage); isRaw {
		raw = bytes.Clone(raw)
	}
	m := protocol.Message{
		ServerID: protocol.EmitterID, Type: t.Type(), Target: t.Name(), Event: event, Data: raw, Exclude: slices.Clone(t.Excluded()),
	}
	if key != nil {
		if err := e.checkKey(m, *key); err != nil {
			return protocol.Message{}, err
		}
		m.Key = *key
	}
	return m, m.Check()
}

// checkKey returns an error if a message cannot have the key.
func (e *Emitter) checkKey(m protocol.Message, key string) error {
	if key == "" {
		return fmt.Errorf("%w: the key is empty", protocol.ErrMessage)
	}
	h, ok := e.publisher.(interface{ HasHistory(room string) bool })
	if m.Type != protocol.TypeRoom || !ok || !h.HasHistory(m.Target) {
		return broker.ErrNoHistory
	}
	return nil
}

// sendError adds the event and the target to err. It returns nil for nil.
func sendError(event string, t Target, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("emitter: send %q to %v: %w", event, t, err)
}
