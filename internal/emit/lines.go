package emit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hearthws/hearth/emitter"
)

const (
	// MaxText is the longest line, and the most data of one event, in bytes.
	MaxText = 4 << 20

	// chunkSize is how much of the input is read ahead of what is being sent, and how much is sent at once: thousands of
	// events.
	chunkSize = 256 << 10
)

// ErrInput is wrapped by errors about what there was to send.
var ErrInput = errors.New("bad input")

// errTooLong is for lines that are not even read.
var errTooLong = fmt.Errorf("is longer than %d MiB", MaxText>>20)

// Options are how Lines works. All of them have to be set.
type Options struct {
	// KeepGoing passes over lines that are no events, rather than to stop at the first.
	KeepGoing bool

	// Timeout is how long the publisher may take to take what is sent at once.
	Timeout time.Duration

	// Bad is told of each line that is no event, and Progress how things are, after each send. They are called by Lines
	// itself, on its goroutine.
	Bad      func(line int, err error)
	Progress func(Summary)
}

// A Summary is what has become of the lines so far.
type Summary struct {
	Sent        int // events that were taken
	Bad         int // lines that are no events
	Unsent      int // events that were tried and not taken, as far as anyone knows
	FirstUnsent int // the line of the first of them, counted from 1
}

// One sends one event, which has been checked.
func (s *Sender) One(ctx context.Context, ev Event) error {
	b := s.emitter.Batch()
	ev.add(b)
	return errors.Join(b.Send(ctx)...)
}

// Lines sends an event for each line of in (see ParseLine), in their order; empty lines are passed over. What is there
// goes at once, thousands of events together, and nothing waits for more to come: in may be a pipe that trickles.
//
// It stops at the first line that is no event (ErrInput), unless it is to keep going, and at the first event that was not
// taken, since those after it would overtake it. When ctx is done it lets what is being sent end, and returns ctx's
// cause. A read of in that is then under way ends by itself: with the program, if not before.
func (s *Sender) Lines(ctx context.Context, in io.Reader, o Options) (Summary, error) {
	var sum Summary
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	chunks := make(chan chunk)
	// Ends with the input, or with ctx once a read returns. Nobody waits for it: a read may take for ever.
	go read(ctx, in, chunks)
	for {
		var c chunk
		select {
		case c = <-chunks:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return sum, context.Cause(ctx)
		}
		if err := sum.send(ctx, s.emitter.Batch(), c, o); err != nil {
			return sum, err
		}
		o.Progress(sum)
		if c.err == io.EOF {
			return sum, nil
		}
		if c.err != nil {
			return sum, fmt.Errorf("%w: %w", ErrInput, c.err)
		}
	}
}

// send sends the events of a chunk, up to the line that stops it, as the batch b.
func (s *Summary) send(ctx context.Context, b *emitter.Batch, c chunk, o Options) error {
	var stop error
	var lines []int // of the batch's events
	for _, it := range c.items {
		if it.err == nil {
			it.event.add(b)
			lines = append(lines, it.line)
			continue
		}
		s.Bad++
		if !o.KeepGoing {
			stop = fmt.Errorf("%w: line %d: %w", ErrInput, it.line, it.err)
			break
		}
		o.Bad(it.line, it.err)
	}
	if len(lines) == 0 {
		return stop
	}
	// Not ended by ctx: half a batch, of which nobody knows which half went, helps nobody.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.Timeout)
	defer cancel()
	errs := b.Send(ctx)
	if errs == nil {
		s.Sent += len(lines)
		return stop
	}
	var first error
	for i, err := range errs {
		switch {
		case err == nil:
			s.Sent++
			continue
		case first == nil:
			s.FirstUnsent = lines[i]
			first = fmt.Errorf("line %d: %w", lines[i], err)
		}
		s.Unsent++
	}
	return first
}

// An item is one line.
type item struct {
	line  int // counted from 1
	event Event
	err   error // why it is no event
}

// A chunk is lines that were there together.
type chunk struct {
	items []item
	err   error // why there are no more; io.EOF at the end of the input
}

// read cuts the input into chunks.
func read(ctx context.Context, in io.Reader, chunks chan<- chunk) {
	r := &reader{in: bufio.NewReaderSize(in, chunkSize)}
	for more := true; more; {
		c := r.chunk()
		more = c.err == nil
		select {
		case chunks <- c:
		case <-ctx.Done():
			return
		}
	}
}

// A reader reads lines, each of which is bounded.
type reader struct {
	in   *bufio.Reader
	long []byte // of a line that is longer than in's buffer
	line int
}

// chunk waits for a line, and takes with it those that are there already.
func (r *reader) chunk() (c chunk) {
	for first := true; first || r.ready(); first = false {
		text, err := r.next()
		if r.line++; r.line == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff")) // some editors put it there
		}
		if err != nil && err != errTooLong {
			c.err = err
			if err != io.EOF {
				return c // half a line is none
			}
		}
		it := item{line: r.line}
		switch text = bytes.TrimSpace(text); {
		case err == errTooLong:
			it.err = err
		case len(text) == 0:
			continue
		default:
			it.event, it.err = ParseLine(text)
		}
		c.items = append(c.items, it)
	}
	return c
}

// ready reports whether another whole line is in the buffer.
func (r *reader) ready() bool {
	buffered, _ := r.in.Peek(r.in.Buffered()) // never waits, never fails
	return bytes.IndexByte(buffered, '\n') >= 0
}

// next is the next line, good until the call after. Of one that is too long it keeps nothing.
func (r *reader) next() ([]byte, error) {
	text, err := r.in.ReadSlice('\n')
	if err != bufio.ErrBufferFull {
		return text, err
	}
	r.long = r.long[:0]
	tooLong := false
	for err == bufio.ErrBufferFull {
		tooLong = tooLong || len(r.long)+len(text) > MaxText
		if !tooLong {
			r.long = append(r.long, text...)
		}
		text, err = r.in.ReadSlice('\n')
	}
	if tooLong || len(r.long)+len(text) > MaxText {
		r.long = nil
		if err == nil || err == io.EOF {
			return nil, errTooLong // io.EOF comes again
		}
		return nil, err
	}
	r.long = append(r.long, text...)
	return r.long, err
}
