package redis

import (
	"cmp"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/ratelog"
)

// health is what Broker.Health tells.
type health struct {
	published, delivered, dropped, uncertain, lost, losses, malformed atomic.Uint64

	mu          sync.Mutex // guards the fields below
	running     bool
	receiveErr  error // why the subscription does not work; nil: it does
	publishErr  error // why there is no connection to publish
	probeErr    error // why the node's messages to itself don't leave, though there may be one
	channelsErr error // why not all that is held is subscribed
	lastErr     error
	state       broker.State
	since       time.Time
	reason      string
}

// update changes what state follows from.
func (h *health) update(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	state := broker.StateOK
	switch {
	case !h.running:
		state = broker.StateIdle
	case h.receiveErr != nil:
		state = broker.StateDown
	case h.publishErr != nil || h.probeErr != nil || h.channelsErr != nil:
		state = broker.StateDegraded
	}
	if state != h.state {
		h.state, h.since = state, time.Now()
	}
	h.reason = reasonOf(cmp.Or(h.receiveErr, h.publishErr, h.probeErr, h.channelsErr))
}

// publishing says whether there is a connection to publish: nil, or why there is none.
func (h *health) setPublishErr(err error) { h.update(func() { h.publishErr = err }) }

// end is for a broker that is closed: nothing is wrong with it any more.
func (h *health) closed() {
	h.update(func() { h.running, h.receiveErr, h.publishErr, h.probeErr, h.channelsErr = false, nil, nil, nil, nil })
}

func (h *health) setError(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastErr = err
}

func (h *health) get() broker.Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	return broker.Health{
		State: h.state, Since: h.since, Err: h.lastErr, Reason: h.reason,
		Published: h.published.Load(), Delivered: h.delivered.Load(), Dropped: h.dropped.Load(),
		Uncertain: h.uncertain.Load(), Lost: h.lost.Load(), Losses: h.losses.Load(), Malformed: h.malformed.Load(),
	}
}

// A throttle logs the first of many events of a kind, and then one line every few seconds that counts them.
type limitedLog struct {
	logger     *slog.Logger
	message    string
	withReason bool // the errors are such as reasonOf has a word for
	limiter    *ratelog.Limiter
}

const logInterval = 10 * time.Second

func newLimitedLog(l *slog.Logger, text string) *limitedLog {
	return &limitedLog{logger: l, message: text, limiter: ratelog.New(logInterval)}
}

// newReasoned makes a throttle for what Redis is the reason of.
func newReasonLog(l *slog.Logger, text string) *limitedLog {
	t := newLimitedLog(l, text)
	t.withReason = true
	return t
}

func (t *limitedLog) warn(err error, about ...any) {
	if skipped, due := t.limiter.Allow(); due {
		args := []any{"messages", skipped + 1, "error", err}
		if t.withReason {
			args = append(args, "reason", reasonOf(err))
		}
		t.logger.Warn(t.message, append(args, about...)...)
	}
}

// A backoff is how long to wait between attempts.
type backoff struct{ min, max, last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, b.min), b.max)
	return b.last - rand.N(b.last/2+1)
}

func (b *backoff) reset() { b.last = 0 }
