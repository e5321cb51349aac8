package session

import (
	"runtime"
	"sync"

	"github.com/hearthws/hearth/internal/ws"
)

// A turnstile lets half of the processors inflate, at least one. Few bytes inflate to many: with
// every processor at that, event loops would wait for one, as Go's scheduler lets a goroutine run
// for 10 ms. Those who wait go in their order.
type turnstile struct {
	once   sync.Once
	places chan struct{}
}

func (t *turnstile) enter() {
	t.once.Do(func() { t.places = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)) })
	t.places <- struct{}{}
}

func (t *turnstile) leave() { <-t.places }

// yield lets those who wait go first.
func (t *turnstile) yield() {
	t.leave()
	t.enter()
}

// inflate is ws.InflateMessage for a message of a session. It blocks while all places are taken.
func (t *turnstile) inflate(m message, limit int) ([]byte, error) {
	t.enter()
	defer t.leave()
	return ws.InflateMessage(m.deflate, m.payload, limit, t.yield)
}

// inflate returns a message as it is without compression. False: it is dropped. A message against
// the rules ends the session as it would have on arrival: what came behind it is not handled.
func (s *Session) inflate(t task) (payload []byte, ok bool) {
	limit := s.env.Limits.UnauthenticatedPayload
	if t.admitted {
		limit = s.env.Limits.MaxPayload
	}
	payload, err := s.env.inflating.inflate(t.message, limit)
	if err == nil {
		s.mu.Lock()
		ok = s.withinRatesLocked(s.env.Clock.Now(), 0, len(payload))
		s.mu.Unlock()
		if e := s.tooFast(); !ok {
			e.drop = true
			if s.end(e) {
				s.discarded(1)
				return nil, false
			}
		}
		return payload, true
	}
	if e := s.violation(err); e != nil {
		e.drop = true
		if !s.end(*e) { // the peer has closed meanwhile
			s.env.Stats.BadMessages.Add(1)
			s.discarded(s.drop())
		}
	}
	return nil, false
}
