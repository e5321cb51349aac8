// Package emitter sends events to clients from programs that serve none: workers, cron jobs, other services. What it
// sends goes through a broker to every server, Hearth's and those of the Ignis helper alike, which pass it on to their
// clients.
//
//	b, err := redis.New(redis.Config{URL: "redis://localhost:6379"})
//	…
//	e, err := emitter.New(b)
//	…
//	defer e.Close()
//	err = e.Send(ctx, emitter.ToUser("ada"), "mail", map[string]int{"unread": 3})
//
// A program that serves clients itself uses Send of its hearth.Server instead, which reaches those clients, too.
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
// Send sends an event to the target's clients on all servers. The data may be anything that encoding/json can encode. A
// json.RawMessage passes through unchanged, digits and spaces included. A nil is null; NoData{} sends the event without
// data. Data and exclusions are copied: the caller may change them afterwards. It is an error if the event is empty or has
// a name of the protocol (protocol.CheckEvent), if the target is invalid (Target.Check), or if the data cannot be
// encoded. A target without clients is not an error: an emitter cannot know.
//
// With a broker.Confirmer, as the one for Redis is, a send returns when its message has been taken by what carries it,
// or the error says why not; sends of several goroutines share the way, none waits for the others' answers. With any
// other publisher nil means that the message waits to go out. Either way a send waits while the queue is full: for as
// long as ctx allows, and a ctx without an end may wait long. Delivery is at most once; nothing is sent a second time.
//
// What one goroutine sends arrives in that order. Many messages at once are for a Batch: one after the other they would
// each wait for an answer of their own.
//
// Errors of the broker are those of package broker: ErrDown without a connection, ErrClosed after Close, and the error of
// ctx. Errors about the arguments wrap protocol.ErrEvent, protocol.ErrTarget, protocol.ErrSyntax or what encoding/json
// returns; then nothing has been sent.
//
// A *hearth.Server has the same Send, so code that sends can take either: see hearth.Sender.
type Emitter struct {
	// Set by New, then read-only.
	publisher broker.Publisher
	confirmer broker.Confirmer // the same, if it is one

	closing chan struct{} // closed by Close: no one waits for room any more
	close   sync.Once
	err     error // of closing the publisher; set within close

	mu     sync.Mutex // guards closed; nothing is called with it held
	closed bool

	calls sync.WaitGroup // sends under way; added to under mu while not closed
}

// New makes an emitter that sends through p, which is its own from then on: Close closes it, as hearth.Server does with
// its broker. A broker need not be started for this. One that others use as well is passed without its Close:
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

// Target says which clients a message is for. Servers and emitters share this type.
type Target = protocol.Target

// NoData is the data of an event that has none. (A nil in its place is JSON null.)
type NoData = protocol.NoData

// ToClient is the client with that id.
func ToClient(id string) Target { return protocol.ToClient(id) }

// ToUser is every client of that user.
func ToUser(id string) Target { return protocol.ToUser(id) }

// ToRoom is every member of that room.
func ToRoom(name string) Target { return protocol.ToRoom(name) }

// ToAll is every authenticated client.
func ToAll() Target { return protocol.ToAll() }

// Send sends an event to the target's clients; see Emitter for its arguments, errors and blocking.
func (e *Emitter) Send(ctx context.Context, t Target, event string, data any) error {
	return sendError(event, t, e.send(ctx, t, event, data))
}

// Close waits for the sends under way, each of which ends with its context at the latest, then closes the publisher if
// it has a Close. Sends that wait for room in a full queue, and all later ones, get broker.ErrClosed. A second Close
// waits for the first and returns the same.
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

// begin lets a send in, which must call e.calls.Done; after Close it returns broker.ErrClosed.
func (e *Emitter) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return broker.ErrClosed
	}
	e.calls.Add(1)
	return nil
}

func (e *Emitter) send(ctx context.Context, t Target, event string, data any) error {
	if err := e.begin(); err != nil {
		return err
	}
	defer e.calls.Done()
	m, err := message(t, event, data)
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

// publish is for publishers that confirm nothing. Where the queue is full it asks again after a while: there is nothing
// that would tell when there is room.
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

// maxPause is how long publish waits at most before it asks again.
const maxPause = 64 * time.Millisecond

// message returns what is to be published. It shares nothing with the caller.
func message(t Target, event string, data any) (protocol.Message, error) {
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
	return m, m.Check()
}

// sendError says what was being sent when err came up; nil stays nil.
func sendError(event string, t Target, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("emitter: send %q to %v: %w", event, t, err)
}
