package redis

import (
	"errors"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// sentinelLag is how long one Sentinel may still name the old master after another has named the
// new one. They inform each other every two seconds.
const sentinelLag = 5 * time.Second

// errWrongMaster is the cause of a loss that a publisher has reported.
var errWrongMaster = errors.New("redis: another node or emitter published to a server that was no longer the master")

// unconfirmed counts the messages that a server accepted while it may no longer have been the
// master. A demoted master goes on accepting PUBLISH, and nodes that have left it do not receive
// these messages. Times are since publisher.created.
type unconfirmed struct {
	lag time.Duration // how old the knowledge behind a confirmation may be

	addr string // the server; empty before the first

	// Messages are counted in two spans, the current and the previous one. A confirmation at least
	// lag after the current one began proves that the server was the master throughout the previous
	// one.
	current, previous           uint64
	currentBegan, previousBegan time.Duration

	lastTaken time.Duration // when the server accepted the last message
}

// add counts messages that the server has accepted.
func (t *unconfirmed) add(messages int, now time.Duration) {
	if messages > 0 {
		t.current += uint64(messages)
		t.lastTaken = now
	}
}

// confirm records that the server was confirmed as the master at the given time.
func (t *unconfirmed) confirm(at time.Duration) {
	if at-t.currentBegan >= t.lag {
		t.previous, t.previousBegan = t.current, t.currentBegan
		t.current, t.currentBegan = 0, at
	}
}

// uncertain reports whether the master must be looked up once more before the connection is given
// up. Messages of the current span are uncertain, and so are those of the previous span as long as
// its confirmation may be too old.
func (t *unconfirmed) uncertain(now time.Duration) bool {
	return t.current > 0 || t.previous > 0 && now-t.currentBegan < t.lag
}

// messages returns how many messages are uncertain.
func (t *unconfirmed) messages() uint64 { return t.previous + t.current }

// end starts anew, and returns how many messages were uncertain and when they were accepted.
func (t *unconfirmed) end(now time.Duration) (messages uint64, since, until time.Duration) {
	messages, since, until = t.messages(), t.previousBegan, t.lastTaken
	if t.previous == 0 {
		since = t.currentBegan
	}
	*t = unconfirmed{lag: t.lag, currentBegan: now, previousBegan: now}
	return messages, since, until
}

// A report tells the other nodes about messages that may have reached none of them.
type report struct {
	messages     uint64
	since, until time.Duration // since publisher.created
}

// reportWrongMasterLocked counts and logs the uncertain messages, and queues a report about them.
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

// message returns the report as it is sent.
func (r *report) message(serverID string, now time.Duration) (protocol.Message, error) {
	data, err := protocol.Missed{Since: now - r.since, Until: now - r.until}.Data()
	return protocol.Message{ServerID: serverID, Type: protocol.TypeNodes, Event: protocol.NodeMissed, Data: data}, err
}

// A timeSpan is when messages were published.
type timeSpan struct{ since, until time.Time }

// addMissed takes a publisher's report. The maintaining goroutine passes it on, because it knows
// which losses have been reported. Any goroutine.
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

// reportMissed reports the loss that publishers have reported, unless the node has reported it
// already. Messages published before this node was connected to the right server were received
// through its old connection, or belong to the loss that was reported for that.
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
