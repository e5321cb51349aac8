package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/resp"
	"github.com/hearthws/hearth/protocol"
)

// run sends what waits, pipeline after pipeline, and sees to the connection.
func (p *publisher) run() {
	watch := masterCheck{dialer: p.dialer}
	defer watch.close()
	backoff := backoff{min: p.config.BackoffMin, max: p.config.BackoffMax}
	var batch []outgoing
	for {
		switch p.nextAction() {
		case actionEnd:
			p.checkBeforeEnd(&watch)
			p.dropRest()
			return
		case actionWait:
			select {
			case <-p.wake:
			case <-p.ctx.Done():
			}
			continue
		case actionConnect:
			if err := p.connect(); err != nil {
				p.connectFailed(err)
				p.pause(backoff.next())
				continue
			}
			backoff.reset()
		case actionSend:
		}
		if !p.readyToSend(&watch) {
			continue
		}
		batch = p.take(batch[:0])
		if len(batch) > 0 {
			p.send(batch)
		}
		clear(batch)
	}
}

type action uint8

const (
	actionWait action = iota
	actionConnect
	actionSend
	actionEnd
)

// next says what there is to do.
func (p *publisher) nextAction() action {
	p.mu.Lock()
	defer p.mu.Unlock()
	work := p.queue.Len() > 0 || p.probe != nil
	switch {
	case p.ctx.Err() != nil, p.closing && (!work || p.down != nil):
		return actionEnd
	case p.conn == nil && (work || p.down != nil || p.report != nil):
		return actionConnect
	case work:
		return actionSend
	}
	return actionWait
}

// connect gets a wire.
func (p *publisher) connect() error {
	c, err := p.dialer.open(p.ctx, resp.Options{})
	if err != nil {
		return fmt.Errorf("redis: connect to publish: %w", err)
	}
	if err := p.sendPendingReport(c); err != nil {
		c.Close()
		return fmt.Errorf("redis: report what may be missing: %w", lostConnection(err))
	}
	p.mu.Lock()
	was := p.down
	p.conn, p.suspect, p.down = c, false, nil
	p.lastUsed = time.Since(p.created)
	p.checked = p.lastUsed
	p.mu.Unlock()
	p.health.setPublishErr(nil)
	if was != nil {
		p.config.Logger.Info("publishes to Redis again", "redis", c.addr)
	}
	return nil
}

// follow begins the trail of a new wire. Where that leads to another server than the last one, the last one may not have been
// the master for a while. Then other nodes are told, before anything else is published.
func (p *publisher) sendPendingReport(c *conn) error {
	p.mu.Lock()
	now := time.Since(p.created)
	if p.config.Sentinel.MasterSet != "" && p.unconfirmed.addr != "" && p.unconfirmed.addr != c.addr {
		p.reportWrongMasterLocked(errOtherMaster)
	}
	p.unconfirmed.addr = c.addr
	p.unconfirmed.confirm(now)
	r := p.report
	p.mu.Unlock()
	if r == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.config.WriteTimeout)
	defer cancel()
	if err := p.sendReport(ctx, c, r); err != nil {
		return err
	}
	p.mu.Lock()
	p.report = nil
	p.mu.Unlock()
	return nil
}

// tell publishes a report. One that Redis refuses is in the log and in Health, and no reason to stop.
func (p *publisher) sendReport(ctx context.Context, c *conn, r *report) error {
	p.mu.Lock()
	serverID := p.serverID
	p.mu.Unlock()
	m, err := r.message(serverID, time.Since(p.created))
	if err != nil {
		return err
	}
	line := protocol.AppendMessage(nil, m)
	replies, err := c.Pipeline(ctx, []string{"PUBLISH", p.config.channel(m.Channel()), asString(line)})
	if err != nil {
		return err
	}
	if err := p.rejection(replies[0].Err()); err != nil {
		p.drops.warn(err)
	}
	return nil
}

// lastLook asks at the end whether what was published since the last time went to the right server. If it did not, the other
// nodes are told.
func (p *publisher) checkBeforeEnd(v *masterCheck) {
	p.mu.Lock()
	c := p.conn
	p.mu.Unlock()
	if c == nil || !p.uncertain() || p.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, closeGrace)
	defer cancel()
	if err := p.checkConn(ctx, v, c); err == nil || !isWrongServer(err) {
		return
	}
	if err := p.connect(); err != nil && p.ctx.Err() == nil {
		p.health.setError(err)
	}
}

// uncertain reports whether the last messages went to a server that no Sentinel has confirmed since, or only one whose word
// may be too old.
func (p *publisher) uncertain() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.config.Sentinel.MasterSet != "" && p.unconfirmed.uncertain(time.Since(p.created))
}

// misled reports whether a server is the wrong one, by its own word or a Sentinel's.
func isWrongServer(err error) bool {
	return errors.Is(err, errOtherMaster) || errors.Is(err, errReplica)
}

// failed notes that there is no connection to be had now. Who waits for an outcome gets one; the rest waits on, until it
// is too old.
func (p *publisher) connectFailed(err error) {
	if p.ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	first := p.down == nil
	p.down = err
	oldest := time.Since(p.created) - p.config.PublishMaxAge
	p.removeLocked(func(m outgoing) error {
		switch {
		case m.call != nil:
			return fmt.Errorf("%w: %w", broker.ErrDown, err)
		case m.at < oldest:
			return fmt.Errorf("%w: %w", errTooOld, err)
		}
		return nil
	})
	if p.probe != nil {
		p.finishLocked(*p.probe, fmt.Errorf("%w: %w", broker.ErrDown, err))
		p.probe = nil
	}
	p.mu.Unlock()
	p.health.setPublishErr(err)
	p.health.setError(err)
	if first {
		p.config.Logger.Warn("can't publish to other nodes", "reason", reasonOf(err), "error", err)
	}
}

// pause waits before the next attempt, unless the broker closes.
func (p *publisher) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		p.mu.Lock()
		closing := p.closing
		p.mu.Unlock()
		if closing {
			return
		}
		select {
		case <-timer.C:
			return
		case <-p.ctx.Done():
			return
		case <-p.wake: // for a message that has to wait, or for Close
		}
	}
}

// alive asks a wire that has rested, or that may be dead, for a sign of life, and now and then whether it is still the right
// one. If it is not it is given up, and nothing with it.
func (p *publisher) readyToSend(v *masterCheck) bool {
	p.mu.Lock()
	now := time.Since(p.created)
	c, ask := p.conn, p.suspect || now-p.lastUsed > checkAfterIdle || now-p.checked > p.config.ProbeInterval
	p.mu.Unlock()
	if !ask {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.config.WriteTimeout)
	defer cancel()
	return p.checkConn(ctx, v, c) == nil
}

// look asks whether c leads to the right server. If it does not, it is given up, and what was published on it may be
// missing elsewhere.
func (p *publisher) checkConn(ctx context.Context, v *masterCheck, c *conn) error {
	began := time.Since(p.created)
	sure, err := v.check(ctx, c)
	if err != nil {
		if isWrongServer(err) {
			p.mu.Lock()
			p.reportWrongMasterLocked(err)
			p.mu.Unlock()
		}
		p.closeConn(err)
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspect = false
	p.checked = time.Since(p.created)
	if sure {
		p.unconfirmed.confirm(began)
	}
	return nil
}

// send publishes a batch. What is cut off half-way counts as dropped: nobody knows how much of it was taken, and to send
// it again might be to send it twice.
func (p *publisher) send(batch []outgoing) {
	p.mu.Lock()
	c := p.conn
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), p.config.WriteTimeout)
	defer cancel()
	words := make([]string, 0, 3*len(batch))
	commands := make([][]string, len(batch))
	for i, m := range batch {
		words = append(words, "PUBLISH", m.channel, m.payload)
		commands[i] = words[3*i : 3*i+3]
	}
	replies, err := c.Pipeline(ctx, commands...)
	if err != nil {
		err = fmt.Errorf("redis: publish: %w", lostConnection(err))
		p.finishBatch(batch, nil, err)
		p.closeConn(err)
		return
	}
	p.finishBatch(batch, replies, nil)
	p.mu.Lock()
	p.lastUsed = time.Since(p.created)
	p.mu.Unlock()
}

// drop gives up a wire that has failed.
func (p *publisher) closeConn(err error) {
	p.mu.Lock()
	c := p.conn
	p.conn = nil
	p.mu.Unlock()
	c.Close()
	err = lostConnection(err)
	p.health.setPublishErr(err)
	if p.ctx.Err() == nil {
		p.health.setError(err)
	}
}

// doubt says that the connection may be dead, cut that it is: whoever waits on it fails now. Any goroutine.
func (p *publisher) markSuspect(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspect = true
	if cut && p.conn != nil {
		p.conn.Abort()
	}
}

// end drops what is left.
func (p *publisher) dropRest() {
	p.mu.Lock()
	c := p.conn
	p.conn = nil
	p.removeLocked(func(m outgoing) error {
		if m.call != nil {
			return broker.ErrClosed
		}
		return errClosedUnsent
	})
	if p.probe != nil {
		p.finishLocked(*p.probe, broker.ErrClosed)
		p.probe = nil
	}
	p.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

// shut takes nothing more.
func (p *publisher) stopAccepting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	p.signalSpaceLocked()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// close waits for the goroutine, which sends for a moment what anyone counts on.
func (p *publisher) close() {
	p.stopAccepting()
	grace := closeGrace
	if !p.hasAwaited() && !p.uncertain() {
		grace = 0
	}
	timer := time.AfterFunc(grace, func() {
		p.cancel()
		p.markSuspect(true)
	})
	p.goroutines.Wait()
	timer.Stop()
	p.cancel()
}

// awaited reports whether there are messages to be sent still whose senders have not stopped waiting for that.
func (p *publisher) hasAwaited() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.Len() > 0 || slices.ContainsFunc(p.inFlight, func(m outgoing) bool { return m.queued && m.abandoned() == nil })
}
