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
	retries = 512
)

// run tends the subscription until ctx ends. w is the first wire, on which broadcasts come already.
func (s *subscription) run(ctx context.Context, w *conn) {
	defer s.end()
	defer func() { s.endLinger() }()
	backoff := backoff{min: s.config.BackoffMin, max: s.config.BackoffMax}
	for w != nil {
		began := time.Now()
		err := s.tend(ctx, w)
		s.leave(ctx, w, err)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > s.config.BackoffMax {
			backoff.reset() // it was a good connection
		}
		s.lost(err)
		w = s.reconnect(ctx, &backoff, err)
	}
}

// lost notes that nothing comes any more.
func (s *subscription) lost(err error) {
	s.away(err)
	s.health.failed(err)
	s.sent = ""
	// One that does not answer, or leads to the wrong place, is cut. One that was closed need not be the only one.
	s.outbox.doubt(!errors.Is(err, errConnection))
	s.config.Logger.Warn("messages of other nodes do not come in", "reason", reasonOf(err), "error", err)
}

// away notes why there is no connection.
func (s *subscription) away(err error) {
	s.health.update(func() { s.health.in, s.health.echo = err, nil }) // first: who gets ErrDown below finds it so
	s.fail(fmt.Errorf("%w: %w", broker.ErrDown, err))
}

// fail ends all requests. New ones fail until there is a connection.
func (s *subscription) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	s.endLastLocked(err)
	s.holds.fail(err)
}

// endLastLocked ends the requests that end with the round.
func (s *subscription) endLastLocked(err error) {
	for _, r := range s.last {
		r.end(err)
	}
	s.last = nil
}

// end is for the time after run.
func (s *subscription) end() {
	s.fail(broker.ErrClosed)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.holds = holds{}
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
		w, err := s.open(ctx)
		if err == nil {
			if err = s.restore(ctx, w); err == nil {
				s.found(w, cause)
				return w
			}
			w.Close()
		}
		s.away(err)
		if ctx.Err() == nil {
			s.health.failed(err)
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
func (s *subscription) restore(ctx context.Context, w *conn) error {
	s.health.update(func() { s.health.in, s.health.whole = nil, errSubscribing })
	s.mu.Lock()
	s.holds.restart()
	s.down = false
	s.mu.Unlock()
	for s.restoring = true; s.restoring; {
		if err := s.round(ctx, w, commandChannels*exchangeCommands); err != nil {
			return err
		}
	}
	return nil
}

// found tells of the loss.
func (s *subscription) found(w *conn, cause error) {
	now := time.Now()
	since := s.known
	if s.config.Sentinel.MasterSet != "" && w.addr != s.addr {
		// Another Sentinel may have named the new master for a while when this node was still told of the old one.
		since = since.Add(-sentinelLag)
	}
	s.inbox.lose(broker.Loss{Since: since, Until: now, Cause: cause})
	s.config.Logger.Info("messages of other nodes come in again", "redis", w.addr, "since", since)
	s.known, s.told, s.addr = now, now, w.addr
}

// tend does what there is to do on a good wire, and returns why it no longer is one.
func (s *subscription) tend(ctx context.Context, w *conn) error {
	t := &tending{s: s, w: w, idle: stoppedTimer(), late: stoppedTimer(), watch: watch{dialer: s.dialer}}
	defer t.watch.close()
	defer t.idle.Stop()
	defer t.late.Stop()
	every := time.NewTicker(s.config.ProbeInterval)
	defer every.Stop()
	for {
		for s.due(t.idle) {
			if err := s.round(ctx, w, roundChannels); err != nil {
				return err
			}
		}
		s.tellMissed()
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.Done():
			return lostConnection(w.Err())
		case <-s.wake:
		case <-t.idle.C:
		case probe := <-s.seen:
			if s.back(probe) {
				t.late.Stop()
			}
		case <-t.left:
			t.judge()
		case <-every.C:
			err = t.ask(ctx)
		case <-t.late.C:
			err = t.missing()
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
func (s *subscription) due(idle *time.Timer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds.waiting() || s.holds.idle.Len() > s.config.GraceChannels {
		return true
	}
	first := s.holds.idle.Peek()
	if first == nil {
		idle.Stop()
		return false
	}
	wait := first.at + s.config.ReleaseGrace - time.Since(s.begun)
	idle.Reset(max(wait, 0))
	return wait <= 0
}

// A tending is what tend remembers between events.
type tending struct {
	s     *subscription
	w     *conn
	idle  *time.Timer // for the end of the grace
	late  *time.Timer // for a probe that does not come back
	probe *call
	left  <-chan struct{} // the probe's done; nil if that has been looked at
	watch watch
}

// ask checks that the wire is a good one, and sends a probe on its way.
func (t *tending) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.s.config.ProbeTimeout)
	defer cancel()
	began := time.Now()
	if _, err := t.watch.check(ctx, t.w); err != nil {
		return err
	}
	if t.s.sent == "" {
		t.probe = t.s.sendProbe(began)
		t.left = t.probe.done
		t.late.Reset(t.s.config.ProbeTimeout)
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.holds.again(retries)
	return nil
}

// judge looks at what became of a probe on its way out. One that Redis refuses will not be back, and nor does anything else leave;
// that there is no connection the outbox has told.
func (t *tending) judge() {
	t.left = nil
	err := t.probe.errs[0]
	if err == nil || errors.Is(err, broker.ErrDown) || errors.Is(err, errTooOld) || t.s.sent == "" {
		return
	}
	t.s.sent = ""
	t.late.Stop()
	t.s.health.update(func() { t.s.health.echo = err })
}

// missing judges a probe that is late. One that never left tells nothing of the subscription, and one that came while a long
// round kept tend from looking is not missing.
func (t *tending) missing() error {
	select {
	case probe := <-t.s.seen:
		if t.s.back(probe) {
			return nil
		}
	default:
	}
	t.s.sent = ""
	select {
	case <-t.probe.done:
		if t.probe.errs[0] == nil {
			return errProbe
		}
	default:
	}
	return nil
}

// round asks for channels that Holds wait for, and for up to n others. Then it unsubscribes channels
// that have not been held for a while.
func (s *subscription) round(ctx context.Context, w *conn, n int) error {
	s.mu.Lock()
	now := time.Since(s.begun)
	var ask []string
	ask, s.last = s.holds.take(roundChannels, n)
	s.restoring = s.restoring && len(s.holds.pending) > 0
	// At least as many go as come.
	give := s.holds.expired(now-s.config.ReleaseGrace, s.config.GraceChannels, roundChannels+len(ask))
	s.mu.Unlock()

	no, err := s.subscribe(ctx, w, ask)
	if err != nil {
		return err // fail ends the requests
	}
	s.settle(ask, no)
	stuck, err := s.send(ctx, w, "UNSUBSCRIBE", give, commandChannels)
	s.note(stuck)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds.left(give)
	return nil
}

// settle ends a round that Redis has answered.
func (s *subscription) settle(ask, no []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.begun)
	for _, channel := range no {
		s.holds.refuse(channel, now)
	}
	owed, since := s.holds.confirm(ask, now)
	if len(owed) > 0 {
		until := time.Now() // both by the wall clock as it is set now
		s.inbox.lose(broker.Loss{Channels: owed, Since: until.Add(since - now), Until: until, Cause: errUnasked})
	}
	var missing error
	switch {
	case s.restoring:
		missing = errSubscribing
	case len(s.holds.refused) > 0:
		missing = s.refusal
	}
	s.health.update(func() { s.health.whole = missing })
	s.endLastLocked(nil)
}

// A refusal is what Redis has against a command, and the channels that it named.
type refusal struct {
	channels []string
	err      error
}

// note keeps what Redis has refused, for Health and for the log.
func (s *subscription) note(refusals []refusal) {
	for _, r := range refusals {
		s.refusal = r.err
		s.health.failed(r.err)
		s.refusals.log(r.err, "channel", clip(s.config.channel(r.channels[0])))
	}
}

// subscribe returns the channels that Redis refuses. It refuses a whole command for one of its channels, so those of
// a refused one are asked for one by one.
func (s *subscription) subscribe(ctx context.Context, w *conn, channels []string) (no []string, err error) {
	doubtful, err := s.send(ctx, w, "SUBSCRIBE", channels, commandChannels)
	if err != nil || len(doubtful) == 0 {
		return nil, err
	}
	refused, err := s.send(ctx, w, "SUBSCRIBE", all(doubtful), 1)
	s.note(refused)
	return all(refused), err
}

// all are the channels of refusals.
func all(refusals []refusal) (channels []string) {
	for _, r := range refusals {
		channels = append(channels, r.channels...)
	}
	return channels
}

// send sends a command for each n channels, some commands at a time, and returns what Redis refused of that. Its error is
// the connection's.
func (s *subscription) send(ctx context.Context, w *conn, command string, channels []string, n int) (no []refusal, err error) {
	for len(channels) > 0 {
		some := channels[:min(len(channels), n*exchangeCommands)]
		channels = channels[len(some):]
		var commands [][]string
		for rest := some; len(rest) > 0; rest = rest[min(n, len(rest)):] {
			commands = append(commands, append([]string{command}, s.config.channels(rest[:min(n, len(rest))]...)...))
		}
		answers, err := s.answers(ctx, w, commands)
		if err != nil {
			return nil, err
		}
		for i, err := range answers {
			if err != nil {
				no = append(no, refusal{some[i*n : min(i*n+n, len(some))], err})
			}
		}
	}
	return no, nil
}

// answers sends commands, and returns what Redis has against each; nil for those that it has done.
func (s *subscription) answers(ctx context.Context, w *conn, commands [][]string) ([]error, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.ProbeTimeout)
	defer cancel()
	said := make([]error, len(commands))
	replies, err := w.Pipeline(ctx, commands...)
	if err != nil {
		return nil, fmt.Errorf("subscribe at %s: %w", w.addr, lostConnection(err))
	}
	for i, r := range replies {
		if err := r.Err(); err != nil {
			said[i] = fmt.Errorf("subscribe at %s: %w", w.addr, s.dialer.explain(err))
		}
	}
	return said, nil
}
