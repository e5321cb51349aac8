package session

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

const (
	maxAwaited          = 1 << 16 // answers that a server waits for
	maxAwaitedPerClient = 64
	maxBufferedAnswers  = 64 // of one question, while the caller of Ask handles an earlier one
)

var (
	// ErrTooManyQuestions is returned by Ask if the server, or the client, waits for too many
	// answers.
	ErrTooManyQuestions = errors.New("too many questions wait for answers")

	// ErrCannotAsk is returned by Ask for a client without protocol.FeatureAsk.
	ErrCannotAsk = errors.New("the client does not answer questions")
)

// An Answer is the answer of a client, or the reason why there is none.
type ClientAnswer struct {
	Session *Session
	Data    json.RawMessage
	// Refused is the error that the client answered; nil if there is none.
	Refused *protocol.ClientError
	// Err is hub.ErrNotMember if the client has disconnected, ErrCannotAsk or ErrTooManyQuestions
	// if it was not asked, and another error of hub.SendTo if the question was not sent.
	Err error
}

// Ask sends a question to the sessions, which are different and have one Env, and calls answered
// for each of them, on this goroutine. It returns when all have answered, and the error of ctx if
// ctx is done before.
func Ask(ctx context.Context, sessions []*Session, event string, data json.RawMessage, answered func(ClientAnswer)) error {
	if len(sessions) == 0 {
		return ctx.Err()
	}
	q := sessions[0].env.questions.open(len(sessions))
	defer q.close()
	asked := make([]*Session, 0, len(sessions))
	var failed []ClientAnswer
	for _, s := range sessions {
		if err := q.add(s); err != nil {
			failed = append(failed, ClientAnswer{Session: s, Err: err})
		} else {
			asked = append(asked, s)
		}
	}
	left := len(asked)
	msg := ws.NewMessage(protocol.AppendAsk(nil, q.id, event, data))
	for _, s := range asked {
		if err := s.Send(msg); err != nil && q.remove(s) {
			failed = append(failed, ClientAnswer{Session: s, Err: err})
			left--
		}
	}
	for _, a := range failed {
		answered(a)
	}
	for ; left > 0; left-- {
		select {
		case a := <-q.answers:
			answered(a)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// questions are those of a server that wait for answers. The zero value has none.
type questions struct {
	// mu guards the fields below, and question.waiting. It may be taken under Session.mu.
	mu      sync.Mutex
	last    uint64 // the number of the newest question
	byID    map[uint64]*question
	awaited int // answers, of all questions
}

// A question was sent to one client or to many.
type question struct {
	// Set when made, then read-only.
	all     *questions
	id      uint64
	answers chan ClientAnswer
	done    chan struct{} // closed when the answers are not awaited any more

	waiting map[*Session]bool // that have not answered; guarded by questions.mu
}

// open makes a question for up to n clients. The caller calls close.
func (x *questions) open(n int) *question {
	q := &question{
		all: x, answers: make(chan ClientAnswer, min(n, maxBufferedAnswers)), done: make(chan struct{}), waiting: make(map[*Session]bool, n),
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byID == nil {
		x.byID = make(map[uint64]*question)
	}
	x.last++
	q.id = x.last
	x.byID[q.id] = q
	return q
}

// add makes q wait for the answer of s.
func (q *question) add(s *Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended():
		return hub.ErrNotMember
	case !s.grants.has(askable):
		return ErrCannotAsk
	case s.transient != nil && len(s.transient.questions) >= maxAwaitedPerClient:
		return ErrTooManyQuestions
	}
	q.all.mu.Lock()
	defer q.all.mu.Unlock()
	if q.all.awaited >= maxAwaited {
		return ErrTooManyQuestions
	}
	q.all.awaited++
	q.waiting[s] = true
	t := s.transientLocked()
	t.questions = append(t.questions, q)
	return nil
}

// remove makes q no longer wait for s. It returns false if it did not.
func (q *question) remove(s *Session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.all.mu.Lock()
	defer q.all.mu.Unlock()
	if !q.waiting[s] {
		return false
	}
	delete(q.waiting, s)
	q.all.awaited--
	t := s.transient
	if i := slices.Index(t.questions, q); i >= 0 {
		t.questions = slices.Delete(t.questions, i, i+1)
	}
	s.transient = t.orNil()
	return true
}

// close ends the wait for answers.
func (q *question) close() {
	close(q.done)
	q.all.mu.Lock()
	delete(q.all.byID, q.id)
	var left []*Session
	for s := range q.waiting {
		left = append(left, s)
	}
	q.all.mu.Unlock()
	for _, s := range left {
		q.remove(s)
	}
}

// find returns the question with that number, or nil.
func (x *questions) find(id uint64) *question {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.byID[id]
}

// deliver passes on what a client answers to q, or that it cannot. It blocks while many earlier
// answers are being handled. It returns false if the answer is not awaited any more.
func (q *question) deliver(a ClientAnswer) bool {
	if q == nil || !q.remove(a.Session) {
		return false
	}
	select {
	case q.answers <- a:
		return true
	case <-q.done:
		return false
	}
}

// answer handles the answer of a client to a question.
func (s answering) answer(e protocol.Envelope) {
	a, ok := protocol.ParseAnswer(e.Data)
	r := worker(s).newRequest(e, extension)
	if !ok {
		worker(s).unhandled(e.Event, "it answers no question", r)
		return
	}
	r.complete()
	if !s.env.questions.find(a.Ask).deliver(ClientAnswer{Session: s.Session, Data: a.Data, Refused: a.Error}) {
		s.env.Stats.AnswersLate.Add(1)
		s.Debug("answer dropped because it is not awaited", "question", a.Ask)
	}
}

// An answering is a Session on a goroutine of the pool that looks for answers in its inbox. The
// worker handles the messages in order, and cannot reach an answer while a callback waits for it.
// So the answering takes answers out of the order. It is a workpool.Task. There is at most one for
// a session at a time.
type answering struct{ *Session }

// lookForAnswersLocked starts an answering if an answer may be in the inbox, behind a callback that
// waits for it.
func (s answering) lookForAnswersLocked() {
	t, box := s.transient, &s.inbox
	if t == nil || len(t.questions) == 0 || t.answering || !box.running && !box.connecting && !s.ended() {
		return
	}
	t.answering = true
	s.env.Pool.Submit(s)
}

// Run handles the answers in the inbox. When the client has disconnected, it then reports that the
// other questions are not answered. It implements workpool.Task.
func (s answering) Run() {
	for {
		s.mu.Lock()
		m := s.inbox.nextUnseen()
		if m == nil {
			t := s.transient
			t.answering = false
			var left []*question
			if s.ended() {
				left = slices.Clone(t.questions)
			}
			s.transient = t.orNil()
			s.mu.Unlock()
			for _, q := range left {
				q.deliver(ClientAnswer{Session: s.Session, Err: hub.ErrNotMember})
			}
			return
		}
		m.seen = true
		msg, g := m.message, s.grants
		s.mu.Unlock()
		if e, ok := s.answerIn(msg, g); ok && s.take(m, len(e.Data)) {
			s.answer(e)
		}
	}
}

// take takes a message with size bytes of data out of the inbox. It returns false if the worker has
// the message, or has to close the client because of it.
func (s answering) take(m *inboxMessage, size int) bool {
	now := s.env.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.popped || m.deflate != 0 && !s.withinRatesLocked(now, 0, size) {
		return false
	}
	m.handled = true
	return true
}

// answerIn returns the envelope in msg if it is an answer. The worker deals with all other
// messages, also if they are invalid.
func (s answering) answerIn(msg message, g grants) (protocol.Envelope, bool) {
	payload := msg.payload
	var err error
	if msg.deflate != 0 {
		if payload, err = s.env.inflating.inflate(msg, s.env.Limits.MaxPayload); err != nil {
			return protocol.Envelope{}, false
		}
	}
	e, err := protocol.ParseEnvelope(payload)
	if cipher := s.member.Cipher(); err == nil && cipher != nil {
		switch {
		case e.Event == protocol.EventEncrypted:
			if payload, err = cipher.OpenData(nil, e.Data); err == nil {
				e, err = protocol.ParseEnvelope(payload)
			}
		case s.env.Encryption.Only:
			return e, false
		}
	}
	return e, err == nil && e.Event == protocol.EventAnswer && g.has(askable)
}
