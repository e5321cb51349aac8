package ws_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/hearthws/hearth/internal/ws"
)

// countingHandler is a Handler that only counts.
type countingHandler struct{ messages, others int }

func (q *countingHandler) Message(ws.Opcode, []byte) { q.messages++ }
func (q *countingHandler) Ping([]byte)               { q.others++ }
func (q *countingHandler) Pong([]byte)               { q.others++ }
func (q *countingHandler) Close(int, string)         { q.others++ }

func TestEndpointIsSmall(t *testing.T) {
	t.Parallel()
	if n := unsafe.Sizeof(ws.Endpoint{}); n > 16 {
		t.Errorf("an idle Endpoint takes %d bytes, want 16", n)
	}
	if n := unsafe.Sizeof(ws.Message{}); n > 64 {
		t.Errorf("a Message takes %d bytes beside its frame, want 64", n)
	}
}

func TestZeroEndpoint(t *testing.T) {
	t.Parallel()
	var e ws.Endpoint
	at := strings.Repeat("x", ws.DefaultMessageLimit)
	want := says(longText("text", at), "error 1009")
	if got := feedAll(&e, masked(fin|text, at), masked(fin|text, at+"x")); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNoStateBetweenMessages(t *testing.T) {
	t.Parallel()
	input := join(masked(fin|text, "hello"), masked(text, "a"), masked(fin|ping, "in between"), masked(fin|cont, "b"),
		masked(fin|binmsg, strings.Repeat("x", 5000)), masked(fin|rsv1|text, deflated("compressed")), masked(fin|pong, "p"))
	s := side{deflate: true}
	ends := map[int]bool{}
	var at int
	for _, n := range []int{5, 1, 10, 1, 5000, len(deflated("compressed")), 1} {
		at += len(masked(fin|binmsg, strings.Repeat("x", n)))
		ends[at] = true
	}
	delete(ends, len(masked(0, "hello"))+len(masked(0, "a")))
	delete(ends, len(masked(0, "hello"))+len(masked(0, "a"))+len(masked(0, "in between")))
	for i := 1; i <= len(input); i++ {
		e := s.endpoint()
		if err := e.Feed(bytes.Clone(input[:i]), &countingHandler{}); err != nil {
			t.Fatal(err)
		}
		if held := ws.Held(e); (held < 0) != ends[i] {
			t.Errorf("after %d bytes: holds %d, between messages: %v", i, held, ends[i])
		}
		// The same for input in two chunks. The second is short enough to begin in a header, or
		// long.
		for _, last := range []int{1, 4, 9, 16, 300} {
			e = s.endpoint()
			cut := max(0, i-last)
			_ = e.Feed(bytes.Clone(input[:cut]), &countingHandler{})
			_ = e.Feed(bytes.Clone(input[cut:i]), &countingHandler{})
			if held := ws.Held(e); (held < 0) != ends[i] {
				t.Errorf("%d bytes, cut at %d: holds %d, between messages: %v", i, cut, held, ends[i])
			}
		}
	}
}

// TestHeldFollowsArrival checks that memory depends on the bytes that have arrived, not on the
// announced length.
func TestHeldFollowsArrival(t *testing.T) {
	t.Parallel()
	const announced = 100 << 20
	e := ws.NewEndpoint(ws.Client, announced, false)
	if err := e.Feed(ws.AppendHeader(nil, ws.OpBinary, false, announced), &countingHandler{}); err != nil {
		t.Fatal(err)
	}
	if held := ws.Held(&e); held > 0 {
		t.Errorf("holds %d bytes for a header", held)
	}
	chunk := make([]byte, 1000)
	for arrived := 1000; arrived < 200_000; arrived += 1000 {
		_ = e.Feed(chunk, &countingHandler{})
		if held := ws.Held(&e); held > 3*arrived {
			t.Fatalf("holds %d bytes of %d", held, arrived)
		}
	}
}

func TestPartialMessageTakesExactlyItsSize(t *testing.T) {
	t.Parallel()
	e := ws.NewEndpoint(ws.Server, 1<<20, false)
	frame := masked(fin|binmsg, strings.Repeat("x", 70000))
	_ = e.Feed(frame[:40000], &countingHandler{})
	_ = e.Feed(frame[40000:len(frame)-1], &countingHandler{})
	if held := ws.Held(&e); held != 70000 {
		t.Errorf("holds %d bytes for a message of 70000", held)
	}
}

// TestFragmentsCopyLinearly checks that copying is linear in the message, however it is fragmented.
func TestFragmentsCopyLinearly(t *testing.T) {
	const fragments, size = 1 << 16, 64
	piece := strings.Repeat("x", size)
	input := masked(binmsg, piece)
	for range fragments - 2 {
		input = append(input, masked(cont, piece)...)
	}
	input = append(input, masked(fin|cont, piece)...)
	work := make([]byte, len(input))
	allocs := testing.AllocsPerRun(1, func() {
		copy(work, input)
		e := ws.NewEndpoint(ws.Server, fragments*size, false)
		q := countingHandler{}
		if err := e.Feed(work, &q); err != nil || q.messages != 1 {
			t.Errorf("%d messages, error %v", q.messages, err)
		}
	})
	if allocs > 30 {
		t.Errorf("%v allocations for %d fragments", allocs, fragments)
	}
}

func TestTinyFragmentFlood(t *testing.T) {
	t.Parallel()
	e := ws.NewEndpoint(ws.Server, 1600, false)
	if err := e.Feed(masked(binmsg, ""), &countingHandler{}); err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		err := e.Feed(masked(cont, ""), &countingHandler{})
		if err == nil && n < 1000 {
			continue
		}
		if n != 128+1600/16 || errorEvent(err) != "error 1009" {
			t.Errorf("fragment %d: %v", n+1, err)
		}
		return
	}
}

func TestSetMessageLimit(t *testing.T) {
	t.Parallel()
	e := ws.NewEndpoint(ws.Server, 10, false)
	e.SetMessageLimit(1000)
	frame := masked(fin|text, strings.Repeat("x", 500))
	if got := feedAll(&e, frame); len(got) != 1 {
		t.Errorf("raised limit: %v", got)
	}
	e.SetMessageLimit(499)
	if got := feedAll(&e, frame); !slices.Equal(got, says("error 1009")) {
		t.Errorf("lowered limit: %v", got)
	}
}

// limitRaiser raises the limit from within the handler, as a session does when a client has
// authenticated.
type limitRaiser struct {
	recorder
	e *ws.Endpoint
}

func (r *limitRaiser) Message(op ws.Opcode, p []byte) {
	r.recorder.Message(op, p)
	r.e.SetMessageLimit(1000)
}

func TestRaiseLimitInHandler(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 500)
	input := join(masked(fin|text, "auth"), masked(fin|text, big))
	for i := range input {
		e := ws.NewEndpoint(ws.Server, 10, false)
		r := &limitRaiser{e: &e}
		if err := errors.Join(e.Feed(bytes.Clone(input[:i]), r), e.Feed(bytes.Clone(input[i:]), r)); err != nil || len(r.events) != 2 {
			t.Fatalf("cut at %d: %v, %v", i, err, r.events)
		}
	}
}

// stopper stops its Endpoint at the first call.
type stopper struct {
	countingHandler
	e *ws.Endpoint
}

func (s *stopper) Message(op ws.Opcode, p []byte) { s.countingHandler.Message(op, p); s.e.Stop() }
func (s *stopper) Ping(p []byte)                  { s.countingHandler.Ping(p); s.e.Stop() }

func TestStopInHandler(t *testing.T) {
	t.Parallel()
	for name, input := range map[string][]byte{
		"message":         join(masked(fin|text, "a"), masked(fin|text, "b")),
		"ping":            join(masked(fin|ping, "a"), masked(fin|text, "b")),
		"ping in message": join(masked(text, "a"), masked(fin|ping, "a"), masked(fin|cont, "b")),
		"fragments":       join(masked(text, "a"), masked(fin|cont, "b"), masked(fin|text, "b")),
		"compressed":      join(masked(fin|rsv1|text, deflated("a")), masked(fin|text, "b")),
		"violation after": join(masked(fin|text, "a"), plain(0xff, "junk")),
	} {
		for i := range input {
			e := ws.NewEndpoint(ws.Server, 0, true)
			s := &stopper{e: &e}
			err := errors.Join(e.Feed(bytes.Clone(input[:i]), s), e.Feed(bytes.Clone(input[i:]), s))
			if err != nil || s.messages+s.others != 1 || ws.Held(&e) >= 0 {
				t.Errorf("%s, cut at %d: %d messages, %d others, error %v, holds %d", name, i, s.messages, s.others, err, ws.Held(&e))
			}
		}
	}
}

func TestNothingAfterViolation(t *testing.T) {
	t.Parallel()
	e := ws.NewEndpoint(ws.Server, 0, false)
	want := says(`text "a"`, "error 1002")
	if got := feedAll(&e, masked(fin|text, "a"), masked(text, "b"), masked(fin|text, "c"), masked(fin|cont, "d"), plain(0xff, "e")); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if ws.Held(&e) >= 0 {
		t.Error("state is kept after a violation")
	}
}

func TestPayloadCannotGrowIntoNextFrame(t *testing.T) {
	t.Parallel()
	e := ws.NewEndpoint(ws.Server, 0, false)
	h := &appender{}
	if err := e.Feed(join(masked(fin|text, "ab"), masked(fin|text, "cd")), h); err != nil || h.got != "abcd" {
		t.Errorf("%q, %v", h.got, err)
	}
}

type appender struct {
	countingHandler
	got string
}

func (a *appender) Message(_ ws.Opcode, p []byte) {
	a.got += string(p)
	_ = append(p, 0xff)
}

func TestFeedAllocatesNothing(t *testing.T) {
	for name, frame := range map[string][]byte{
		"text":   masked(fin|text, `{"event":"heartbeat"}`),
		"binary": masked(fin|binmsg, strings.Repeat("x", 50000)),
		"ping":   masked(fin|ping, "p"),
	} {
		e := ws.NewEndpoint(ws.Server, 0, false)
		b, q := make([]byte, len(frame)), &countingHandler{}
		if n := testing.AllocsPerRun(100, func() { copy(b, frame); _ = e.Feed(b, q) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestCloseErrorText(t *testing.T) {
	t.Parallel()
	e := ws.NewEndpoint(ws.Server, 0, false)
	err := e.Feed(plain(fin|text, "a"), &countingHandler{})
	if err == nil || err.Error() != "websocket: unmasked frame from a client (close 1002)" {
		t.Errorf("got %v", err)
	}
}

// pauser pauses its Endpoint at each call.
type pauser struct {
	recorder
	e *ws.Endpoint
}

func (p *pauser) Message(op ws.Opcode, b []byte) { p.e.Pause(); p.recorder.Message(op, b) }
func (p *pauser) Ping(b []byte)                  { p.e.Pause(); p.recorder.Ping(b) }

// TestPause checks that the remaining input is unchanged after each call, and that parsing
// continues from there.
func TestPause(t *testing.T) {
	t.Parallel()
	input := join(masked(fin|text, "a"), masked(text, "b"), masked(fin|ping, "in between"), masked(fin|cont, "c"),
		masked(fin|rsv1|text, deflated("compressed")), masked(fin|binmsg, "d"), masked(fin|pong, ""), masked(fin|text, "e"))
	want := feedAll(side{deflate: true}.endpoint(), input)
	for cut := range input {
		e := side{deflate: true}.endpoint()
		p := &pauser{e: e}
		for _, b := range [][]byte{bytes.Clone(input[:cut]), bytes.Clone(input[cut:])} {
			for before := len(p.events); len(b) > 0; before = len(p.events) {
				n, err := e.Parse(b, p)
				if err != nil || n == 0 {
					t.Fatalf("cut at %d: %d bytes taken, %v", cut, n, err)
				}
				if n < len(b) && len(p.events) > before+2 { // a pong does not pause it
					t.Fatalf("cut at %d: %v, without a pause", cut, p.events[before:])
				}
				b = b[n:]
			}
		}
		if !slices.Equal(p.events, want) {
			t.Fatalf("cut at %d: got %v, want %v", cut, p.events, want)
		}
	}
}

// deferredRecorder inflates compressed messages itself.
type deferredRecorder struct {
	recorder
	yields int
}

func (d *deferredRecorder) Compressed(op ws.Opcode, b []byte) {
	out, err := ws.InflateMessage(op, b, 300_000, func() { d.yields++ })
	if err != nil {
		d.events = append(d.events, errorEvent(err))
		return
	}
	d.Message(op, out)
}

// TestDeferredHandler checks that deferred inflating gives the same messages and errors.
func TestDeferredHandler(t *testing.T) {
	t.Parallel()
	long := deflated(strings.Repeat("x", 300_000))
	for name, frames := range map[string][]byte{
		"short":      masked(fin|rsv1|text, deflated("hello")),
		"empty":      masked(fin|rsv1|text, ""),
		"fragments":  join(masked(rsv1|binmsg, long[:20]), masked(fin|ping, "p"), masked(fin|cont, long[20:])),
		"too long":   masked(fin|rsv1|text, deflated(strings.Repeat("x", 300_001))),
		"no UTF-8":   masked(fin|rsv1|text, deflated("\xff")),
		"binary":     masked(fin|rsv1|binmsg, deflated("\xff")),
		"no DEFLATE": masked(fin|rsv1|text, "\xff\xff"),
		"plain":      masked(fin|text, "plain"),
	} {
		s := side{limit: 300_000, deflate: true}
		d := &deferredRecorder{}
		if err := s.endpoint().Feed(bytes.Clone(frames), d); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if want := feedAll(s.endpoint(), frames); !slices.Equal(d.events, want) {
			t.Errorf("%s: got %v, want %v", name, d.events, want)
		}
		if (d.yields > 3) != (name == "fragments" || name == "too long") {
			t.Errorf("%s: %d pauses", name, d.yields)
		}
	}
}
