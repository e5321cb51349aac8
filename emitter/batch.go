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
	emitter  *Emitter
	n        int                // how many were added
	messages []protocol.Message // those of them that can be sent
	places   []int              // of each of messages among all that were added
	errs     []error            // of all that were added; nil while there are none
}

// Batch makes an empty batch.
func (e *Emitter) Batch() *Batch { return &Batch{emitter: e} }

// ToClient adds an event for the client with that id.
func (b *Batch) ToClient(clientID, event string, data any) {
	b.add(protocol.Message{Type: protocol.TypeClient, Target: clientID, Event: event}, data)
}

// ToUser adds an event for every client of that user.
func (b *Batch) ToUser(userID, event string, data any) {
	b.add(protocol.Message{Type: protocol.TypeUser, Target: userID, Event: event}, data)
}

// ToRoom adds an event for the members of that room, but for the clients whose ids are excluded.
func (b *Batch) ToRoom(room, event string, data any, exclude ...string) {
	b.add(protocol.Message{Type: protocol.TypeRoom, Target: room, Event: event, Exclude: exclude}, data)
}

// Broadcast adds an event for every authenticated client, but for those whose ids are excluded.
func (b *Batch) Broadcast(event string, data any, exclude ...string) {
	b.add(protocol.Message{Type: protocol.TypeBroadcast, Event: event, Exclude: exclude}, data)
}

// Len is how many events were added since the last Send, those included that cannot be sent or say nothing.
func (b *Batch) Len() int { return b.n }

func (b *Batch) add(m protocol.Message, data any) {
	place := b.n
	b.n++
	skip, err := complete(&m, data)
	switch {
	case err != nil:
		b.fail(place, wrong(m, err))
	case !skip:
		b.messages = append(b.messages, m)
		b.places = append(b.places, place)
	}
}

// fail notes what became of the event that was added in that place.
func (b *Batch) fail(place int, err error) {
	for len(b.errs) <= place {
		b.errs = append(b.errs, nil)
	}
	b.errs[place] = err
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
				b.fail(b.places[i], wrong(b.messages[i], err))
			}
		}
		return
	}
	for i, m := range b.messages {
		if err := e.publish(ctx, m); err != nil {
			b.fail(b.places[i], wrong(m, err))
		}
	}
}

// failAll is for what keeps every event from being sent; one that could not be sent anyway keeps its own error.
func (b *Batch) failAll(err error) {
	for place := range b.n {
		if place >= len(b.errs) || b.errs[place] == nil {
			b.fail(place, fmt.Errorf("emit a batch: %w", err))
		}
	}
}
