package session

import (
	"runtime"
	"sync"

	"github.com/hearthws/hearth/internal/ws"
)

// An inflateLimiter lets half of the processors inflate messages, at least one. A few bytes
// inflate to many. If every processor did that, event loops would wait for one, as Go's scheduler
// lets a goroutine run for 10 ms. Goroutines get their place in the order of their calls.
type inflateLimiter struct {
	once   sync.Once
	places chan struct{}
}

func (l *inflateLimiter) acquire() {
	l.once.Do(func() { l.places = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)) })
	l.places <- struct{}{}
}

func (l *inflateLimiter) release() { <-l.places }

// yield lets goroutines that wait go first.
func (l *inflateLimiter) yield() {
	l.release()
	l.acquire()
}

// inflate inflates m to at most limit bytes. It blocks while all places are taken.
func (l *inflateLimiter) inflate(m message, limit int) ([]byte, error) {
	l.acquire()
	defer l.release()
	return ws.InflateMessage(m.deflate, m.payload, limit, l.yield)
}

// inflate returns the inflated message of j. A message that violates the protocol or exceeds the
// rates ends the session at once, as it would have on arrival: the messages after it are dropped.
// inflate returns false if the message is dropped.
func (w worker) inflate(j job) (payload []byte, ok bool) {
	limit := w.env.Limits.UnauthenticatedPayload
	if j.grants.has(admitted) {
		limit = w.env.Limits.MaxPayload
	}
	payload, err := w.env.inflating.inflate(j.message, limit)
	if err != nil {
		if req := w.env.violation(err); req != nil {
			req.drop = true
			if !w.closeNow(*req) { // the session has ended before
				w.env.Stats.BadMessages.Add(1)
				w.discardInput()
			}
		}
		return nil, false
	}
	w.mu.Lock()
	ok = w.withinRatesLocked(w.env.Clock.Now(), 0, len(payload))
	w.mu.Unlock()
	if !ok {
		req := w.env.rateExceeded()
		req.drop = true
		if w.closeNow(req) {
			w.countDiscarded(1)
			return nil, false
		}
	}
	return payload, true
}
