package emit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/emit"
	"github.com/hearthws/hearth/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakePublisher accepts messages in place of Redis.
type fakePublisher struct {
	mu     sync.Mutex // guards the fields below
	events []string
	calls  int

	reject  string        // events of this name get errRejected
	silent  chan struct{} // if not nil, PublishAll waits until it is closed
	entered chan struct{} // if not nil, receives a value for each call of PublishAll
}

var errRejected = errors.New("rejected")

func (p *fakePublisher) Publish(context.Context, protocol.Message) error {
	return errors.New("not asked for a confirmation")
}

func (p *fakePublisher) PublishAll(ctx context.Context, ms []protocol.Message) []error {
	if p.entered != nil {
		p.entered <- struct{}{}
	}
	if p.silent != nil {
		select {
		case <-p.silent:
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	errs, failed := make([]error, len(ms)), false
	for i, m := range ms {
		switch {
		case ctx.Err() != nil:
			errs[i] = ctx.Err()
		case m.Event == p.reject:
			errs[i] = errRejected
		default:
			p.events = append(p.events, m.Event)
			continue
		}
		failed = true
	}
	if !failed {
		return nil
	}
	return errs
}

func (p *fakePublisher) got() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.events
}

func sender(t *testing.T, p broker.Publisher) *emit.Sender {
	t.Helper()
	s, err := emit.New(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// quiet returns options that report nothing.
func quiet() emit.Options {
	return emit.Options{Timeout: time.Minute, Bad: func(int, error) {}, Progress: func(emit.Summary) {}}
}

// line returns an event for all clients.
func line(event string) string { return fmt.Sprintf(`{"all":true,"event":%q,"data":1}`+"\n", event) }

func TestLines(t *testing.T) {
	t.Parallel()
	p := &fakePublisher{}
	s := sender(t, p)
	in := "\ufeff" + line("one") + "\n  \r\n" + strings.TrimSpace(line("two")) + "\r\n" + strings.TrimSpace(line("three"))
	sum, err := s.Lines(t.Context(), strings.NewReader(in), quiet())
	if err != nil || sum != (emit.Summary{Sent: 3}) {
		t.Errorf("%+v, %v", sum, err)
	}
	if got := strings.Join(p.got(), " "); got != "one two three" {
		t.Errorf("got %q", got)
	}
	for name, in := range map[string]string{"nothing": "", "an empty line": "\n"} {
		if sum, err := s.Lines(t.Context(), strings.NewReader(in), quiet()); err != nil || sum != (emit.Summary{}) {
			t.Errorf("%s: %+v, %v", name, sum, err)
		}
	}
}

// TestManyLines checks that the order is kept over many chunks, in whatever pieces the input
// arrives.
func TestManyLines(t *testing.T) {
	t.Parallel()
	const n = 20_000
	var in strings.Builder
	for i := range n {
		in.WriteString(line(fmt.Sprint(i)))
	}
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(in.String()), "halves": iotest.HalfReader(strings.NewReader(in.String())),
		"error with data": iotest.DataErrReader(strings.NewReader(in.String())),
	} {
		p := &fakePublisher{}
		sum, err := sender(t, p).Lines(t.Context(), r, quiet())
		if err != nil || sum.Sent != n || len(p.events) != n {
			t.Fatalf("%s: %+v, %v", name, sum, err)
		}
		for i, event := range p.events {
			if event != fmt.Sprint(i) {
				t.Fatalf("%s: %s in place %d", name, event, i)
			}
		}
		if name == "whole" && p.calls > n/1000 {
			t.Errorf("%s: %d calls", name, p.calls)
		}
	}
}

func TestBadLines(t *testing.T) {
	t.Parallel()
	in := line("one") + line("two") + "hello\n" + line("three") + `{"event":"x"}` + "\n" + line("four")
	p := &fakePublisher{}
	sum, err := sender(t, p).Lines(t.Context(), strings.NewReader(in), quiet())
	if !errors.Is(err, emit.ErrInput) || !strings.Contains(err.Error(), `line 3: is not a JSON object: "hello"`) || sum != (emit.Summary{Sent: 2, Bad: 1}) {
		t.Errorf("%+v, %v", sum, err)
	}
	if got := strings.Join(p.got(), " "); got != "one two" {
		t.Errorf("got %q", got)
	}

	p = &fakePublisher{}
	var bad []int
	o := quiet()
	o.KeepGoing, o.Bad = true, func(line int, err error) { bad = append(bad, line) }
	sum, err = sender(t, p).Lines(t.Context(), strings.NewReader(in), o)
	if err != nil || sum != (emit.Summary{Sent: 4, Bad: 2}) || fmt.Sprint(bad) != "[3 5]" {
		t.Errorf("%+v, %v; bad lines %v", sum, err, bad)
	}
	if got := strings.Join(p.got(), " "); got != "one two three four" {
		t.Errorf("got %q", got)
	}
}

// TestLongLines checks that lines are bounded, and that a longer line is not kept in memory.
func TestLongLines(t *testing.T) {
	t.Parallel()
	long := func(n int) string {
		const frame = `{"all":true,"event":"long","data":""}`
		return strings.Replace(frame, `""`, `"`+strings.Repeat("x", n-len(frame))+`"`, 1)
	}
	const most = emit.MaxText
	o := quiet()
	var bad []int
	o.KeepGoing, o.Bad = true, func(line int, err error) {
		if !strings.Contains(err.Error(), "longer than 4 MiB") {
			t.Error(err)
		}
		bad = append(bad, line)
	}
	in := line("one") + long(most-1) + "\n" + long(most+1) + "\n" + long(3*most) + "\n" + line("two") + long(most+1)
	p := &fakePublisher{}
	sum, err := sender(t, p).Lines(t.Context(), strings.NewReader(in), o)
	if err != nil || sum != (emit.Summary{Sent: 3, Bad: 3}) || fmt.Sprint(bad) != "[3 4 6]" {
		t.Errorf("%+v, %v; bad lines %v", sum, err, bad)
	}
	if got := strings.Join(p.got(), " "); got != "one long two" {
		t.Errorf("got %q", got)
	}
}

// endless returns the same bytes without end, and counts them.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	e.n += len(p)
	if e.n > 64<<20 {
		return 0, io.ErrUnexpectedEOF
	}
	return len(p), nil
}

// TestEndlessLine checks that a line without an end takes bounded memory, and that an incomplete
// line is ignored.
func TestEndlessLine(t *testing.T) {
	t.Parallel()
	p := &fakePublisher{}
	sum, err := sender(t, p).Lines(t.Context(), &endless{}, quiet())
	if !errors.Is(err, emit.ErrInput) || !errors.Is(err, io.ErrUnexpectedEOF) || sum != (emit.Summary{}) {
		t.Errorf("%+v, %v", sum, err)
	}
}

// TestReadError checks that complete lines before a read error are sent, and an incomplete line is
// not.
func TestReadError(t *testing.T) {
	t.Parallel()
	p := &fakePublisher{}
	in := io.MultiReader(strings.NewReader(line("one")+line("two")[:10]), iotest.ErrReader(os.ErrPermission))
	sum, err := sender(t, p).Lines(t.Context(), in, quiet())
	if !errors.Is(err, os.ErrPermission) || sum != (emit.Summary{Sent: 1}) || len(p.got()) != 1 {
		t.Errorf("%+v, %v", sum, err)
	}
}

// TestNotTaken checks that no event is sent after one that failed, because it would overtake that
// one.
func TestNotTaken(t *testing.T) {
	t.Parallel()
	p := &fakePublisher{reject: "two"}
	o := quiet()
	o.KeepGoing = true
	in := line("one") + "\nhello\n" + line("two") + line("three") + strings.Repeat(" ", 1<<20) + "\n" + line("four")
	sum, err := sender(t, p).Lines(t.Context(), strings.NewReader(in), o)
	if !errors.Is(err, errRejected) || sum != (emit.Summary{Sent: 2, Bad: 1, Unsent: 1, FirstUnsent: 4}) {
		t.Errorf("%+v, %v", sum, err)
	}
	if got := strings.Join(p.got(), " "); got != "one three" { // already sent in the same batch
		t.Errorf("got %q", got)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	p := &fakePublisher{silent: make(chan struct{})}
	o := quiet()
	o.Timeout = time.Millisecond
	sum, err := sender(t, p).Lines(t.Context(), strings.NewReader(line("one")+line("two")), o)
	if !errors.Is(err, context.DeadlineExceeded) || sum != (emit.Summary{Unsent: 2, FirstUnsent: 1}) {
		t.Errorf("%+v, %v", sum, err)
	}
}

// TestTrickle checks that lines are sent as they arrive, and that cancelling ends Lines after the
// current batch.
func TestTrickle(t *testing.T) {
	t.Parallel()
	in, out := io.Pipe()
	defer out.Close()
	p := &fakePublisher{entered: make(chan struct{})}
	s := sender(t, p)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	type result struct {
		sum emit.Summary
		err error
	}
	done := make(chan result, 1)
	// Ends when ctx does; read below.
	go func() {
		sum, err := s.Lines(ctx, in, quiet())
		done <- result{sum, err}
	}()
	for i := range 3 {
		if _, err := io.WriteString(out, line(fmt.Sprint(i))+`{"all":`); err != nil { // an incomplete line does not delay the others
			t.Fatal(err)
		}
		<-p.entered
		if _, err := io.WriteString(out, `true,"event":"half","data":1}`+"\n"); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			<-p.entered
		}
	}
	interrupted := errors.New("interrupted")
	cancel(interrupted)
	select {
	case <-p.entered: // the last event may or may not have been sent
	case r := <-done:
		done <- r
	}
	r := <-done
	if !errors.Is(r.err, interrupted) || r.sum.Sent != len(p.got()) || r.sum.Sent < 5 {
		t.Errorf("%+v, %v; got %q", r.sum, r.err, p.got())
	}
}

// TestInterruptedWhileSending checks that Lines waits for the current batch, so that the count is
// correct.
func TestInterruptedWhileSending(t *testing.T) {
	t.Parallel()
	p := &fakePublisher{silent: make(chan struct{}), entered: make(chan struct{})}
	s := sender(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan emit.Summary, 1)
	// Ends when silent is closed; read below.
	go func() {
		sum, err := s.Lines(ctx, io.MultiReader(strings.NewReader(line("one")), iotest.TimeoutReader(strings.NewReader(line("two")))), quiet())
		if err == nil {
			t.Error("no error")
		}
		done <- sum
	}()
	<-p.entered
	cancel()
	close(p.silent)
	if sum := <-done; sum != (emit.Summary{Sent: 1}) {
		t.Errorf("%+v", sum)
	}
}

func TestOne(t *testing.T) {
	t.Parallel()
	p := &fakePublisher{reject: "bad"}
	s := sender(t, p)
	ev := emit.Event{To: emit.ToUser, Target: "ada", Event: "good", Data: []byte("1")}
	if err := s.One(t.Context(), ev); err != nil || len(p.got()) != 1 {
		t.Errorf("%v; got %q", err, p.got())
	}
	ev.Event = "bad"
	if err := s.One(t.Context(), ev); !errors.Is(err, errRejected) {
		t.Errorf("got %v", err)
	}
}
