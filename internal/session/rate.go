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

// advanceRatesLocked updates the client's buckets. Call it before s.paused changes.
func (s *Session) advanceRatesLocked(now clock.Instant) {
	if r := s.transient; r != nil && r.rates != nil {
		r.rates.messages.advance(now, s.paused)
		r.rates.bytes.advance(now, s.paused)
	}
}

// withinRatesLocked counts input of the client against its rates. It returns false if that exceeds
// them.
func (s *Session) withinRatesLocked(now clock.Instant, messages, bytes int) bool {
	l := &s.env.Limits
	if l.MessageRate <= 0 && l.ByteRate <= 0 {
		return true
	}
	r := s.transientLocked()
	if r.rates == nil {
		full := bucket{at: now}
		r.rates = &rates{messages: full, bytes: full}
	}
	s.advanceRatesLocked(now)
	if l.MessageRate > 0 && !r.rates.messages.take(perSecond(messages, l.MessageRate), rateWindow) {
		return false
	}
	size := max(rateWindow, perSecond(l.MaxPayload, l.ByteRate)) // the largest message must fit
	return l.ByteRate <= 0 || r.rates.bytes.take(perSecond(bytes, l.ByteRate), size)
}

// perSecond returns the time in which a client may send n messages or bytes at a rate.
func perSecond(n, rate int) time.Duration {
	return time.Duration(n) * time.Second / time.Duration(max(1, rate))
}

// rateExceeded returns the ending of a client that exceeded its rates.
func (s *Session) rateExceeded() closeRequest {
	return closeRequest{code: protocol.ClosePolicyViolation, reason: reasonRate, counter: &s.env.Stats.RateLimited}
}
