package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth"
)

// A question is one that a client has received.
type question struct {
	Ask   int
	Event string
	Data  json.RawMessage
}

// question takes the next message, which must be a question.
func (p *peer) question() (q question) {
	p.t.Helper()
	event, data := p.event()
	if err := json.Unmarshal(data, &q); err != nil || event != "hearth:ask" || q.Ask == 0 {
		p.t.Fatalf("got %s %s, want a question (%v)", event, data, err)
	}
	return q
}

func (q question) answer(data string) string {
	return fmt.Sprintf(`{"event":"hearth:answer","data":{"ask":%d,"data":%s}}`, q.Ask, data)
}

const asks = `"hearth":{"version":1,"features":["ask"]}`

// askable connects and authenticates a client that answers questions.
func (r *rig) askable(user string) *peer {
	r.t.Helper()
	p := r.peer()
	p.text(`{"event":"authenticate","data":{"as":"` + user + `","name":"` + user + `"},` + asks + `}`)
	if got := p.next().text; !strings.Contains(got, `"features":["ask"]`) {
		r.t.Fatalf("got %s", got)
	} else {
		p.id = got[len(`{"event":"connected","data":{"id":"`):][:36]
	}
	return p
}

// outcome is what Ask has returned.
type outcome struct {
	answer int
	err    error
}

// ask calls Ask on another goroutine.
func (r *rig) ask(ctx context.Context, p *peer) <-chan outcome {
	c, done := r.client(p), make(chan outcome, 1)
	go func() { // ends with the answer or with ctx
		answer, err := hearth.Ask[int](ctx, c, "count", "x")
		done <- outcome{answer, err}
	}()
	return done
}

// TestAsk checks what Ask returns for which answer.
func TestAsk(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport})
		p, other := r.askable("ada"), r.askable("bob")
		for _, tt := range []struct {
			data string // of the answer, after the number
			want int
			fail string
		}{
			{`,"data":7`, 7, ""},
			{``, 0, ""},
			{`,"data":null`, 0, ""},
			{`,"data":"x"`, 0, "decode the answer"},
			{`,"error":{"message":"No","code":"no"}`, 0, `"no": "No"`},
			{`,"data":7,"error":1`, 0, `"": ""`},
		} {
			done := r.ask(t.Context(), p)
			q := p.question()
			if q.Event != "count" || string(q.Data) != `"x"` {
				t.Errorf("question %+v", q)
			}
			other.text(fmt.Sprintf(`{"event":"hearth:answer","data":{"ask":%d,"data":9}}`, q.Ask)) // is not for it
			r.counts(func(s hearth.Stats) bool { return s.AnswersLate >= 1 })
			p.text(fmt.Sprintf(`{"event":"hearth:answer","data":{"ask":%d%s},"id":1}`, q.Ask, tt.data))
			p.wants(`{"event":"hearth:answer","id":1}`)
			got := <-done
			if got.answer != tt.want || (got.err == nil) != (tt.fail == "") || got.err != nil && !strings.Contains(got.err.Error(), tt.fail) {
				t.Errorf("%s: got %d, %v", tt.data, got.answer, got.err)
			}
			var refused *hearth.AnswerError
			if errors.As(got.err, &refused) != strings.Contains(tt.data, "error") {
				t.Errorf("%s: %v", tt.data, got.err)
			}
		}
		before := r.Stats().AnswersLate
		p.text(`{"event":"hearth:answer","data":{"ask":1},"id":1}`) // a second answer
		p.wants(`{"event":"hearth:answer","id":1}`)
		p.text(`{"event":"hearth:answer","data":{},"id":1}`)
		p.wants(`{"event":"error","data":{"message":"Unknown event","code":"unknown_event"},"id":1}`)
		r.counts(func(s hearth.Stats) bool { return s.AnswersLate == before+1 && s.MessagesUnhandled == 1 })
	})
}

// TestAskFails checks the errors of Ask without an answer.
func TestAskFails(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	for _, p := range []*peer{r.member("ada"), r.extended("bob")} {
		if got := <-r.ask(t.Context(), p); !errors.Is(got.err, hearth.ErrCannotAsk) {
			t.Errorf("a client without the feature: %v", got.err)
		}
		p.say("hearth:answer", `{"ask":1}`) // dropped like any event of the protocol
		r.counts(func(s hearth.Stats) bool { return s.MessagesUnhandled >= 1 })
	}
	if n := r.Stats().AnswersLate; n != 0 {
		t.Errorf("%d late answers", n)
	}
	p := r.askable("eve")
	if _, err := hearth.Ask[int](t.Context(), r.client(p), "hearth:x", nil); err == nil {
		t.Error("a reserved event was asked")
	}
	if _, err := hearth.Ask[int](t.Context(), r.client(p), "x", func() {}); err == nil {
		t.Error("data that cannot be encoded was asked")
	}
	if _, err := hearth.Ask[int](t.Context(), new(client), "x", nil); !errors.Is(err, hearth.ErrNotConnected) {
		t.Errorf("the zero Client: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got := <-r.ask(ctx, p); !errors.Is(got.err, context.DeadlineExceeded) {
		t.Errorf("without an answer: %v", got.err)
	}
	late := p.question()
	p.text(late.answer("1"))
	r.counts(func(s hearth.Stats) bool { return s.AnswersLate == 1 })

	// at most 64 questions wait for a client
	ctx, cancel = context.WithCancel(t.Context())
	var waiting []<-chan outcome
	for range 64 {
		waiting = append(waiting, r.ask(ctx, p))
		p.question()
	}
	if got := <-r.ask(ctx, p); !errors.Is(got.err, hearth.ErrTooManyQuestions) {
		t.Errorf("one question too many: %v", got.err)
	}
	cancel()
	for _, w := range waiting {
		if got := <-w; !errors.Is(got.err, context.Canceled) {
			t.Errorf("cancelled: %v", got.err)
		}
	}
	// and then others can be asked
	done := r.ask(t.Context(), p)
	p.text(p.question().answer("3"))
	if got := <-done; got.answer != 3 || got.err != nil {
		t.Errorf("then: %+v", got)
	}
	done = r.ask(t.Context(), p)
	p.question()
	p.hangUp()
	if got := <-done; !errors.Is(got.err, hearth.ErrNotConnected) {
		t.Errorf("after a disconnect: %v", got.err)
	}
}

// TestAskInCallbacks checks that a callback can ask its own client: the answer is found behind
// messages that wait for the callback, in whatever form it is sent, and these messages are handled
// in their order afterwards.
func TestAskInCallbacks(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{
			Transport: transport, Compression: true, Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional},
			Connected: func(ctx context.Context, c *client) {
				answer, err := hearth.Ask[string](ctx, c, "first", nil)
				_ = c.Send("connected-with", fmt.Sprint(answer, err))
			},
			Message: func(ctx context.Context, c *client, m hearth.Message) error {
				if m.Event != "delete" {
					return c.Send("echo", m.Event)
				}
				answer, err := hearth.Ask[bool](ctx, c, "sure", m.Data)
				if err != nil {
					return err
				}
				return c.Reply(m, answer)
			},
		})
		encrypted := r.encryptedPeer()
		plain, compressed := r.peer(), r.coderPeer(websocket.CompressionContextTakeover)
		// The client compresses only long messages.
		sendLong := func(text string) { compressed.text(text + strings.Repeat(" ", 2000)) }
		for name, s := range map[string]struct {
			p     *peer
			send  func(string)
			wants func(string)
			next  func() string
		}{
			"plain":      {plain, plain.text, plain.wants, func() string { return plain.next().text }},
			"compressed": {compressed, sendLong, compressed.wants, func() string { return compressed.next().text }},
			"encrypted":  {encrypted.peer, encrypted.sendSealed, encrypted.wantsSealed, encrypted.nextOpened},
		} {
			take := func() (q question) {
				t.Helper()
				var e struct{ Data question }
				text := s.next()
				if err := json.Unmarshal([]byte(text), &e); err != nil || !strings.HasPrefix(text, `{"event":"hearth:ask"`) {
					t.Fatalf("%s: got %s, want a question", name, text)
				}
				return e.Data
			}
			key := ""
			if name == "encrypted" {
				key = `,"publicKey":"` + encrypted.key.PublicKey().String() + `"`
			}
			s.p.text(`{"event":"authenticate","data":{"as":"ada"` + key + `},` + asks + `}`)
			if name == "encrypted" {
				encrypted.takeKeys()
			} else {
				s.p.welcome()
			}
			first := take()
			s.send(`{"event":"early"}`)
			s.send(first.answer(`"hi"`))
			s.wants(`{"event":"connected-with","data":"hi<nil>"}`)
			s.wants(`{"event":"echo","data":"early"}`)
			for i := range 3 {
				s.send(fmt.Sprintf(`{"event":"delete","data":%d,"id":"r%d"}`, i, i))
				s.send(`{"event":"one"}`)
				s.send(`{"event":"two"}`)
				q := take()
				s.send(`{"event":"three"}`)
				s.send(q.answer("true"))
				s.wants(fmt.Sprintf(`{"event":"delete","data":true,"id":"r%d"}`, i))
				for _, event := range []string{"one", "two", "three"} {
					s.wants(`{"event":"echo","data":"` + event + `"}`)
				}
			}
			// the client disconnects while its handler waits
			s.send(`{"event":"delete","id":"last"}`)
			take()
			s.p.hangUp()
			r.counts(func(st hearth.Stats) bool { return st.Clients == 0 })
		}
		if n := r.Stats().CallbackErrors; n != 0 {
			t.Errorf("%d callback errors", n)
		}
	})
}

// TestAskEach checks which clients are asked, and what f gets.
func TestAskEach(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	var peers []*peer
	for i := range 20 {
		peers = append(peers, r.askable(fmt.Sprint("u", i)))
	}
	without, silent, gone := r.member("without"), r.askable("silent"), r.askable("gone")
	for _, p := range append(peers, without, silent, gone) {
		must(t, joinRoom(t.Context(), r, p.id, "room"))
	}
	for i, p := range append(peers, silent, gone) {
		if i == 0 {
			continue // excluded
		}
		go func() { // ends with the answer
			q := p.question()
			switch p {
			case gone:
				p.hangUp()
			case silent:
			default:
				p.text(q.answer(fmt.Sprint(i)))
			}
		}()
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var answers []int
	var failures []string
	var calls atomic.Int32
	err := hearth.AskEach(ctx, r.Local(), hearth.ToRoom("room").Except(peers[0].id), "vote", nil, func(c *client, answer int, err error) {
		switch {
		case errors.Is(err, hearth.ErrCannotAsk):
			failures = append(failures, "cannot "+c.UserID())
		case errors.Is(err, hearth.ErrNotConnected):
			failures = append(failures, "gone "+c.ID())
		case err != nil:
			t.Errorf("%s: %v", c.ID(), err)
		default:
			answers = append(answers, answer)
			if want := fmt.Sprint("u", answer); c.UserID() != want {
				t.Errorf("%s answered as %s", c.UserID(), want)
			}
		}
		if calls.Add(1) == 21 { // all except the silent client
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	slices.Sort(answers)
	slices.Sort(failures)
	if len(answers) != 19 || answers[0] != 1 || answers[18] != 19 || fmt.Sprint(failures) != "[cannot without gone "+gone.id+"]" {
		t.Errorf("answers %v, failures %q", answers, failures)
	}
	if err := hearth.AskEach(t.Context(), r.Local(), hearth.ToRoom("empty"), "vote", nil, func(*client, int, error) { t.Error("called") }); err != nil {
		t.Errorf("an empty target: %v", err)
	}
}
