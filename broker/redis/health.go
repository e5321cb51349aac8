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

// health is the state behind Broker.Health.
type health struct {
	published, delivered, dropped, uncertain, lost, losses, malformed atomic.Uint64

	mu          sync.Mutex // guards the fields below
	running     bool
	receiveErr  error // why the subscription does not work; nil if it does
	publishErr  error // why there is no connection to publish; nil if there is one
	probeErr    error // why Redis rejects the node's probes; nil if it does not
	channelsErr error // why some held channels are not subscribed; nil if all are
	lastErr     error
	state       broker.State
	since       time.Time
	reason      string
}

// update applies a change and derives the state and the reason from it.
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

// setPublishErr records why there is no connection to publish, or with nil that there is one.
func (h *health) setPublishErr(err error) { h.update(func() { h.publishErr = err }) }

// closed records that the broker is closed, which is no failure.
func (h *health) closed() {
	h.update(func() { h.running, h.receiveErr, h.publishErr, h.probeErr, h.channelsErr = false, nil, nil, nil, nil })
}

// setError sets the last error.
func (h *health) setError(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastErr = err
}

// get returns the health.
func (h *health) get() broker.Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	return broker.Health{
		State: h.state, Since: h.since, Err: h.lastErr, Reason: h.reason,
		Published: h.published.Load(), Delivered: h.delivered.Load(), Dropped: h.dropped.Load(),
		Uncertain: h.uncertain.Load(), Lost: h.lost.Load(), Losses: h.losses.Load(), Malformed: h.malformed.Load(),
	}
}

// A limitedLog logs the first of many events of a kind, and then at most one line in each
// logInterval, which counts them. Unlike ratelog.Handler it formats nothing for the others: other
// programs decide how many malformed messages they publish.
type limitedLog struct {
	logger     *slog.Logger
	message    string
	withReason bool // add the attribute "reason"
	limiter    *ratelog.Limiter
}

const logInterval = 10 * time.Second

func newLimitedLog(l *slog.Logger, text string) *limitedLog {
	return &limitedLog{logger: l, message: text, limiter: ratelog.New(logInterval)}
}

// newReasonLog makes a log whose lines have the reason that Redis gave.
func newReasonLog(l *slog.Logger, text string) *limitedLog {
	t := newLimitedLog(l, text)
	t.withReason = true
	return t
}

// warn counts an event, and logs it unless a line was logged recently.
func (t *limitedLog) warn(err error, about ...any) {
	if skipped, due := t.limiter.Allow(); due {
		args := []any{"messages", skipped + 1, "error", err}
		if t.withReason {
			args = append(args, "reason", reasonOf(err))
		}
		t.logger.Warn(t.message, append(args, about...)...)
	}
}

// A backoff is the sequence of pauses between attempts: each is twice the last one, cut by a random
// part.
type backoff struct{ min, max, last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, b.min), b.max)
	return b.last - rand.N(b.last/2+1)
}

func (b *backoff) reset() { b.last = 0 }
