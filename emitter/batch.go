package emitter

import (
	"context"
	"fmt"

	"github.com/hearthws/hearth/protocol"
)

// A Batch is messages that are sent together, in their order: none waits for the answer to the one before, so a thousand
// take hardly longer than one. Make one with Emitter.Batch. It is for one goroutine at a time.
//
// What Emitter says of sends holds here, too. It keeps what is added until Send, so add what memory has room for, send,
// and go on.
type Batch struct {
	emitter   *Emitter
	n         int                // how many were added
	messages  []protocol.Message // those of them that can be sent
	positions []int              // of each of messages among all that were added
	targets   []Target           // of each of messages
	errs      []error            // of all that were added; nil while there are none
}

// Batch makes an empty batch.
func (e *Emitter) Batch() *Batch { return &Batch{emitter: e} }

// Add adds an event for the target's clients; see Emitter for the arguments. Data that is not a json.RawMessage is encoded
// at once.
func (b *Batch) Add(t Target, event string, data any) {
	position := b.n
	b.n++
	m, err := message(t, event, data)
	if err != nil {
		b.fail(position, sendError(event, t, err))
		return
	}
	b.messages = append(b.messages, m)
	b.positions = append(b.positions, position)
	b.targets = append(b.targets, t)
}

// Len is how many events were added since the last Send, including those that cannot be sent.
func (b *Batch) Len() int { return b.n }

// fail notes what became of the event that was added in that position.
func (b *Batch) fail(position int, err error) {
	for len(b.errs) <= position {
		b.errs = append(b.errs, nil)
	}
	b.errs[position] = err
}

// Send sends what was added, and empties the batch. nil: all of it went, as Emitter says what that means. Otherwise
// there is one error for each event, in the order in which they were added, nil for those that went: one that cannot be
// sent keeps none of the others. When ctx is done first, those get its error of which nobody knows yet
// that they went.
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

// failAll is for what keeps every event from being sent; one that could not be sent anyway keeps its own error.
func (b *Batch) failAll(err error) {
	for position := range b.n {
		if position >= len(b.errs) || b.errs[position] == nil {
			b.fail(position, fmt.Errorf("emitter: send a batch: %w", err))
		}
	}
}
