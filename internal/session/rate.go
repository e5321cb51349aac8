package session

import (
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/protocol"
)

// rateWindow is the size of a bucket: how much of its rate a client may use at once.
const rateWindow = 10 * time.Second

const reasonRate = "Rate limit exceeded"

// rates are the buckets of one client. They exist only where rates are limited.
type rates struct{ messages, bytes bucket }

// A bucket is a token bucket. Tokens are counted as the time that it takes to refill them.
//
// While the client is paused, it may go on sending at its rate, and the server reads that later. So
// the bucket refills past its size then. What it holds past its size is credit.
type bucket struct {
	used   time.Duration // less than 0: -used is the credit that is left
	credit time.Duration // the limit of -used: the credit after the last pause, less idle time
	at     clock.Instant // when used was last updated
}

// advance refills the bucket for the time since the last update.
//
// A client needs time to send what it could not send in a pause. Its rate counts in this time too,
// so used may fall while credit is left. A client that is idle then has nothing left to send: time
// in which the bucket refills past the credit reduces the credit.
func (b *bucket) advance(now clock.Instant, paused bool) {
	elapsed := now.Sub(b.at)
	if elapsed <= 0 { // the rest of a read is counted at the time of the read
		return
	}
	b.at = now
	b.used -= elapsed
	if paused {
		b.credit = max(b.credit, -b.used)
	} else if idle := -b.used - b.credit; idle > 0 {
		b.credit = max(0, b.credit-idle)
		b.used = -b.credit
	}
}

// take takes tokens from a bucket of this size. It returns false, and takes none, if there are not
// enough.
func (b *bucket) take(tokens, size time.Duration) bool {
	if tokens > 0 && b.used+tokens > size {
		return false
	}
	b.used += tokens
	if b.used >= 0 {
		b.credit = 0
	}
	return true
}

// advanceRates refills the client's buckets. Call it before inbox.paused changes.
func (t *transient) advanceRates(now clock.Instant, paused bool) {
	if t != nil && t.rates != nil {
		t.rates.advance(now, paused)
	}
}

func (r *rates) advance(now clock.Instant, paused bool) {
	r.messages.advance(now, paused)
	r.bytes.advance(now, paused)
}

// take takes the tokens for input of the client. It returns false if there are not enough.
func (r *rates) take(l *Limits, messages, bytes int) bool {
	if l.MessageRate > 0 && !r.messages.take(perSecond(messages, l.MessageRate), rateWindow) {
		return false
	}
	size := max(rateWindow, perSecond(l.MaxPayload, l.ByteRate)) // the largest message must fit
	return l.ByteRate <= 0 || r.bytes.take(perSecond(bytes, l.ByteRate), size)
}

// withinRatesLocked counts input of the client against its rates. It returns false if the input
// exceeds them.
func (s *Session) withinRatesLocked(now clock.Instant, messages, bytes int) bool {
	l := &s.env.Limits
	if l.MessageRate <= 0 && l.ByteRate <= 0 {
		return true
	}
	t := s.transientLocked()
	if t.rates == nil {
		full := bucket{at: now}
		t.rates = &rates{messages: full, bytes: full}
	}
	t.rates.advance(now, s.inbox.paused)
	return t.rates.take(l, messages, bytes)
}

// perSecond returns the time in which a client may send n messages or bytes at a rate.
func perSecond(n, rate int) time.Duration {
	return time.Duration(n) * time.Second / time.Duration(max(1, rate))
}

// rateExceeded returns how to close a client that exceeded its rates.
func (e *Env) rateExceeded() closeRequest {
	return closeRequest{code: protocol.ClosePolicyViolation, reason: reasonRate, counter: &e.Stats.RateLimited}
}
