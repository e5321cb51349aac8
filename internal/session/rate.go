package session

import (
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/protocol"
)

// rateWindow is how many seconds of its rates a client may use at once.
const rateWindow = 10 * time.Second

const reasonRate = "Rate limit exceeded"

// rates are the buckets of one client. They exist only where rates are limited.
type rates struct {
	messages, bytes bucket
	paused          clock.Instant // when the client was last paused
}

// A bucket is a token bucket, kept as the time at which it is full again.
type bucket struct {
	full clock.Instant
	late bool // full may be in the past: what comes now may have been sent then
}

// take takes what is worth d from a bucket that takes size to fill. False: there is not so much in
// it.
func (b *bucket) take(now clock.Instant, d, size time.Duration) bool {
	if !b.late || b.full > now {
		b.late = false
		b.full = max(b.full, now)
	}
	if full := b.full.Add(d); full.Sub(now) <= size {
		b.full = full
		return true
	}
	return false
}

// resume says that the client was not read from since then: it may have gone on sending at its
// rate.
func (b *bucket) resume(since clock.Instant) {
	if !b.late { // else it has not caught up with an earlier pause yet
		b.full = max(b.full, since)
		b.late = true
	}
}

// withinRatesLocked counts what the client has sent against its rates. False: it is too much.
func (s *Session) withinRatesLocked(now clock.Instant, messages, bytes int) bool {
	l := &s.env.Limits
	if l.MessageRate <= 0 && l.ByteRate <= 0 {
		return true
	}
	r := s.rareLocked()
	if r.rates == nil {
		r.rates = &rates{}
	}
	if l.MessageRate > 0 && !r.rates.messages.take(now, perSecond(messages, l.MessageRate), rateWindow) {
		return false
	}
	size := max(rateWindow, perSecond(l.MaxPayload, l.ByteRate)) // the largest message must fit
	return l.ByteRate <= 0 || r.rates.bytes.take(now, perSecond(bytes, l.ByteRate), size)
}

// perSecond is how long n take at a rate.
func perSecond(n, rate int) time.Duration {
	return time.Duration(n) * time.Second / time.Duration(max(1, rate))
}

// tooFast is how a client ends that sends more than its rates allow.
func (s *Session) tooFast() ending {
	return ending{code: protocol.ClosePolicyViolation, reason: reasonRate, counter: &s.env.Stats.RateLimited}
}
