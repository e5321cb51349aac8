package session

import (
	"runtime"
	"sync"

	"github.com/hearthws/hearth/internal/ws"
)

// An inflateLimiter lets half of the processors inflate, at least one. Few bytes inflate to many: with
// every processor at that, event loops would wait for one, as Go's scheduler lets a goroutine run
// for 10 ms. Those who wait go in their order.
type inflateLimiter struct {
	once   sync.Once
	places chan struct{}
}

func (t *inflateLimiter) acquire() {
	t.once.Do(func() { t.places = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)) })
	t.places <- struct{}{}
}

func (t *inflateLimiter) release() { <-t.places }

// yield lets those who wait go first.
func (t *inflateLimiter) yield() {
	t.release()
	t.acquire()
}

// inflate is ws.InflateMessage for a message of a session. It blocks while all places are taken.
func (t *inflateLimiter) inflate(m message, limit int) ([]byte, error) {
	t.acquire()
	defer t.release()
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
		if e := s.rateExceeded(); !ok {
			e.drop = true
			if s.closeNow(e) {
				s.countDiscarded(1)
				return nil, false
			}
		}
		return payload, true
	}
	if e := s.violation(err); e != nil {
		e.drop = true
		if !s.closeNow(*e) { // the peer has closed meanwhile
			s.env.Stats.BadMessages.Add(1)
			s.countDiscarded(s.drop())
		}
	}
	return nil, false
}
