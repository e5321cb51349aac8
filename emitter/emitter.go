// Package emitter sends events to clients from programs that serve none: workers, cron jobs, other services. What it
// sends goes through a broker to every server, Hearth's and those of the Ignis helper alike, which pass it on to their
// clients.
//
//	b, err := redis.New(redis.Config{URL: "redis://localhost:6379"})
//	…
//	e, err := emitter.New(b)
//	…
//	defer e.Close()
//	err = e.ToUser(ctx, "ada", "mail", map[string]int{"unread": 3})
//
// A program that serves clients itself uses Publish of its hearth.Server instead: that reaches them, too.
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
// Of all sends: data is anything that encoding/json can encode, or a json.RawMessage, which is passed through
// untouched, digits and spaces and all, if it is valid JSON. An empty event, and data that is nil, make the send do
// nothing; null is json.RawMessage("null"). A target that nobody is, or that is not there, is no error: nobody can know
// that here. Data and exclusions are copied: they are the caller's to change afterwards.
//
// With a broker.Confirmer, as the one for Redis is, a send returns when its message has been taken by what carries it,
// or the error says why not; sends of several goroutines share the way, none waits for the others' answers. With any
// other publisher nil means that the message waits to go out. Either way a send waits while the queue is full: for as
// long as ctx allows, and a ctx without an end may wait long. Delivery is at most once; nothing is sent a second time.
//
// What one goroutine sends arrives in that order. Many messages at once are for a Batch: one after the other they would
// each wait for an answer of their own.
//
// Errors wrap those of package broker: ErrDown without a connection, ErrClosed after Close, the context's own. Those
// about what was to be sent (JSON that is not valid, an empty target, too many exclusions) wrap protocol.ErrSyntax,
// protocol.ErrMessage or what encoding/json says, and come before anything is sent.
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

// ToClient sends an event to the client with that id.
func (e *Emitter) ToClient(ctx context.Context, clientID, event string, data any) error {
	return e.send(ctx, protocol.Message{Type: protocol.TypeClient, Target: clientID, Event: event}, data)
}

// ToUser sends an event to every client of that user.
func (e *Emitter) ToUser(ctx context.Context, userID, event string, data any) error {
	return e.send(ctx, protocol.Message{Type: protocol.TypeUser, Target: userID, Event: event}, data)
}

// ToRoom sends an event to the members of that room, but for the clients whose ids are excluded.
func (e *Emitter) ToRoom(ctx context.Context, room, event string, data any, exclude ...string) error {
	return e.send(ctx, protocol.Message{Type: protocol.TypeRoom, Target: room, Event: event, Exclude: exclude}, data)
}

// Broadcast sends an event to every authenticated client, but for those whose ids are excluded.
func (e *Emitter) Broadcast(ctx context.Context, event string, data any, exclude ...string) error {
	return e.send(ctx, protocol.Message{Type: protocol.TypeBroadcast, Event: event, Exclude: exclude}, data)
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

func (e *Emitter) send(ctx context.Context, m protocol.Message, data any) error {
	if err := e.begin(); err != nil {
		return wrong(m, err)
	}
	defer e.calls.Done()
	skip, err := complete(&m, data)
	if skip || err != nil {
		return wrong(m, err)
	}
	if e.confirmer == nil {
		return wrong(m, e.publish(ctx, m))
	}
	if errs := e.confirmer.PublishAll(ctx, []protocol.Message{m}); errs != nil {
		return wrong(m, errs[0])
	}
	return nil
}

// publish is for publishers that confirm nothing. Where the queue is full it asks again after a while: there is nothing
// that would tell when there is room.
func (e *Emitter) publish(ctx context.Context, m protocol.Message) error {
	for pause := time.Millisecond; ; pause = min(2*pause, longestPause) {
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

// longestPause is how long publish waits at most before it asks again.
const longestPause = 64 * time.Millisecond

// complete makes of m a message that may be published and shares nothing with the caller. skip says that there is
// nothing to send (protocol §6).
func complete(m *protocol.Message, data any) (skip bool, err error) {
	if m.Event == "" {
		return true, nil
	}
	raw, err := protocol.EncodeData(data)
	if raw == nil || err != nil {
		return err == nil, err
	}
	if _, theirs := data.(json.RawMessage); theirs {
		raw = bytes.Clone(raw)
	}
	m.ServerID, m.Data, m.Exclude = protocol.EmitterID, raw, slices.Clone(m.Exclude)
	return false, m.Check()
}

// wrong says what was being done when err came up; nil stays nil.
func wrong(m protocol.Message, err error) error {
	switch {
	case err == nil:
		return nil
	case m.Type == protocol.TypeBroadcast:
		return fmt.Errorf("emit %q to all: %w", m.Event, err)
	}
	return fmt.Errorf("emit %q to %v %q: %w", m.Event, m.Type, m.Target, err)
}
