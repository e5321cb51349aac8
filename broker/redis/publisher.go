package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/resp"
	"github.com/hearthws/hearth/protocol"
)

// run sends the queued messages, one pipeline after the other, and keeps a connection.
func (p *publisher) run() {
	master := masterCheck{dialer: p.router.dialer}
	defer master.close()
	backoff := backoff{min: p.config.BackoffMin, max: p.config.BackoffMax}
	var batch []outgoing
	for {
		switch p.nextAction() {
		case actionEnd:
			p.checkBeforeEnd(&master)
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
		if !p.readyToSend(&master) {
			continue
		}
		batch = p.take(batch[:0])
		if len(batch) > 0 {
			p.send(batch)
		}
		clear(batch)
	}
}

// An action is what the goroutine does next.
type action uint8

const (
	actionWait action = iota
	actionConnect
	actionSend
	actionEnd
)

// nextAction returns what the goroutine must do now.
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

// connect opens a connection, and sends the report that waits for one.
func (p *publisher) connect() error {
	c, err := p.router.dialer.open(p.ctx, resp.Options{})
	if err != nil {
		return fmt.Errorf("redis: connect to publish: %w", err)
	}
	if len(p.config.History) > 0 && !p.config.Cluster {
		if err := c.readRunID(p.ctx, p.config.WriteTimeout); err != nil {
			c.Close()
			return fmt.Errorf("redis: connect to publish: %w", p.router.dialer.explain(lostConnection(err)))
		}
	}
	if err := p.sendPendingReport(c); err != nil {
		c.Close()
		return fmt.Errorf("redis: report messages that may be missing: %w", lostConnection(err))
	}
	p.mu.Lock()
	was := p.down
	p.conn, p.suspect, p.down = c, false, nil
	p.lastUsed = time.Since(p.created)
	p.checked = p.lastUsed
	p.mu.Unlock()
	p.health.setPublishErr(nil)
	if was != nil {
		p.config.Logger.Info("publishing to Redis resumed", "redis", c.addr)
	}
	return nil
}

// sendPendingReport starts counting unconfirmed messages for a new connection. If it leads to
// another server than the last one, that may not have been the master for a while. The other nodes
// must learn of that before anything else is published.
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

// sendReport publishes a report. If Redis rejects it, that is logged and set in Health, and not
// returned.
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

// checkBeforeEnd checks once more whether the last messages went to the right server. If they did
// not, it reports that to the other nodes.
func (p *publisher) checkBeforeEnd(m *masterCheck) {
	p.mu.Lock()
	c := p.conn
	p.mu.Unlock()
	if c == nil || !p.uncertain() || p.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, closeGrace)
	defer cancel()
	if err := p.checkConn(ctx, m, c); err == nil || !isWrongServer(err) {
		return
	}
	if err := p.connect(); err != nil && p.ctx.Err() == nil {
		p.health.setError(err)
	}
}

// uncertain reports whether the last messages went to a server that no Sentinel has confirmed
// since, or only a Sentinel whose knowledge may be too old.
func (p *publisher) uncertain() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.config.Sentinel.MasterSet != "" && p.unconfirmed.uncertain(time.Since(p.created))
}

// isWrongServer reports whether an error says that a server is not the master: its own role, or
// what a Sentinel said.
func isWrongServer(err error) bool {
	return errors.Is(err, errOtherMaster) || errors.Is(err, errReplica)
}

// connectFailed records that connecting failed. Messages whose callers wait for a result fail. The
// others stay in the queue until they are too old.
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
		p.config.Logger.Warn("publishing to Redis failed, retrying", "reason", reasonOf(err), "error", err)
	}
}

// pause waits before the next attempt to connect. It returns early when the broker closes.
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
		case <-p.wake: // a message, which has to wait, or Close
		}
	}
}

// readyToSend checks the connection if it has been idle or may be dead, and from time to time
// whether the server is still the right one. If the check fails the connection is closed. No
// message is lost then, because none has been sent.
func (p *publisher) readyToSend(m *masterCheck) bool {
	p.mu.Lock()
	now := time.Since(p.created)
	c, check := p.conn, p.suspect || now-p.lastUsed > checkAfterIdle || now-p.checked > p.config.ProbeInterval
	p.mu.Unlock()
	if !check {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.config.WriteTimeout)
	defer cancel()
	return p.checkConn(ctx, m, c) == nil
}

// checkConn checks that c leads to the right server. If it does not, c is closed, and the messages
// published on it are reported as possibly lost.
func (p *publisher) checkConn(ctx context.Context, m *masterCheck, c *conn) error {
	began := time.Since(p.created)
	sure, err := m.check(ctx, c)
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

// send publishes a batch. If the connection breaks, all of it counts as dropped: it is unknown how
// many messages Redis received, and sending them again could deliver them twice.
func (p *publisher) send(batch []outgoing) {
	ctx, cancel := context.WithTimeout(context.Background(), p.config.WriteTimeout)
	defer cancel()
	answers := make([]answer, len(batch))
	failed := p.sendPipeline(ctx, batch, answers)
	if p.config.Cluster {
		p.sendToOwners(ctx, batch, answers)
	}
	p.finishBatch(batch, answers)
	if failed != nil {
		p.closeConn(fmt.Errorf("redis: publish: %w", failed))
		return
	}
	p.mu.Lock()
	p.lastUsed = time.Since(p.created)
	p.mu.Unlock()
}

// sendPipeline publishes the messages of a batch on the connection, except those that have to go to
// the owners of slots. It returns an error if the connection must be closed.
func (p *publisher) sendPipeline(ctx context.Context, batch []outgoing, answers []answer) error {
	p.mu.Lock()
	c := p.conn
	p.mu.Unlock()
	var known scripts
	if id := c.runID.Load(); id != nil {
		known.runID = *id
	}
	words := make([]string, 0, 3*len(batch))
	commands := make([][]string, 0, len(batch))
	places := make([]int, 0, len(batch)) // in batch, of each command
	for i, m := range batch {
		switch {
		case m.log == nil:
			n := len(words)
			words = append(words, "PUBLISH", m.channel, m.payload)
			commands = append(commands, words[n:])
		case p.config.Cluster:
			continue
		default:
			commands = append(commands, known.command(p.config.appendCall(m)))
		}
		places = append(places, i)
	}
	replies, err := c.Pipeline(ctx, commands...)
	for i := range replies {
		if err == nil && isUnknownScript(replies[i]) {
			replies[i], err = c.doOne(ctx, p.config.appendCall(batch[places[i]]).command(known.runID, true))
		}
	}
	if err != nil {
		err = lostConnection(err)
	}
	var after error // why the connection must be closed, although all messages have replies
	for i, place := range places {
		if err != nil {
			answers[place].err = err
			continue
		}
		if answers[place].reply = replies[i]; isReplica(replies[i]) {
			after = errReplica
		}
	}
	if err == nil && after == nil && slices.ContainsFunc(replies, isStale) {
		after = c.readRunID(ctx, p.config.WriteTimeout)
	}
	return cmp.Or(err, after)
}

// sendToOwners adds the messages of a batch that are for rooms with history to the logs, at the
// nodes of the Cluster that own the slots.
func (p *publisher) sendToOwners(ctx context.Context, batch []outgoing, answers []answer) {
	var calls []scriptCall
	var places []int // in batch, of each call
	for i, m := range batch {
		if m.log != nil {
			calls, places = append(calls, p.config.appendCall(m)), append(places, i)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	for i, c := range p.router.call(ctx, calls, false) {
		answers[places[i]] = answer{c.reply, c.err}
		if c.err != nil {
			p.health.setError(fmt.Errorf("redis: publish: %w", c.err))
		}
	}
}

// closeConn closes a connection that has failed.
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

// markSuspect marks the connection as possibly dead. If cut is set, it also closes it, so that a
// pipeline in flight fails now. Any goroutine.
func (p *publisher) markSuspect(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspect = true
	if cut && p.conn != nil {
		p.conn.Abort()
	}
}

// dropRest drops the messages that are left, and closes the connection.
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

// stopAccepting makes put and putAll fail with broker.ErrClosed.
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

// close waits for the goroutine. That has closeGrace to send messages whose callers still wait, and
// to check the last ones.
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
	p.router.close()
}

// hasAwaited reports whether there are messages to be sent whose callers have not stopped waiting.
func (p *publisher) hasAwaited() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.Len() > 0 || slices.ContainsFunc(p.inFlight, func(m outgoing) bool { return m.queued && m.abandoned() == nil })
}
