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
func (o *outbox) run() {
	watch := watch{dialer: o.dialer}
	defer watch.close()
	backoff := backoff{min: o.config.BackoffMin, max: o.config.BackoffMax}
	var batch []outgoing
	for {
		switch o.next() {
		case toEnd:
			o.lastLook(&watch)
			o.end()
			return
		case toWait:
			select {
			case <-o.wake:
			case <-o.ctx.Done():
			}
			continue
		case toConnect:
			if err := o.connect(); err != nil {
				o.failed(err)
				o.pause(backoff.next())
				continue
			}
			backoff.reset()
		case toSend:
		}
		if !o.alive(&watch) {
			continue
		}
		batch = o.take(batch[:0])
		if len(batch) > 0 {
			o.send(batch)
		}
		clear(batch)
	}
}

type todo uint8

const (
	toWait todo = iota
	toConnect
	toSend
	toEnd
)

// next says what there is to do.
func (o *outbox) next() todo {
	o.mu.Lock()
	defer o.mu.Unlock()
	work := o.queue.Len() > 0 || o.probe != nil
	switch {
	case o.ctx.Err() != nil, o.closing && (!work || o.down != nil):
		return toEnd
	case o.wire == nil && (work || o.down != nil || o.report != nil):
		return toConnect
	case work:
		return toSend
	}
	return toWait
}

// connect gets a wire.
func (o *outbox) connect() error {
	w, err := o.dialer.open(o.ctx, resp.Options{})
	if err != nil {
		return fmt.Errorf("redis: connect to publish: %w", err)
	}
	if err := o.follow(w); err != nil {
		w.Close()
		return fmt.Errorf("redis: report what may be missing: %w", lostConnection(err))
	}
	o.mu.Lock()
	was := o.down
	o.wire, o.suspect, o.down = w, false, nil
	o.lastUsed = time.Since(o.begun)
	o.checked = o.lastUsed
	o.mu.Unlock()
	o.health.publishing(nil)
	if was != nil {
		o.config.Logger.Info("publishes to Redis again", "redis", w.addr)
	}
	return nil
}

// follow begins the trail of a new wire. Where that leads to another server than the last one, the last one may not have been
// the master for a while. Then other nodes are told, before anything else is published.
func (o *outbox) follow(w *conn) error {
	o.mu.Lock()
	now := time.Since(o.begun)
	if o.config.Sentinel.MasterSet != "" && o.trail.addr != "" && o.trail.addr != w.addr {
		o.strayLocked(errOther)
	}
	o.trail.addr = w.addr
	o.trail.confirm(now)
	r := o.report
	o.mu.Unlock()
	if r == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.config.WriteTimeout)
	defer cancel()
	if err := o.tell(ctx, w, r); err != nil {
		return err
	}
	o.mu.Lock()
	o.report = nil
	o.mu.Unlock()
	return nil
}

// tell publishes a report. One that Redis refuses is in the log and in Health, and no reason to stop.
func (o *outbox) tell(ctx context.Context, w *conn, r *report) error {
	o.mu.Lock()
	serverID := o.serverID
	o.mu.Unlock()
	m, err := r.message(serverID, time.Since(o.begun))
	if err != nil {
		return err
	}
	line := protocol.AppendMessage(nil, m)
	replies, err := w.Pipeline(ctx, []string{"PUBLISH", o.config.channel(m.Channel()), asString(line)})
	if err != nil {
		return err
	}
	if err := o.refusal(replies[0].Err()); err != nil {
		o.drops.log(err)
	}
	return nil
}

// lastLook asks at the end whether what was published since the last time went to the right server. If it did not, the other
// nodes are told.
func (o *outbox) lastLook(v *watch) {
	o.mu.Lock()
	w := o.wire
	o.mu.Unlock()
	if w == nil || !o.uncertain() || o.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(o.ctx, closeGrace)
	defer cancel()
	if err := o.look(ctx, v, w); err == nil || !misled(err) {
		return
	}
	if err := o.connect(); err != nil && o.ctx.Err() == nil {
		o.health.failed(err)
	}
}

// uncertain reports whether the last messages went to a server that no Sentinel has confirmed since, or only one whose word
// may be too old.
func (o *outbox) uncertain() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.config.Sentinel.MasterSet != "" && o.trail.uncertain(time.Since(o.begun))
}

// misled reports whether a server is the wrong one, by its own word or a Sentinel's.
func misled(err error) bool { return errors.Is(err, errOther) || errors.Is(err, errReplica) }

// failed notes that there is no connection to be had now. Who waits for an outcome gets one; the rest waits on, until it
// is too old.
func (o *outbox) failed(err error) {
	if o.ctx.Err() != nil {
		return
	}
	o.mu.Lock()
	first := o.down == nil
	o.down = err
	oldest := time.Since(o.begun) - o.config.PublishMaxAge
	o.purgeLocked(func(m outgoing) error {
		switch {
		case m.call != nil:
			return fmt.Errorf("%w: %w", broker.ErrDown, err)
		case m.at < oldest:
			return fmt.Errorf("%w: %w", errTooOld, err)
		}
		return nil
	})
	if o.probe != nil {
		o.settleLocked(*o.probe, fmt.Errorf("%w: %w", broker.ErrDown, err))
		o.probe = nil
	}
	o.mu.Unlock()
	o.health.publishing(err)
	o.health.failed(err)
	if first {
		o.config.Logger.Warn("can't publish to other nodes", "reason", reasonOf(err), "error", err)
	}
}

// pause waits before the next attempt, unless the broker closes.
func (o *outbox) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		o.mu.Lock()
		closing := o.closing
		o.mu.Unlock()
		if closing {
			return
		}
		select {
		case <-timer.C:
			return
		case <-o.ctx.Done():
			return
		case <-o.wake: // for a message that has to wait, or for Close
		}
	}
}

// alive asks a wire that has rested, or that may be dead, for a sign of life, and now and then whether it is still the right
// one. If it is not it is given up, and nothing with it.
func (o *outbox) alive(v *watch) bool {
	o.mu.Lock()
	now := time.Since(o.begun)
	w, ask := o.wire, o.suspect || now-o.lastUsed > rest || now-o.checked > o.config.ProbeInterval
	o.mu.Unlock()
	if !ask {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.config.WriteTimeout)
	defer cancel()
	return o.look(ctx, v, w) == nil
}

// look asks whether w leads to the right server. If it does not, it is given up, and what was published on it may be
// missing elsewhere.
func (o *outbox) look(ctx context.Context, v *watch, w *conn) error {
	began := time.Since(o.begun)
	sure, err := v.check(ctx, w)
	if err != nil {
		if misled(err) {
			o.mu.Lock()
			o.strayLocked(err)
			o.mu.Unlock()
		}
		o.drop(err)
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.suspect = false
	o.checked = time.Since(o.begun)
	if sure {
		o.trail.confirm(began)
	}
	return nil
}

// send publishes a batch. What is cut off half-way counts as dropped: nobody knows how much of it was taken, and to send
// it again might be to send it twice.
func (o *outbox) send(batch []outgoing) {
	o.mu.Lock()
	w := o.wire
	o.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), o.config.WriteTimeout)
	defer cancel()
	words := make([]string, 0, 3*len(batch))
	commands := make([][]string, len(batch))
	for i, m := range batch {
		words = append(words, "PUBLISH", m.channel, m.payload)
		commands[i] = words[3*i : 3*i+3]
	}
	replies, err := w.Pipeline(ctx, commands...)
	if err != nil {
		err = fmt.Errorf("redis: publish: %w", lostConnection(err))
		o.settle(batch, nil, err)
		o.drop(err)
		return
	}
	o.settle(batch, replies, nil)
	o.mu.Lock()
	o.lastUsed = time.Since(o.begun)
	o.mu.Unlock()
}

// drop gives up a wire that has failed.
func (o *outbox) drop(err error) {
	o.mu.Lock()
	w := o.wire
	o.wire = nil
	o.mu.Unlock()
	w.Close()
	err = lostConnection(err)
	o.health.publishing(err)
	if o.ctx.Err() == nil {
		o.health.failed(err)
	}
}

// doubt says that the connection may be dead, cut that it is: whoever waits on it fails now. Any goroutine.
func (o *outbox) doubt(cut bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.suspect = true
	if cut && o.wire != nil {
		o.wire.Abort()
	}
}

// end drops what is left.
func (o *outbox) end() {
	o.mu.Lock()
	w := o.wire
	o.wire = nil
	o.purgeLocked(func(m outgoing) error {
		if m.call != nil {
			return broker.ErrClosed
		}
		return errClose
	})
	if o.probe != nil {
		o.settleLocked(*o.probe, broker.ErrClosed)
		o.probe = nil
	}
	o.mu.Unlock()
	if w != nil {
		w.Close()
	}
}

// shut takes nothing more.
func (o *outbox) shut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closing = true
	o.roomLocked()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// close waits for the goroutine, which sends for a moment what anyone counts on.
func (o *outbox) close() {
	o.shut()
	grace := closeGrace
	if !o.awaited() && !o.uncertain() {
		grace = 0
	}
	timer := time.AfterFunc(grace, func() {
		o.cancel()
		o.doubt(true)
	})
	o.runs.Wait()
	timer.Stop()
	o.cancel()
}

// awaited reports whether there are messages to be sent still whose senders have not stopped waiting for that.
func (o *outbox) awaited() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.queue.Len() > 0 || slices.ContainsFunc(o.onWire, func(m outgoing) bool { return m.taken && m.callGiven() == nil })
}
