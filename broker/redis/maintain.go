package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hearthws/hearth/broker"
)

const (
	// commandChannels is how many channels a command names, and exchangeCommands how many commands
	// are sent at once. They are small, so that neither Redis nor a probe waits long.
	commandChannels  = 512
	exchangeCommands = 16

	// A round subscribes about roundChannels of the channels that Holds wait for, and the Holds
	// take turns of turnChannels. So a client that connects waits for turnChannels of each Hold
	// before it, however many these name. A round is short, because a new Hold waits for the next
	// one.
	roundChannels = 256
	turnChannels  = 8

	// retryChannels is how many rejected channels are tried again with each probe.
	retryChannels = 512
)

// run maintains the subscription until ctx ends. c is the first connection, already subscribed to
// broadcasts.
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
			backoff.reset() // the connection was a good one
		}
		s.connectionLost(err)
		c = s.reconnect(ctx, &backoff, err)
	}
}

// connectionLost records that no messages arrive any more.
func (s *subscription) connectionLost(err error) {
	s.setDown(err)
	s.health.setError(err)
	s.probeSent = ""
	// If the server does not answer or is the wrong one, the publisher's connection is closed, too.
	// If it closed the connection, it may not have closed the other one.
	s.publisher.markSuspect(!errors.Is(err, errConnection))
	s.config.Logger.Warn("receiving from Redis failed, reconnecting", "reason", reasonOf(err), "error", err)
}

// setDown records why there is no connection, and fails all requests.
func (s *subscription) setDown(err error) {
	// Health changes first: a Hold that returns ErrDown must find it so.
	s.health.update(func() { s.health.receiveErr, s.health.probeErr = err, nil })
	s.failRequests(fmt.Errorf("%w: %w", broker.ErrDown, err))
}

// failRequests ends all requests. New ones fail until there is a connection.
func (s *subscription) failRequests(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	s.endRequestsLocked(err)
	s.channels.fail(err)
}

// endRequestsLocked ends the requests that end with the round.
func (s *subscription) endRequestsLocked(err error) {
	for _, r := range s.ending {
		r.end(err)
	}
	s.ending = nil
}

// endAll is called when run ends. Hold fails from then on.
func (s *subscription) endAll() {
	s.failRequests(broker.ErrClosed)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.channels = channels{}
}

// reconnect tries until all held channels are subscribed again. It returns nil if ctx ends before.
// The loss in between is reported once.
func (s *subscription) reconnect(ctx context.Context, b *backoff, cause error) *conn {
	timer := time.NewTimer(b.next())
	defer timer.Stop()
	logged, permanent := false, false
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
			// Log why it cannot connect, once, and again when that is an error that retrying cannot
			// fix.
			if hopeless := isPermanent(err); !logged || hopeless && !permanent {
				s.config.Logger.Warn("reconnect to Redis failed, retrying", "reason", reasonOf(err), "error", err)
				logged, permanent = true, hopeless
			}
		}
		timer.Reset(b.next())
	}
}

// resubscribe subscribes to all held channels.
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

// resubscribed reports the loss since the last connection.
func (s *subscription) resubscribed(c *conn, cause error) {
	now := time.Now()
	since := s.provenAt
	if s.config.Sentinel.MasterSet != "" && c.addr != s.addr {
		// Other nodes may have learned of the new master earlier, from another Sentinel.
		since = since.Add(-sentinelLag)
	}
	s.inbox.lose(broker.Loss{Since: since, Until: now, Cause: cause})
	s.config.Logger.Info("receiving from Redis resumed", "redis", c.addr, "since", since)
	s.provenAt, s.reportedUntil, s.addr = now, now, c.addr
}

// maintain does all work on a connection until it fails or is the wrong one, and returns why.
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

// hasWork reports whether a round has something to do. If not, it sets the timer for when one will.
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

// A maintainer is the state of maintain.
type maintainer struct {
	s          *subscription
	conn       *conn
	graceTimer *time.Timer // fires at the end of Config.ReleaseGrace
	probeTimer *time.Timer // fires when a probe is overdue
	probe      *call
	published  <-chan struct{} // the probe's done; nil once its result has been handled
	master     masterCheck
}

// checkAndProbe checks that the connection leads to the right server, and sends a probe.
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

// probePublished handles the result of publishing a probe. If Redis rejected it, it will not
// arrive, and nothing else can be published either. That there is no connection has been recorded
// by the publisher.
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

// probeOverdue handles a probe that is late, and returns an error if the subscription does not
// work. A probe that was not published proves nothing. Nor is one overdue that arrived during a
// long round.
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

// round subscribes channels that Holds wait for, and up to n others. Then it unsubscribes channels
// that have not been held for a while.
func (s *subscription) round(ctx context.Context, c *conn, n int) error {
	s.mu.Lock()
	now := time.Since(s.created)
	var subscribe []string
	subscribe, s.ending = s.channels.nextRound(roundChannels, n)
	s.restoring = s.restoring && len(s.channels.unrequested) > 0
	// Unsubscribe at least as many channels as are subscribed, so that they cannot pile up.
	unsubscribe := s.channels.expired(now-s.config.ReleaseGrace, s.config.GraceChannels, roundChannels+len(subscribe))
	s.mu.Unlock()

	rejected, err := s.subscribe(ctx, c, subscribe)
	if err != nil {
		return err // failRequests ends the requests
	}
	s.finishSubscribe(subscribe, rejected)
	failed, err := s.send(ctx, c, "UNSUBSCRIBE", unsubscribe, commandChannels)
	s.noteRejections(failed)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels.unsubscribed(unsubscribe)
	return nil
}

// finishSubscribe records the results of the subscriptions of a round.
func (s *subscription) finishSubscribe(subscribe, rejected []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.created)
	for _, channel := range rejected {
		s.channels.reject(channel, now)
	}
	late, since := s.channels.confirm(subscribe, now)
	if len(late) > 0 {
		until := time.Now() // both times are of the wall clock as it is set now
		s.inbox.lose(broker.Loss{Channels: late, Since: until.Add(since - now), Until: until, Cause: errSubscribedLate})
	}
	var channelsErr error
	switch {
	case s.restoring:
		channelsErr = errSubscribing
	case len(s.channels.rejected) > 0:
		channelsErr = s.lastRejection
	}
	s.health.update(func() { s.health.channelsErr = channelsErr })
	s.endRequestsLocked(nil)
}

// A rejection is an error of Redis about a command, and the channels that the command named.
type rejection struct {
	channels []string
	err      error
}

// noteRejections records rejections in Health and in the log.
func (s *subscription) noteRejections(rejections []rejection) {
	for _, r := range rejections {
		s.lastRejection = r.err
		s.health.setError(r.err)
		s.rejections.warn(r.err, "channel", clip(s.config.channel(r.channels[0])))
	}
}

// subscribe returns the channels that Redis rejects. Redis rejects a whole command because of one
// channel, so the channels of a rejected command are tried one by one.
func (s *subscription) subscribe(ctx context.Context, c *conn, channels []string) (rejected []string, err error) {
	inDoubt, err := s.send(ctx, c, "SUBSCRIBE", channels, commandChannels)
	if err != nil || len(inDoubt) == 0 {
		return nil, err
	}
	rejections, err := s.send(ctx, c, "SUBSCRIBE", channelsOf(inDoubt), 1)
	s.noteRejections(rejections)
	return channelsOf(rejections), err
}

// channelsOf returns the channels of rejections.
func channelsOf(rejections []rejection) (channels []string) {
	for _, r := range rejections {
		channels = append(channels, r.channels...)
	}
	return channels
}

// send sends a command for each n channels, some commands at a time, and returns those that Redis
// rejected. Its error is that of the connection.
func (s *subscription) send(ctx context.Context, c *conn, command string, channels []string, n int) (rejected []rejection, err error) {
	for len(channels) > 0 {
		some := channels[:min(len(channels), n*exchangeCommands)]
		channels = channels[len(some):]
		var commands [][]string
		for rest := some; len(rest) > 0; rest = rest[min(n, len(rest)):] {
			commands = append(commands, append([]string{command}, s.config.channels(rest[:min(n, len(rest))]...)...))
		}
		results, err := s.do(ctx, c, commands)
		if err != nil {
			return nil, err
		}
		for i, err := range results {
			if err != nil {
				rejected = append(rejected, rejection{some[i*n : min(i*n+n, len(some))], err})
			}
		}
	}
	return rejected, nil
}

// do sends commands, and returns an error or nil for each.
func (s *subscription) do(ctx context.Context, c *conn, commands [][]string) ([]error, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.ProbeTimeout)
	defer cancel()
	errs := make([]error, len(commands))
	replies, err := c.Pipeline(ctx, commands...)
	if err != nil {
		return nil, fmt.Errorf("subscribe at %s: %w", c.addr, lostConnection(err))
	}
	for i, r := range replies {
		if err := r.Err(); err != nil {
			errs[i] = fmt.Errorf("subscribe at %s: %w", c.addr, s.dialer.explain(err))
		}
	}
	return errs, nil
}
