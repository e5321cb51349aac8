package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/resp"
	"github.com/hearthws/hearth/protocol"
)

const (
	// keepPosition is how long the position of a room is kept after its last message has expired,
	// and keepEmpty after the last use of a log that never had one. Clients can make such logs, by
	// joining rooms.
	keepPosition = 24 * time.Hour
	keepEmpty    = 5 * time.Minute

	// maxRead bounds the messages that one read of a room returns, in bytes of their JSON. It may
	// exceed them by one message.
	maxRead = 16 << 20

	// maxReads bounds the calls of ReadHistory and RemoveHistory that are in progress. Others wait.
	maxReads = 64

	// maxPosition is more than a position adds to the JSON of a message.
	maxPosition = 100
)

// ErrMalformedHistory is returned by ReadHistory, wrapped, when the log of a room has something
// that no broker has written.
var ErrMalformedHistory = errors.New("redis: malformed history of a room")

// A logged message is one for a room with history.
type logged struct {
	rule broker.HistoryRule
	room string
	key  string // protocol.Message.Key
	data int    // length of the data
}

// historyOf returns the log to which m is added. It is nil if the room has no history.
func (c *Config) historyOf(m protocol.Message) *logged {
	if m.Type != protocol.TypeRoom || len(c.History) == 0 {
		return nil
	}
	rule, ok := c.History.Rule(m.Target)
	if !ok {
		return nil
	}
	return &logged{rule: rule, room: m.Target, key: m.Key, data: len(m.Data)}
}

// roomKeys returns the beginning of the keys of a room in Redis. All have one hash tag, so that a
// Cluster keeps them in one slot.
func (c *Config) roomKeys(room string) string {
	return c.Prefix + "hearth:{" + tagEscapes.Replace(room) + "}:"
}

// tagEscapes keeps a name from ending the hash tag that it is in.
var tagEscapes = strings.NewReplacer("%", "%25", "}", "%7D")

// appendCall returns the script call that adds m to its log and publishes it.
func (c *Config) appendCall(m outgoing) scriptCall {
	l := m.log
	keys := c.roomKeys(l.room)
	call := scriptCall{script: appendScript, keys: []string{keys + "log", keys + "meta"}}
	if l.key != "" {
		call.keys = append(call.keys, keys+"key:"+l.key)
	}
	call.args = []string{
		newEpoch(), strconv.Itoa(l.rule.Size), milliseconds(l.rule.Age), milliseconds(l.rule.Age + keepPosition),
		m.channel, strconv.Itoa(l.data), m.payload, milliseconds(broker.KeyLifetime),
	}
	return call
}

// readCall returns the script call that reads from a log.
func (c *Config) readCall(rule broker.HistoryRule, r broker.HistoryRequest) scriptCall {
	keys := c.roomKeys(r.Room)
	after := ""
	if r.After != (protocol.Position{}) {
		after = strconv.FormatUint(r.After.Offset, 10)
	}
	return scriptCall{
		script: readScript, keys: []string{keys + "log", keys + "meta"},
		args: []string{
			newEpoch(), milliseconds(rule.Age), milliseconds(rule.Age + keepPosition), milliseconds(keepEmpty),
			r.After.Epoch, after, strconv.Itoa(min(max(r.Limit, 0), broker.MaxHistorySize)), strconv.Itoa(max(r.Bytes, 0)), strconv.Itoa(maxRead), "",
		},
	}
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// KeepsHistory implements broker.History.
func (b *Broker) KeepsHistory() bool { return len(b.config.History) > 0 }

// HasHistory implements broker.History.
func (b *Broker) HasHistory(room string) bool {
	_, ok := b.config.History.Rule(room)
	return ok
}

// ReadHistory implements broker.History. It uses a connection of its own, which is made when it is
// needed, and works before Start, too. Besides HistoryRequest.Bytes, the JSON of the messages of a
// room is at most about 16 MiB. The error wraps broker.ErrDown if Redis did not answer, and
// ErrMalformedHistory if a log is malformed. Health.Malformed counts such logs. Some rooms may be
// readable while others are not: their log is malformed, or needs memory that Redis has not, or the
// owner of their slot in a Cluster is down.
func (b *Broker) ReadHistory(ctx context.Context, requests ...broker.HistoryRequest) ([]broker.HistoryPart, error) {
	parts := make([]broker.HistoryPart, len(requests))
	var calls []scriptCall
	var places []int // in requests, of each call
	for i, r := range requests {
		rule, ok := b.config.History.Rule(r.Room)
		if !ok {
			parts[i].Unrecovered = protocol.UnrecoveredNoHistory
			continue
		}
		calls, places = append(calls, b.config.readCall(rule, r)), append(places, i)
	}
	replies, err := b.callHistory(ctx, "read history", calls)
	if err != nil {
		return nil, err
	}
	failed := 0
	for i, c := range replies {
		part, rerr := b.part(c, requests[places[i]].Room)
		if rerr != nil {
			failed++
			err = cmp.Or(err, rerr)
			part = broker.HistoryPart{Unrecovered: protocol.UnrecoveredUnavailable}
		}
		parts[places[i]] = part
	}
	if failed > 0 && failed == len(replies) {
		return nil, err
	}
	if failed > 0 {
		b.partial.warn(err, "rooms", failed)
	}
	return parts, nil
}

// part returns the part of a room's history in the reply to a call.
func (b *Broker) part(c routed, room string) (broker.HistoryPart, error) {
	if err := b.replyError("read history", c); err != nil {
		return broker.HistoryPart{}, err
	}
	part, err := parsePart(c.reply, room)
	if err != nil {
		b.health.malformed.Add(1)
		err = fmt.Errorf("read history of %q: %w", clip(room), err)
	}
	return part, err
}

// RemoveHistory implements broker.History. It works before Start, too.
func (b *Broker) RemoveHistory(ctx context.Context, room string) error {
	if !b.HasHistory(room) {
		return broker.ErrNoHistory
	}
	keys := b.config.roomKeys(room)
	replies, err := b.callHistory(ctx, "remove history", []scriptCall{{script: removeScript, keys: []string{keys + "log", keys + "meta"}}})
	if err != nil {
		return err
	}
	return b.replyError("remove history", replies[0])
}

// callHistory calls scripts for ReadHistory and RemoveHistory, and returns their replies. When ctx
// ends, the calls go on without their caller, because all callers share the connection.
func (b *Broker) callHistory(ctx context.Context, what string, calls []scriptCall) ([]routed, error) {
	select {
	case <-b.ctx.Done():
		return nil, broker.ErrClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", what, ctx.Err())
	case b.reading <- struct{}{}:
	}
	done := make(chan []routed, 1)
	b.mu.Lock()
	if b.phase == closed || len(calls) == 0 || ctx.Err() != nil {
		ended := b.phase == closed
		b.mu.Unlock()
		<-b.reading
		if ended {
			return nil, broker.ErrClosed
		}
		return nil, ctx.Err()
	}
	// Ends with the replies, after the timeout, or with Close, which waits for it.
	b.goroutines.Go(func() {
		defer func() { <-b.reading }()
		ctx, cancel := context.WithTimeout(b.ctx, b.config.DialTimeout+b.config.WriteTimeout)
		defer cancel()
		done <- b.router.call(ctx, calls, true)
	})
	b.mu.Unlock()
	select {
	case all := <-done:
		if b.ctx.Err() != nil {
			return nil, broker.ErrClosed
		}
		return all, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: no answer: %w", what, ctx.Err())
	}
}

// replyError returns the error of a call, nil if it succeeded.
func (b *Broker) replyError(what string, c routed) error {
	switch reply := c.reply.Err(); {
	case c.err != nil:
		return fmt.Errorf("redis: %s: %w: %w", what, broker.ErrDown, c.err)
	case reply != nil && isMalformed(reply):
		b.health.malformed.Add(1)
		return fmt.Errorf("redis: %s: %w: %w", what, ErrMalformedHistory, reply)
	case reply != nil:
		return fmt.Errorf("redis: %s: %w", what, b.dialer.explain(reply))
	}
	return nil
}

// isMalformed reports whether a script failed because the content of a log is invalid.
func isMalformed(reply error) bool {
	return strings.HasPrefix(reply.Error(), "MALFORMED") || strings.Contains(reply.Error(), "WRONGTYPE")
}

// partHeader is how many elements of the reply of readScript are before the messages.
const partHeader = 3

// parsePart parses the reply of readScript.
func parsePart(reply resp.Value, room string) (part broker.HistoryPart, err error) {
	words, err := reply.Strings()
	if err != nil || len(words) < partHeader {
		return part, fmt.Errorf("%w: %w", ErrMalformedHistory, errors.Join(err))
	}
	part.Position.Epoch, part.Unrecovered = words[0], words[2]
	if part.Position.Offset, err = strconv.ParseUint(words[1], 10, 53); err != nil {
		return broker.HistoryPart{}, fmt.Errorf("%w: offset %.20q", ErrMalformedHistory, words[1])
	}
	entries := words[partHeader:]
	if uint64(len(entries)) > part.Position.Offset {
		return broker.HistoryPart{}, fmt.Errorf("%w: %d messages at offset %d", ErrMalformedHistory, len(entries), part.Position.Offset)
	}
	part.Messages = make([]protocol.Message, len(entries))
	for i, entry := range entries {
		m, err := parseEntry(entry, room)
		if err != nil {
			return broker.HistoryPart{}, err
		}
		m.Position = protocol.Position{Offset: part.Position.Offset - uint64(i), Epoch: part.Position.Epoch}
		part.Messages[len(entries)-1-i] = m
	}
	if len(entries) == 0 {
		part.Messages = nil
	}
	return part, nil
}

// parseEntry parses an entry of a log: the time in milliseconds, the length of the data, and the
// message.
func parseEntry(entry, room string) (protocol.Message, error) {
	_, rest, _ := strings.Cut(entry, ":")
	_, text, _ := strings.Cut(rest, ":")
	m, err := protocol.ParseMessageString(text)
	switch {
	case err != nil:
		return m, fmt.Errorf("%w: %w", ErrMalformedHistory, err)
	case m.Type != protocol.TypeRoom || m.Target != room || m.Position != protocol.Position{}:
		return m, fmt.Errorf("%w: a message of %v %q", ErrMalformedHistory, m.Type, clip(m.Target))
	}
	return m, nil
}
