package emitter

import (
	"context"
	"fmt"

	"github.com/hearthws/hearth/protocol"
)

// A Batch is a list of messages that are sent together, in order. They do not wait for each other,
// so a thousand take hardly longer than one. Create it with Emitter.Batch. It is for one goroutine
// at a time.
//
// The documentation of Emitter about sends applies here, too. A batch keeps its messages in memory
// until Send: for many messages, send several batches.
type Batch struct {
	emitter   *Emitter
	n         int                // number of added events
	messages  []protocol.Message // the valid events
	positions []int              // for each of messages, its index among the added events
	targets   []Target           // for each of messages
	errs      []error            // for the added events; nil while there are none
}

// Batch returns an empty batch.
func (e *Emitter) Batch() *Batch { return &Batch{emitter: e} }

// Add adds an event for the clients of the target; see Emitter for the arguments. It encodes the
// data at once, unless the data is a json.RawMessage.
func (b *Batch) Add(t Target, event string, data any) { b.add(t, event, data, nil) }

// AddOnce is Add with the key of Emitter.SendOnce.
func (b *Batch) AddOnce(t Target, event string, data any, key string) { b.add(t, event, data, &key) }

// add adds an event. key is nil if it has none.
func (b *Batch) add(t Target, event string, data any, key *string) {
	position := b.n
	b.n++
	m, err := b.emitter.message(t, event, data, key)
	if err != nil {
		b.fail(position, sendError(event, t, err))
		return
	}
	b.messages = append(b.messages, m)
	b.positions = append(b.positions, position)
	b.targets = append(b.targets, t)
}

// Len returns the number of events that were added since the last Send, including invalid ones.
func (b *Batch) Len() int { return b.n }

// fail records the error of the event at a position.
func (b *Batch) fail(position int, err error) {
	for len(b.errs) <= position {
		b.errs = append(b.errs, nil)
	}
	b.errs[position] = err
}

// Send sends the added events and empties the batch. It returns nil if all of them were sent, in
// the sense of Emitter. Otherwise it returns one error per event, in the order in which they were
// added, nil for those that were sent. An invalid event does not stop the others. If ctx ends
// first, all events without a confirmation get its error.
func (b *Batch) Send(ctx context.Context) []error {
	sent := *b
	*b = Batch{emitter: b.emitter}
	if sent.n == 0 {
		return nil
	}
	sent.send(ctx)
	if sent.errs == nil {
		return nil
	}
	for len(sent.errs) < sent.n {
		sent.errs = append(sent.errs, nil)
	}
	return sent.errs
}

func (b *Batch) send(ctx context.Context) {
	e := b.emitter
	if err := e.begin(); err != nil {
		b.failAll(err)
		return
	}
	defer e.calls.Done()
	if len(b.messages) == 0 {
		return
	}
	if e.confirmer != nil {
		for i, err := range e.confirmer.PublishAll(ctx, b.messages) {
			if err != nil {
				b.fail(b.positions[i], sendError(b.messages[i].Event, b.targets[i], err))
			}
		}
		return
	}
	for i, m := range b.messages {
		if err := e.publish(ctx, m); err != nil {
			b.fail(b.positions[i], sendError(m.Event, b.targets[i], err))
		}
	}
}

// failAll records an error that affects every event. An invalid event keeps its own error.
func (b *Batch) failAll(err error) {
	for position := range b.n {
		if position >= len(b.errs) || b.errs[position] == nil {
			b.fail(position, fmt.Errorf("emitter: send a batch: %w", err))
		}
	}
}
