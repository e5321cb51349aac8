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
	// MaxText is the maximum size of a line, and of the data of an event, in bytes.
	MaxText = 4 << 20

	// chunkSize is the size of the input buffer, and so of the largest batch: thousands of events.
	chunkSize = 256 << 10
)

// ErrInput is wrapped by errors about the input.
var ErrInput = errors.New("bad input")

// errTooLong is the error for lines that are too long to read.
var errTooLong = fmt.Errorf("is longer than %d MiB", MaxText>>20)

// Options configure Lines. All of them are required.
type Options struct {
	// KeepGoing skips invalid lines instead of stopping at the first one.
	KeepGoing bool

	// Timeout bounds the sending of one batch.
	Timeout time.Duration

	// Bad is called for each invalid line, and Progress after each batch, both on the goroutine of
	// Lines.
	Bad      func(line int, err error)
	Progress func(Summary)
}

// A Summary counts the results so far.
type Summary struct {
	Sent        int // events that the publisher accepted
	Bad         int // invalid lines
	Unsent      int // events that failed; after a timeout they may have been sent
	FirstUnsent int // the line of the first of these, counted from 1
}

// One sends one event. The caller has checked it.
func (s *Sender) One(ctx context.Context, ev Event) error {
	b := s.emitter.Batch()
	ev.add(b)
	return errors.Join(b.Send(ctx)...)
}

// Lines sends an event for each line of in (see ParseLine), in order. It ignores empty lines. It
// sends the lines that have arrived as one batch of up to thousands of events and does not wait for
// more: in may be a slow pipe.
//
// Lines stops at the first invalid line (ErrInput), unless KeepGoing is set, and at the first event
// that failed, so that later events do not overtake it. When ctx is done, it finishes the current
// batch and returns the cause of ctx. A blocked read of in continues in the background until it
// returns or the program ends.
func (s *Sender) Lines(ctx context.Context, in io.Reader, o Options) (Summary, error) {
	var sum Summary
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	chunks := make(chan chunk)
	// Ends with the input, or with ctx after the current read returns. Lines does not wait for it,
	// because a read may block forever.
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

// send sends the events of a chunk as the batch b, up to the first invalid line that stops Lines.
func (s *Summary) send(ctx context.Context, b *emitter.Batch, c chunk, o Options) error {
	var stop error
	var lines []int // the line of each event in the batch
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
	// ctx does not cancel the batch: otherwise it would be unknown which events were sent.
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

// An item is a parsed line.
type item struct {
	line  int // counted from 1
	event Event
	err   error // why the line is invalid
}

// A chunk is a group of lines that arrived together.
type chunk struct {
	items []item
	err   error // the end of the input: io.EOF or a read error
}

// read reads the input in chunks.
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

// A reader reads lines of bounded length.
type reader struct {
	in   *bufio.Reader
	long []byte // a line that is longer than the buffer of in
	line int
}

// chunk waits for a line and returns it with the lines that are already in the buffer.
func (r *reader) chunk() (c chunk) {
	for first := true; first || r.ready(); first = false {
		text, err := r.next()
		if r.line++; r.line == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff")) // some editors write a byte order mark
		}
		if err != nil && err != errTooLong {
			c.err = err
			if err != io.EOF {
				return c // an incomplete line is ignored
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

// ready reports whether the buffer holds another complete line.
func (r *reader) ready() bool {
	buffered, _ := r.in.Peek(r.in.Buffered()) // never blocks, never fails
	return bytes.IndexByte(buffered, '\n') >= 0
}

// next returns the next line. The result is valid until the next call. It discards a line that is
// too long.
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
			return nil, errTooLong // the next call returns io.EOF again
		}
		return nil, err
	}
	r.long = append(r.long, text...)
	return r.long, err
}
