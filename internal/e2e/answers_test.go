package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/hearthws/hearth"
)

// TestAnswers checks that a client with the extension gets exactly one answer to each message with
// an id, and that other clients get what they got before.
func TestAnswers(t *testing.T) {
	t.Parallel()
	refuse := &hearth.ClientError{Code: "no", Message: "No"}
	r := start(t, config{Message: func(_ context.Context, c *client, m hearth.Message) error {
		switch m.Event {
		case "nothing":
			return nil
		case "fails":
			return errors.New("broken")
		case "panics":
			panic("broken")
		case "exits":
			runtime.Goexit()
		case "refuses":
			return fmt.Errorf("refused: %w", refuse)
		case "replies":
			return c.Reply(m, 1)
		case "replies-and-fails":
			return errors.Join(c.Reply(m, 1), errors.New("broken"))
		case "replies-and-refuses":
			return errors.Join(c.Reply(m, 1), refuse)
		case "other-client-is-gone":
			return hearth.ErrNotConnected
		}
		return hearth.ErrReplyLater // and never does
	}})
	hearth.Handle(r.server, "typed", func(context.Context, *client, int) error { return nil })
	hearth.Handle(r.server, "typed-fails", func(context.Context, *client, int) error { return errors.New("broken") })
	hearth.Handle(r.server, "typed-panics", func(context.Context, *client, int) error { panic("broken") })
	hearth.HandleRequest(r.server, "asked", func(context.Context, *client, int) (int, error) { return 7, nil })
	hearth.HandleRequest(r.server, "asked-bad", func(context.Context, *client, int) (func(), error) { return nil, nil })
	const internal, done = `{"event":"error","data":{"message":"Internal error","code":"internal"},"id":1}`, `{"event":%q,"id":1}`
	const replied = `{"event":%q,"data":1,"id":1}`
	const refused = `{"event":"error","data":{"message":"No","code":"no"},"id":1}`
	const unknown = `{"event":"error","data":{"message":"Unknown event","code":"unknown_event"},"id":1}`
	clients := map[bool]*peer{true: r.extended("ada"), false: r.member("bob")}
	for _, tt := range []struct {
		event, data   string
		with, without string // the answers
	}{
		{"nothing", `1`, done, ``},
		{"fails", `1`, internal, ``},
		{"panics", `1`, internal, ``},
		{"exits", `1`, internal, ``},
		{"refuses", `1`, refused, refused},
		{"replies", `1`, replied, replied},
		{"replies-and-fails", `1`, replied, replied},
		{"replies-and-refuses", `1`, replied, replied + "\n" + refused},
		{"other-client-is-gone", `1`, internal, ``},
		{"later", `1`, ``, ``},
		{"typed", `1`, done, ``},
		{"typed", `"x"`, `{"event":"error","data":{"message":"Invalid data","code":"invalid_data"},"id":1}`, `{"event":"error","data":{"message":"Invalid data","code":"invalid_data"},"id":1}`},
		{"typed-fails", `1`, internal, internal},
		{"typed-panics", `1`, internal, internal},
		{"asked", `1`, `{"event":%q,"data":7,"id":1}`, `{"event":%q,"data":7,"id":1}`},
		{"asked-bad", `1`, internal, internal},
		{"connected", `1`, unknown, ``},
		{"disconnect", `1`, unknown, ``},
		{"error", `1`, unknown, ``},
		{"encrypted", `1`, unknown, ``},
	} {
		for with, p := range clients {
			answers := tt.without
			if with {
				answers = tt.with
			}
			p.text(fmt.Sprintf(`{"event":%q,"data":%s,"id":1}`, tt.event, tt.data))
			p.text(fmt.Sprintf(`{"event":%q,"data":%s}`, "nothing", tt.data)) // never answered
			p.text(`{"event":"asked","data":0,"id":"end"}`)
			p.wantsAll(tt.event, answers, `{"event":"asked","data":7,"id":"end"}`)
		}
	}
}

// wantsAll takes messages up to last. Those before must be want, one a line, with the event in
// place of %q.
func (p *peer) wantsAll(event, want, last string) {
	p.t.Helper()
	got := ""
	for m := p.next(); m.text != last; m = p.next() {
		if m.text == "" {
			p.t.Fatalf("%s: %v", event, m)
		}
		if got != "" {
			got += "\n"
		}
		got += m.text
	}
	if quoted := fmt.Sprintf("%q", event); got != strings.ReplaceAll(want, "%q", quoted) {
		p.t.Errorf("%s: got %s\nwant %s", event, got, want)
	}
}

// TestUnknownEventAnswers checks the answers of a server without a message handler.
func TestUnknownEventAnswers(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	p := r.extended("ada")
	for i, event := range []string{"anything", "connected", "resync"} {
		p.text(fmt.Sprintf(`{"event":%q}`, event))
		p.text(fmt.Sprintf(`{"event":%q,"id":null}`, event))
		p.wants(`{"event":"error","data":{"message":"Unknown event","code":"unknown_event"},"id":null}`)
		r.counts(func(s hearth.Stats) bool { return s.MessagesUnhandled == uint64(2*i+2) })
	}
}

// TestReplyOnce checks which calls of Reply succeed for a client with the extension.
func TestReplyOnce(t *testing.T) {
	t.Parallel()
	type call struct {
		c *client
		m hearth.Message
	}
	late := make(chan call, 10)
	r := start(t, config{Message: func(_ context.Context, c *client, m hearth.Message) error {
		late <- call{c, m}
		switch m.Event {
		case "twice":
			first, second := c.Reply(m, 1), c.Reply(m, 2)
			if first != nil || !errors.Is(second, hearth.ErrReplied) {
				t.Errorf("the first reply: %v; the second: %v", first, second)
			}
		case "later":
			return hearth.ErrReplyLater
		}
		return nil
	}})
	p := r.extended("ada")
	p.text(`{"event":"twice","id":1}`)
	p.wants(`{"event":"twice","data":1,"id":1}`)
	<-late

	p.text(`{"event":"completed","id":2}`)
	p.wants(`{"event":"completed","id":2}`)
	if completed := <-late; !errors.Is(completed.c.Reply(completed.m, 1), hearth.ErrReplied) {
		t.Error("a request was answered after its completion")
	}

	p.text(`{"event":"later","id":3}`)
	p.text(`{"event":"next","id":4}`)
	p.wants(`{"event":"next","id":4}`)
	later := <-late
	var replies sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		replies.Go(func() { errs <- later.c.Reply(later.m, "late") })
	}
	replies.Wait()
	close(errs)
	sent := 0
	for err := range errs {
		if err == nil {
			sent++
		} else if !errors.Is(err, hearth.ErrReplied) {
			t.Error(err)
		}
	}
	p.wants(`{"event":"later","data":"late","id":3}`)
	if sent != 1 {
		t.Errorf("%d replies were sent", sent)
	}
	if n := r.Stats().CallbackErrors; n != 0 {
		t.Errorf("%d callback errors", n)
	}

	// the reply to a message of another client is an event like any other
	other := r.member("bob")
	must(t, r.client(other).Reply(later.m, 1))
	other.wants(`{"event":"later","data":1,"id":3}`)
}
