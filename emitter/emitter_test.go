package emitter_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/emitter"
	"github.com/hearthws/hearth/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakePublisher keeps the messages that it gets. It can delay its confirmation.
type fakePublisher struct {
	mu       sync.Mutex // guards the fields below
	messages []protocol.Message
	calls    int
	closed   int
	full     int              // how often Publish reports a full queue
	fail     map[string]error // by event

	hold    chan struct{} // if not nil, PublishAll waits until it is closed
	entered chan struct{} // if not nil, receives a value when PublishAll starts
}

func (l *fakePublisher) Publish(ctx context.Context, m protocol.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if l.full > 0 {
		l.full--
		return broker.ErrQueueFull
	}
	if err := l.fail[m.Event]; err != nil {
		return err
	}
	l.messages = append(l.messages, m)
	return nil
}

func (l *fakePublisher) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed++
	return nil
}

func (l *fakePublisher) got() []protocol.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.messages
}

// A confirmingPublisher is a fakePublisher that confirms.
type confirmingPublisher struct{ fakePublisher }

func (l *confirmingPublisher) PublishAll(ctx context.Context, ms []protocol.Message) []error {
	if l.entered != nil {
		l.entered <- struct{}{}
	}
	if l.hold != nil {
		select {
		case <-l.hold:
		case <-ctx.Done():
		}
	}
	var errs []error
	for i, m := range ms {
		if err := l.Publish(ctx, m); err != nil {
			if errs == nil {
				errs = make([]error, len(ms))
			}
			errs[i] = err
		}
	}
	return errs
}

// open returns an emitter that is closed at the end of the test.
func open(t *testing.T, p broker.Publisher) *emitter.Emitter {
	t.Helper()
	e, err := emitter.New(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// forPublishers runs f with a publisher that confirms and with one that does not.
func forPublishers(t *testing.T, f func(t *testing.T, p broker.Publisher, l *fakePublisher)) {
	t.Helper()
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		l := &fakePublisher{}
		f(t, l, l)
	})
	t.Run("confirmer", func(t *testing.T) {
		t.Parallel()
		l := &confirmingPublisher{}
		f(t, l, &l.fakePublisher)
	})
}

// everySend sends an event in all ways, one after the other and as a batch, and returns the errors.
func everySend(ctx context.Context, e *emitter.Emitter, target, event string, data any, exclude ...string) []error {
	errs := []error{
		e.Send(ctx, emitter.ToClient(target), event, data), e.Send(ctx, emitter.ToUser(target), event, data),
		e.Send(ctx, emitter.ToRoom(target).Except(exclude...), event, data), e.Send(ctx, emitter.ToAll().Except(exclude...), event, data),
	}
	b := e.Batch()
	b.Add(emitter.ToClient(target), event, data)
	b.Add(emitter.ToUser(target), event, data)
	b.Add(emitter.ToRoom(target).Except(exclude...), event, data)
	b.Add(emitter.ToAll().Except(exclude...), event, data)
	if n := b.Len(); n != 4 {
		errs = append(errs, fmt.Errorf("the batch has %d events", n))
	}
	batch := b.Send(ctx)
	if batch == nil {
		batch = make([]error, 4)
	}
	return append(errs, batch...)
}

func TestWithoutPublisher(t *testing.T) {
	t.Parallel()
	e, err := emitter.New(nil)
	if e != nil || err == nil || !strings.Contains(err.Error(), "redis.New") {
		t.Errorf("got %v, %v; want an error that says where to get one", e, err)
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	forPublishers(t, func(t *testing.T, p broker.Publisher, l *fakePublisher) {
		e := open(t, p)
		for i, err := range everySend(t.Context(), e, "ada", "mail", map[string]int{"unread": 3}, "x", "y") {
			if err != nil {
				t.Errorf("send %d: %v", i, err)
			}
		}
		var want []protocol.Message
		for range 2 {
			for _, m := range []protocol.Message{
				{Type: protocol.TypeClient, Target: "ada"}, {Type: protocol.TypeUser, Target: "ada"},
				{Type: protocol.TypeRoom, Target: "ada", Exclude: []string{"x", "y"}}, {Type: protocol.TypeBroadcast, Exclude: []string{"x", "y"}},
			} {
				m.ServerID, m.Event, m.Data = "emitter", "mail", json.RawMessage(`{"unread":3}`)
				want = append(want, m)
			}
		}
		if d := cmp.Diff(want, l.got()); d != "" {
			t.Error(d)
		}
	})
}

// TestData checks the same data as the test of the sends of a server.
func TestData(t *testing.T) {
	t.Parallel()
	forPublishers(t, func(t *testing.T, p broker.Publisher, l *fakePublisher) {
		e := open(t, p)
		ctx := t.Context()
		good := []struct {
			data any
			want string
		}{
			{"<b>&'é😀", `"<b>&'é😀"`},
			{"", `""`},
			{int64(math.MaxInt64), `9223372036854775807`},
			{nil, `null`},
			{json.RawMessage(nil), `null`},
			{emitter.NoData{}, ``},
			{(*int)(nil), `null`},
			{[]string(nil), `null`},
			{json.RawMessage(`null`), `null`},
			{json.RawMessage(` { "a" : 1.0e+2 } `), ` { "a" : 1.0e+2 } `},
			{json.RawMessage(`12345678901234567890.50`), `12345678901234567890.50`},
			{json.RawMessage(`"\ud800"`), `"\ud800"`},
			{strings.Repeat("x", 100<<10), `"` + strings.Repeat("x", 100<<10) + `"`},
		}
		for _, c := range good {
			for i, err := range everySend(ctx, e, "t", "m", c.data) {
				if err != nil {
					t.Errorf("send %d of %.20s: %v", i, c.want, err)
				}
			}
			for _, m := range l.got()[len(l.got())-8:] {
				if string(m.Data) != c.want {
					t.Errorf("%.40q went as %.40q", c.want, m.Data)
				}
			}
		}
		n := len(l.got())
		for _, event := range []string{"", "connected", "heartbeat", "resync", "hearth:x", "\xff"} {
			for i, err := range everySend(ctx, e, "t", event, 1) {
				if !errors.Is(err, protocol.ErrEvent) {
					t.Errorf("send %d of event %q: %v", i, event, err)
				}
			}
		}
		for _, bad := range []any{
			make(chan int), math.NaN(), func() {}, json.RawMessage(`{`), json.RawMessage(`{} {}`), json.RawMessage(`hello`),
			json.RawMessage("\"\xff\""), json.RawMessage(` `), json.RawMessage{}, []any{json.RawMessage("\"\xff\"")},
		} {
			for i, err := range everySend(ctx, e, "t", "bad", bad) {
				if err == nil || !strings.Contains(err.Error(), `send "bad" to `) {
					t.Errorf("send %d of %T: %v", i, bad, err)
				}
			}
		}
		if got := l.got()[n:]; len(got) > 0 {
			t.Errorf("%d messages went that should not, the first is %+v", len(got), got[0])
		}
	})
}

func TestBadTargets(t *testing.T) {
	t.Parallel()
	forPublishers(t, func(t *testing.T, p broker.Publisher, l *fakePublisher) {
		e := open(t, p)
		for i, err := range everySend(t.Context(), e, "", "m", 1) {
			if toAll := i%4 == 3; toAll != (err == nil) || !toAll && !errors.Is(err, protocol.ErrTarget) {
				t.Errorf("send %d without a target: %v", i, err)
			}
		}
		for i, err := range everySend(t.Context(), e, "t", "m", 1, make([]string, protocol.MaxExclude+1)...) {
			if excludes := i%4 >= 2; excludes == (err == nil) || excludes && !errors.Is(err, protocol.ErrTarget) {
				t.Errorf("send %d with too many exclusions: %v", i, err)
			}
		}
		if n := len(l.got()); n != 6 {
			t.Errorf("%d messages went, want 6", n)
		}
	})
}

// TestWhatWasSentIsTheCallers checks that the caller may change data and exclusions after a send.
func TestWhatWasSentIsTheCallers(t *testing.T) {
	t.Parallel()
	forPublishers(t, func(t *testing.T, p broker.Publisher, l *fakePublisher) {
		e := open(t, p)
		data, exclude := json.RawMessage(`1`), []string{"x"}
		b := e.Batch()
		b.Add(emitter.ToAll().Except(exclude...), "m", data)
		if err := e.Send(t.Context(), emitter.ToAll().Except(exclude...), "m", data); err != nil {
			t.Error(err)
		}
		data[0], exclude[0] = '2', "y"
		if errs := b.Send(t.Context()); errs != nil {
			t.Error(errs)
		}
		for _, m := range l.got() {
			if string(m.Data) != "1" || m.Exclude[0] != "x" {
				t.Errorf("what went has changed: %+v", m)
			}
		}
	})
}

// TestConfirmed checks that a send returns when its message is confirmed, and that sends do not
// wait for each other.
func TestConfirmed(t *testing.T) {
	t.Parallel()
	const callers = 20
	l := &confirmingPublisher{fakePublisher{hold: make(chan struct{}), entered: make(chan struct{})}}
	e := open(t, l)
	returned := make(chan error, callers)
	for range callers {
		// Ends when the publisher confirms; returned is read below.
		go func() { returned <- e.Send(t.Context(), emitter.ToAll(), "m", 1) }()
	}
	for range callers {
		<-l.entered // all at the same time
	}
	select {
	case err := <-returned:
		t.Fatalf("returned before it was confirmed: %v", err)
	default:
	}
	close(l.hold)
	for range callers {
		if err := <-returned; err != nil {
			t.Error(err)
		}
	}
}

// TestContextEndsTheWaiting checks that a send stops waiting for its confirmation when its context
// ends.
func TestContextEndsTheWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := open(t, &confirmingPublisher{fakePublisher{hold: make(chan struct{})}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		if err := e.Send(ctx, emitter.ToAll(), "m", 1); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Hour {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		b := e.Batch()
		b.Add(emitter.ToAll(), "a", 1)
		b.Add(emitter.ToAll(), "b", 1)
		if errs := b.Send(ctx); len(errs) != 2 || !errors.Is(errs[0], context.DeadlineExceeded) || !errors.Is(errs[1], context.DeadlineExceeded) {
			t.Errorf("batch: %v", errs)
		}
	})
}

// TestFullQueue checks that a send retries while the queue is full, in order, until the context
// ends or Close is called.
func TestFullQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &fakePublisher{full: 100}
		e := open(t, l)
		b := e.Batch()
		for i := range 3 {
			b.Add(emitter.ToAll(), fmt.Sprint(i), i)
		}
		start := time.Now()
		if errs := b.Send(t.Context()); errs != nil {
			t.Error(errs)
		}
		if got := l.got(); len(got) != 3 || got[0].Event != "0" || got[1].Event != "1" || got[2].Event != "2" {
			t.Errorf("got %+v", got)
		}
		if took := time.Since(start); took < time.Second || took > 10*time.Second {
			t.Errorf("asked 100 times in %v", took)
		}

		l.full = math.MaxInt
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := e.Send(ctx, emitter.ToAll(), "m", 1); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, broker.ErrQueueFull) {
			t.Errorf("at the end of the context: %v", err)
		}
		waits := make(chan error, 1)
		// Ends by Close; read below.
		go func() { waits <- e.Send(t.Context(), emitter.ToRoom("r"), "m", 1) }()
		synctest.Wait()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if err := <-waits; !errors.Is(err, broker.ErrClosed) || err.Error() != `emitter: send "m" to room "r": broker: closed` {
			t.Errorf("at Close: %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &confirmingPublisher{fakePublisher{hold: make(chan struct{})}}
		e := open(t, l)
		sent := make(chan error, 1)
		// Ends when the publisher confirms; read below.
		go func() { sent <- e.Send(t.Context(), emitter.ToAll(), "m", 1) }()
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- e.Close() }() // ends after the send; read below
		synctest.Wait()
		for i, err := range everySend(t.Context(), e, "t", "late", 1) {
			if !errors.Is(err, broker.ErrClosed) {
				t.Errorf("send %d after Close: %v", i, err)
			}
		}
		if err := e.Send(t.Context(), emitter.ToAll(), "", nil); !errors.Is(err, broker.ErrClosed) {
			t.Errorf("nothing, after Close: %v", err)
		}
		if len(closed) > 0 || l.closed > 0 {
			t.Error("Close did not wait for the send under way")
		}
		close(l.hold)
		for _, c := range []chan error{sent, closed} {
			if err := <-c; err != nil {
				t.Error(err)
			}
		}
		if err := e.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
		if l.closed != 1 || len(l.got()) != 1 {
			t.Errorf("the publisher was closed %d times, and got %d messages", l.closed, len(l.got()))
		}
	})
}

type unclosable struct{ broker.Publisher }

func (unclosable) Close() error { return errors.New("it hangs") }

func TestOwnership(t *testing.T) {
	t.Parallel()
	l := &confirmingPublisher{}
	e, err := emitter.New(struct{ broker.Confirmer }{l})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil || l.closed != 0 {
		t.Errorf("a publisher without Close: %v, closed %d times", err, l.closed)
	}
	e, err = emitter.New(unclosable{l})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.Close(); err == nil || !strings.Contains(err.Error(), "close the publisher: it hangs") {
			t.Errorf("close: %v", err)
		}
	}
}

// TestBatch checks that a batch is one call, that errors have the positions of their events, and
// that the next batch is empty.
func TestBatch(t *testing.T) {
	t.Parallel()
	l := &confirmingPublisher{fakePublisher{fail: map[string]error{"rejected": broker.ErrDown}}}
	e := open(t, l)
	b := e.Batch()
	if errs := b.Send(t.Context()); errs != nil || b.Len() != 0 {
		t.Errorf("an empty batch: %v", errs)
	}
	b.Add(emitter.ToAll(), "one", 1)
	b.Add(emitter.ToAll(), "null", nil)
	b.Add(emitter.ToAll(), "bad", json.RawMessage(`{`))
	b.Add(emitter.ToUser(""), "two", 1)
	b.Add(emitter.ToUser("u"), "rejected", 1)
	b.Add(emitter.ToRoom("r"), "three", 1)
	b.Add(emitter.ToAll(), "", 1)
	errs := b.Send(t.Context())
	if len(errs) != 7 {
		t.Fatalf("errors: %v", errs)
	}
	for i, want := range []error{nil, nil, protocol.ErrSyntax, protocol.ErrTarget, broker.ErrDown, nil, protocol.ErrEvent} {
		if !errors.Is(errs[i], want) {
			t.Errorf("event %d: %v, want %v", i, errs[i], want)
		}
	}
	if got := l.got(); len(got) != 3 || got[0].Event != "one" || got[1].Event != "null" || got[2].Event != "three" {
		t.Errorf("got %+v", got)
	}
	if errs := b.Send(t.Context()); errs != nil || b.Len() != 0 || len(l.got()) != 3 {
		t.Errorf("sent again: %v", errs)
	}
	b.Add(emitter.ToAll(), "four", 1)
	if errs := b.Send(t.Context()); errs != nil || len(l.got()) != 4 {
		t.Errorf("used again: %v", errs)
	}
}

// TestManyAtOnce checks that concurrent sends all arrive, and those of one goroutine in order.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	const callers, each = 8, 300
	bus := memory.NewBus(memory.Config{})
	node := bus.Broker()
	next := make([]int, callers) // owned by Deliver, until node is closed
	all := make(chan struct{})
	left := callers * each
	if err := node.Start(t.Context(), broker.Receiver{ServerID: "node", Deliver: func(m protocol.Message) {
		var got [2]int
		if err := json.Unmarshal(m.Data, &got); err != nil || next[got[0]] != got[1] {
			t.Errorf("got %s, want number %d: %v", m.Data, next[got[0]], err)
		}
		next[got[0]]++
		if left--; left == 0 {
			close(all)
		}
	}}); err != nil {
		t.Fatal(err)
	}
	e := open(t, bus.Broker())
	var sending sync.WaitGroup
	for caller := range callers {
		sending.Go(func() { // ends when all is sent
			b := e.Batch()
			for i := range each {
				if b.Add(emitter.ToAll(), "m", [2]int{caller, i}); b.Len() == 7 || i == each-1 {
					if errs := b.Send(t.Context()); errs != nil {
						t.Error(errs)
					}
				}
			}
		})
	}
	sending.Wait()
	select {
	case <-all:
	case <-time.After(time.Minute):
		t.Error("not all have arrived")
	}
	if err := node.Close(); err != nil {
		t.Error(err)
	}
}

// TestSendOnce checks that a repeated send with the same key does nothing, and which sends can have
// a key.
func TestSendOnce(t *testing.T) {
	t.Parallel()
	bus := memory.NewBus(memory.Config{History: broker.HistoryRules{{Rooms: "log:*", Size: 10, Age: time.Hour}}})
	b := bus.Broker()
	e := open(t, b)
	ctx := t.Context()
	for range 3 {
		if err := e.SendOnce(ctx, emitter.ToRoom("log:1"), "sent", 1, "job 1"); err != nil {
			t.Fatal(err)
		}
	}
	batch := e.Batch()
	batch.AddOnce(emitter.ToRoom("log:1"), "again", 1, "job 1")
	batch.AddOnce(emitter.ToRoom("log:1"), "batch", 1, "job 2")
	batch.AddOnce(emitter.ToRoom("log:1"), "again", 1, "job 2")
	batch.AddOnce(emitter.ToRoom("plain"), "never", 1, "job 3")
	batch.AddOnce(emitter.ToRoom("log:1"), "never", 1, "")
	batch.Add(emitter.ToRoom("log:1"), "plain", 1)
	errs := batch.Send(ctx)
	if len(errs) != 6 || errs[0] != nil || errs[1] != nil || errs[2] != nil || !errors.Is(errs[3], broker.ErrNoHistory) ||
		!errors.Is(errs[4], protocol.ErrMessage) || errs[5] != nil {
		t.Errorf("errors %v", errs)
	}
	parts, err := b.ReadHistory(ctx, broker.HistoryRequest{Room: "log:1", Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	for _, m := range parts[0].Messages {
		events = append(events, m.Event)
	}
	if got := strings.Join(events, " "); got != "sent batch plain" {
		t.Errorf("the history has %q", got)
	}

	for name, tt := range map[string]struct {
		emitter *emitter.Emitter
		target  emitter.Target
		key     string
		want    error
	}{
		"room without history": {e, emitter.ToRoom("plain"), "k", broker.ErrNoHistory},
		"user":                 {e, emitter.ToUser("log:1"), "k", broker.ErrNoHistory},
		"all":                  {e, emitter.ToAll(), "k", broker.ErrNoHistory},
		"no key":               {e, emitter.ToRoom("log:1"), "", protocol.ErrMessage},
		"long key":             {e, emitter.ToRoom("log:1"), strings.Repeat("k", protocol.MaxKey+1), protocol.ErrMessage},
		"other publisher":      {open(t, &fakePublisher{}), emitter.ToRoom("log:1"), "k", broker.ErrNoHistory},
	} {
		if err := tt.emitter.SendOnce(ctx, tt.target, "e", 1, tt.key); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", name, err, tt.want)
		}
	}
}
