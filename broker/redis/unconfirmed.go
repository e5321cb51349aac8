package redis

import (
	"errors"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// sentinelLag is how long one Sentinel may name the old master after another has named the new one: they tell each other
// every two seconds.
const sentinelLag = 5 * time.Second

// errStray is the cause of a loss that a publisher has reported.
var errWrongMaster = errors.New("redis: another node or emitter has published to a server that was no longer the master")

// A trail counts the messages that a server has taken while it may no longer have been the master. A demoted master goes on
// answering PUBLISH, and nodes that have left it get none of that. Times are since the outbox was made.
type unconfirmed struct {
	lag time.Duration // how old a confirmation may be in truth

	addr string // the server; empty before the first

	// Messages are counted in two spans: the current one, and the one before it. A confirmation that comes at least lag
	// after the current one began proves that the server was the master throughout the one before.
	current, previous           uint64
	currentBegan, previousBegan time.Duration

	lastTaken time.Duration // when the server took the last message
}

// add counts messages that the server has taken.
func (t *unconfirmed) add(messages int, now time.Duration) {
	if messages > 0 {
		t.current += uint64(messages)
		t.lastTaken = now
	}
}

// confirm notes that at the given time somebody who knows has named the server as the master.
func (t *unconfirmed) confirm(at time.Duration) {
	if at-t.currentBegan >= t.lag {
		t.previous, t.previousBegan = t.current, t.currentBegan
		t.current, t.currentBegan = 0, at
	}
}

// uncertain reports whether the master is to be looked up once more before the trail ends: what was published in the
// current span is uncertain, and so is the span before, as long as its confirmation may be too old.
func (t *unconfirmed) uncertain(now time.Duration) bool {
	return t.current > 0 || t.previous > 0 && now-t.currentBegan < t.lag
}

// messages is how many are uncertain.
func (t *unconfirmed) messages() uint64 { return t.previous + t.current }

// end ends the trail, and returns what is uncertain of it: messages of between since and until.
func (t *unconfirmed) end(now time.Duration) (messages uint64, since, until time.Duration) {
	messages, since, until = t.messages(), t.previousBegan, t.lastTaken
	if t.previous == 0 {
		since = t.currentBegan
	}
	*t = unconfirmed{lag: t.lag, currentBegan: now, previousBegan: now}
	return messages, since, until
}

// A report is what the other nodes are yet to be told about messages that may have reached none of them.
type report struct {
	messages     uint64
	since, until time.Duration // since the outbox was made
}

// strayLocked has it reported that the server was not the master while it took messages.
func (p *publisher) reportWrongMasterLocked(cause error) {
	now := time.Since(p.created)
	messages, since, until := p.unconfirmed.end(now)
	if messages == 0 {
		return
	}
	p.health.uncertain.Add(messages)
	p.config.Logger.Warn("messages may not have reached other nodes: they went to a server that was no longer the master",
		"messages", messages, "since", p.created.Add(since), "until", p.created.Add(until), "reason", reasonOf(cause), "error", cause)
	if r := p.report; r != nil {
		messages, since, until = messages+r.messages, min(since, r.since), max(until, r.until)
	}
	p.report = &report{messages, since, until}
}

// message is the report as nodes get it.
func (r *report) message(serverID string, now time.Duration) (protocol.Message, error) {
	data, err := protocol.Missed{Since: now - r.since, Until: now - r.until}.Data()
	return protocol.Message{ServerID: serverID, Type: protocol.TypeNodes, Event: protocol.NodeMissed, Data: data}, err
}

// A span is a time in which messages were published.
type timeSpan struct{ since, until time.Time }

// missed takes a publisher's report. It is told by the goroutine that tends the subscription, which knows what has been
// told already. Any goroutine.
func (s *subscription) addMissed(m protocol.Missed) {
	now := time.Now()
	since, until := now.Add(-m.Since), now.Add(-m.Until)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.reported; r != nil {
		if r.since.Before(since) {
			since = r.since
		}
		if r.until.After(until) {
			until = r.until
		}
	}
	s.reported = &timeSpan{since, until}
	s.wakeUp()
}

// tellMissed tells what publishers have reported, unless it has been told: what they published before this node was on
// the right server has come by the connection that it had, or is part of the loss that was told of that.
func (s *subscription) reportMissed() {
	s.mu.Lock()
	r := s.reported
	s.reported = nil
	s.mu.Unlock()
	if r == nil || !r.until.After(s.reportedUntil) {
		return
	}
	since := r.since
	if since.Before(s.reportedUntil) {
		since = s.reportedUntil
	}
	s.inbox.lose(broker.Loss{Since: since, Until: time.Now(), Cause: errWrongMaster})
}
