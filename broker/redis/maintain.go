package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hearthws/hearth/broker"
)

const (
	// A command names so many channels, and one exchange has so many commands: none keeps Redis, or a probe, waiting long.
	commandChannels  = 512
	exchangeCommands = 16

	// A round asks for about roundChannels of the channels that Holds wait for, and the Holds take
	// turns of turnChannels. So a client that connects waits for turnChannels of each Hold before
	// it, however many these name. A round is short, because what comes while Redis answers waits
	// for the next one.
	roundChannels = 256
	turnChannels  = 8

	// retries is how many channels that Redis has refused are asked for again with each probe.
	retryChannels = 512
)

// run tends the subscription until ctx ends. c is the first wire, on which broadcasts come already.
func (s *subscription) run(ctx context.Context, c *conn) {
	defer s.endAll()
	defer func() { s.endLinger() }()
	backoff := backoff{min: s.config.BackoffMin, max: s.config.BackoffMax}
	for c != nil {
		began := time.Now()
		err := s.maintain(ctx, c)
		s.retire(ctx, c, err)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > s.config.BackoffMax {
			backoff.reset() // it was a good connection
		}
		s.connectionLost(err)
		c = s.reconnect(ctx, &backoff, err)
	}
}

// lost notes that nothing comes any more.
func (s *subscription) connectionLost(err error) {
	s.setDown(err)
	s.health.setError(err)
	s.probeSent = ""
	// One that does not answer, or leads to the wrong place, is cut. One that was closed need not be the only one.
	s.publisher.markSuspect(!errors.Is(err, errConnection))
	s.config.Logger.Warn("messages of other nodes do not come in", "reason", reasonOf(err), "error", err)
}

// away notes why there is no connection.
func (s *subscription) setDown(err error) {
	s.health.update(func() { s.health.receiveErr, s.health.probeErr = err, nil }) // first: who gets ErrDown below finds it so
	s.failRequests(fmt.Errorf("%w: %w", broker.ErrDown, err))
}

// fail ends all requests. New ones fail until there is a connection.
func (s *subscription) failRequests(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	s.endRequestsLocked(err)
	s.channels.fail(err)
}

// endLastLocked ends the requests that end with the round.
func (s *subscription) endRequestsLocked(err error) {
	for _, r := range s.ending {
		r.end(err)
	}
	s.ending = nil
}

// end is for the time after run.
func (s *subscription) endAll() {
	s.failRequests(broker.ErrClosed)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.channels = channels{}
}

// reconnect tries until everything that is held is subscribed again, or ctx ends: then it returns nil. The loss that
// there may be between is told once.
func (s *subscription) reconnect(ctx context.Context, b *backoff, cause error) *conn {
	timer := time.NewTimer(b.next())
	defer timer.Stop()
	said, permanent := false, false
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		c, err := s.open(ctx)
		if err == nil {
			if err = s.resubscribe(ctx, c); err == nil {
				s.resubscribed(c, cause)
				return c
			}
			c.Close()
		}
		s.setDown(err)
		if ctx.Err() == nil {
			s.health.setError(err)
			// Why it went says nothing of why it stays away, which may be for somebody to mend.
			if hopeless := isPermanent(err); !said || hopeless && !permanent {
				s.config.Logger.Warn("can't connect to Redis again, and goes on trying", "reason", reasonOf(err), "error", err)
				said, permanent = true, hopeless
			}
		}
		timer.Reset(b.next())
	}
}

// restore asks for everything that is held.
func (s *subscription) resubscribe(ctx context.Context, c *conn) error {
	s.health.update(func() { s.health.receiveErr, s.health.channelsErr = nil, errSubscribing })
	s.mu.Lock()
	s.channels.reset()
	s.down = false
	s.mu.Unlock()
	for s.restoring = true; s.restoring; {
		if err := s.round(ctx, c, commandChannels*exchangeCommands); err != nil {
			return err
		}
	}
	return nil
}

// found tells of the loss.
func (s *subscription) resubscribed(c *conn, cause error) {
	now := time.Now()
	since := s.provenAt
	if s.config.Sentinel.MasterSet != "" && c.addr != s.addr {
		// Another Sentinel may have named the new master for a while when this node was still told of the old one.
		since = since.Add(-sentinelLag)
	}
	s.inbox.lose(broker.Loss{Since: since, Until: now, Cause: cause})
	s.config.Logger.Info("messages of other nodes come in again", "redis", c.addr, "since", since)
	s.provenAt, s.reportedUntil, s.addr = now, now, c.addr
}

// tend does what there is to do on a good wire, and returns why it no longer is one.
func (s *subscription) maintain(ctx context.Context, c *conn) error {
	t := &maintainer{s: s, conn: c, graceTimer: stoppedTimer(), probeTimer: stoppedTimer(), master: masterCheck{dialer: s.dialer}}
	defer t.master.close()
	defer t.graceTimer.Stop()
	defer t.probeTimer.Stop()
	every := time.NewTicker(s.config.ProbeInterval)
	defer every.Stop()
	for {
		for s.hasWork(t.graceTimer) {
			if err := s.round(ctx, c, roundChannels); err != nil {
				return err
			}
		}
		s.reportMissed()
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.Done():
			return lostConnection(c.Err())
		case <-s.wake:
		case <-t.graceTimer.C:
		case probe := <-s.probes:
			if s.probeReceived(probe) {
				t.probeTimer.Stop()
			}
		case <-t.published:
			t.probePublished()
		case <-every.C:
			err = t.checkAndProbe(ctx)
		case <-t.probeTimer.C:
			err = t.probeOverdue()
		}
		if err != nil {
			return err
		}
	}
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// due reports whether a round has something to do, and sets the timer for when it will.
func (s *subscription) hasWork(idle *time.Timer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channels.hasWork() || s.channels.idle.Len() > s.config.GraceChannels {
		return true
	}
	first := s.channels.idle.Peek()
	if first == nil {
		idle.Stop()
		return false
	}
	wait := first.at + s.config.ReleaseGrace - time.Since(s.created)
	idle.Reset(max(wait, 0))
	return wait <= 0
}

// A tending is what tend remembers between events.
type maintainer struct {
	s          *subscription
	conn       *conn
	graceTimer *time.Timer // for the end of the grace
	probeTimer *time.Timer // for a probe that does not come back
	probe      *call
	published  <-chan struct{} // the probe's done; nil if that has been looked at
	master     masterCheck
}

// ask checks that the wire is a good one, and sends a probe on its way.
func (t *maintainer) checkAndProbe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.s.config.ProbeTimeout)
	defer cancel()
	began := time.Now()
	if _, err := t.master.check(ctx, t.conn); err != nil {
		return err
	}
	if t.s.probeSent == "" {
		t.probe = t.s.sendProbe(began)
		t.published = t.probe.done
		t.probeTimer.Reset(t.s.config.ProbeTimeout)
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.channels.retryRejected(retryChannels)
	return nil
}

// judge looks at what became of a probe on its way out. One that Redis refuses will not be back, and nor does anything else leave;
// that there is no connection the outbox has told.
func (t *maintainer) probePublished() {
	t.published = nil
	err := t.probe.errs[0]
	if err == nil || errors.Is(err, broker.ErrDown) || errors.Is(err, errTooOld) || t.s.probeSent == "" {
		return
	}
	t.s.probeSent = ""
	t.probeTimer.Stop()
	t.s.health.update(func() { t.s.health.probeErr = err })
}

// missing judges a probe that is late. One that never left tells nothing of the subscription, and one that came while a long
// round kept tend from looking is not missing.
func (t *maintainer) probeOverdue() error {
	select {
	case probe := <-t.s.probes:
		if t.s.probeReceived(probe) {
			return nil
		}
	default:
	}
	t.s.probeSent = ""
	select {
	case <-t.probe.done:
		if t.probe.errs[0] == nil {
			return errProbeLost
		}
	default:
	}
	return nil
}

// round asks for channels that Holds wait for, and for up to n others. Then it unsubscribes channels
// that have not been held for a while.
func (s *subscription) round(ctx context.Context, c *conn, n int) error {
	s.mu.Lock()
	now := time.Since(s.created)
	var ask []string
	ask, s.ending = s.channels.nextRound(roundChannels, n)
	s.restoring = s.restoring && len(s.channels.unrequested) > 0
	// At least as many go as come.
	give := s.channels.expired(now-s.config.ReleaseGrace, s.config.GraceChannels, roundChannels+len(ask))
	s.mu.Unlock()

	no, err := s.subscribe(ctx, c, ask)
	if err != nil {
		return err // fail ends the requests
	}
	s.finishSubscribe(ask, no)
	stuck, err := s.send(ctx, c, "UNSUBSCRIBE", give, commandChannels)
	s.noteRejections(stuck)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels.unsubscribed(give)
	return nil
}

// settle ends a round that Redis has answered.
func (s *subscription) finishSubscribe(ask, no []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.created)
	for _, channel := range no {
		s.channels.reject(channel, now)
	}
	owed, since := s.channels.confirm(ask, now)
	if len(owed) > 0 {
		until := time.Now() // both by the wall clock as it is set now
		s.inbox.lose(broker.Loss{Channels: owed, Since: until.Add(since - now), Until: until, Cause: errSubscribedLate})
	}
	var missing error
	switch {
	case s.restoring:
		missing = errSubscribing
	case len(s.channels.rejected) > 0:
		missing = s.lastRejection
	}
	s.health.update(func() { s.health.channelsErr = missing })
	s.endRequestsLocked(nil)
}

// A refusal is what Redis has against a command, and the channels that it named.
type rejection struct {
	channels []string
	err      error
}

// note keeps what Redis has refused, for Health and for the log.
func (s *subscription) noteRejections(refusals []rejection) {
	for _, r := range refusals {
		s.lastRejection = r.err
		s.health.setError(r.err)
		s.rejections.warn(r.err, "channel", clip(s.config.channel(r.channels[0])))
	}
}

// subscribe returns the channels that Redis refuses. It refuses a whole command for one of its channels, so those of
// a refused one are asked for one by one.
func (s *subscription) subscribe(ctx context.Context, c *conn, channels []string) (no []string, err error) {
	doubtful, err := s.send(ctx, c, "SUBSCRIBE", channels, commandChannels)
	if err != nil || len(doubtful) == 0 {
		return nil, err
	}
	refused, err := s.send(ctx, c, "SUBSCRIBE", channelsOf(doubtful), 1)
	s.noteRejections(refused)
	return channelsOf(refused), err
}

// all are the channels of refusals.
func channelsOf(refusals []rejection) (channels []string) {
	for _, r := range refusals {
		channels = append(channels, r.channels...)
	}
	return channels
}

// send sends a command for each n channels, some commands at a time, and returns what Redis refused of that. Its error is
// the connection's.
func (s *subscription) send(ctx context.Context, c *conn, command string, channels []string, n int) (no []rejection, err error) {
	for len(channels) > 0 {
		some := channels[:min(len(channels), n*exchangeCommands)]
		channels = channels[len(some):]
		var commands [][]string
		for rest := some; len(rest) > 0; rest = rest[min(n, len(rest)):] {
			commands = append(commands, append([]string{command}, s.config.channels(rest[:min(n, len(rest))]...)...))
		}
		answers, err := s.do(ctx, c, commands)
		if err != nil {
			return nil, err
		}
		for i, err := range answers {
			if err != nil {
				no = append(no, rejection{some[i*n : min(i*n+n, len(some))], err})
			}
		}
	}
	return no, nil
}

// answers sends commands, and returns what Redis has against each; nil for those that it has done.
func (s *subscription) do(ctx context.Context, c *conn, commands [][]string) ([]error, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.ProbeTimeout)
	defer cancel()
	said := make([]error, len(commands))
	replies, err := c.Pipeline(ctx, commands...)
	if err != nil {
		return nil, fmt.Errorf("subscribe at %s: %w", c.addr, lostConnection(err))
	}
	for i, r := range replies {
		if err := r.Err(); err != nil {
			said[i] = fmt.Errorf("subscribe at %s: %w", c.addr, s.dialer.explain(err))
		}
	}
	return said, nil
}
