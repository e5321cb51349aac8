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

	mu      sync.Mutex // guards the fields below
	running bool
	in      error // why the subscription does not work; nil: it does
	out     error // why there is no connection to publish
	echo    error // why the node's messages to itself don't leave, though there may be one
	whole   error // why not all that is held is subscribed
	err     error
	state   broker.State
	since   time.Time
	reason  string
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
	case h.in != nil:
		state = broker.StateDown
	case h.out != nil || h.echo != nil || h.whole != nil:
		state = broker.StateDegraded
	}
	if state != h.state {
		h.state, h.since = state, time.Now()
	}
	h.reason = reasonOf(cmp.Or(h.in, h.out, h.echo, h.whole))
}

// publishing says whether there is a connection to publish: nil, or why there is none.
func (h *health) publishing(err error) { h.update(func() { h.out = err }) }

// end is for a broker that is closed: nothing is wrong with it any more.
func (h *health) end() {
	h.update(func() { h.running, h.in, h.out, h.echo, h.whole = false, nil, nil, nil, nil })
}

func (h *health) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

func (h *health) get() broker.Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	return broker.Health{
		State: h.state, Since: h.since, Err: h.err, Reason: h.reason,
		Published: h.published.Load(), Delivered: h.delivered.Load(), Dropped: h.dropped.Load(),
		Uncertain: h.uncertain.Load(), Lost: h.lost.Load(), Losses: h.losses.Load(), Malformed: h.malformed.Load(),
	}
}

// A throttle logs the first of many events of a kind, and then one line every few seconds that counts them.
type throttle struct {
	logger  *slog.Logger
	text    string
	reasons bool // the errors are such as reasonOf has a word for
	lines   *ratelog.Limiter
}

const logInterval = 10 * time.Second

func newThrottle(l *slog.Logger, text string) *throttle {
	return &throttle{logger: l, text: text, lines: ratelog.New(logInterval)}
}

// newReasoned makes a throttle for what Redis is the reason of.
func newReasoned(l *slog.Logger, text string) *throttle {
	t := newThrottle(l, text)
	t.reasons = true
	return t
}

func (t *throttle) log(err error, about ...any) {
	if skipped, due := t.lines.Allow(); due {
		args := []any{"messages", skipped + 1, "error", err}
		if t.reasons {
			args = append(args, "reason", reasonOf(err))
		}
		t.logger.Warn(t.text, append(args, about...)...)
	}
}

// A backoff is how long to wait between attempts.
type backoff struct{ min, max, last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, b.min), b.max)
	return b.last - rand.N(b.last/2+1)
}

func (b *backoff) reset() { b.last = 0 }
