package memory

import (
	"container/list"
	"crypto/rand"
	"strings"
	"sync"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/fifo"
	"github.com/hearthws/hearth/internal/shrinkmap"
	"github.com/hearthws/hearth/protocol"
)

const (
	// keepEmpty is how long the position of a room is kept after the last use of a log without
	// messages.
	keepEmpty = 24 * time.Hour

	// maxEmpty is the largest number of logs without messages, besides those of rooms that a node
	// holds. Clients can make them, by joining and leaving rooms.
	maxEmpty = 1 << 16

	// maxKeys is the largest number of keys that a log remembers.
	maxKeys = broker.MaxHistorySize
)

// logs has the histories of a bus. It has no goroutine: each use of a log removes the expired
// messages of all of them, oldest first.
type logs struct {
	err   error // of HistoryRules.Check; read-only
	rules []*rule

	// Guards everything below, and the contents of rules. It is held while a message is added to a
	// log and to the queues of the nodes, so that these have it in the same order. Lock a Broker's
	// mu after it.
	mu    sync.Mutex
	rooms shrinkmap.Map[string, *roomLog]
	// Of *roomLog: those without messages whose rooms are not held, least recently used first.
	empty list.List

	// How many nodes hold the channel of each room. The log of such a room is kept: another epoch
	// would tell all members of the room that messages are missing.
	held shrinkmap.Map[string, int]
}

// A rule is a broker.HistoryRule with its logs.
type rule struct {
	broker.HistoryRule               // read-only
	lifetime           time.Duration // of the messages and keys of an idle log; read-only
	filled             list.List     // of *roomLog, the oldest last message first; guarded by logs.mu
}

// A roomLog is the history of one room. logs.mu guards it.
type roomLog struct {
	room     string
	position protocol.Position // of the last message
	entries  fifo.Queue[entry] // the newest has the offset of position, and there are no gaps
	keys     map[string]struct{}
	keyTimes fifo.Queue[keyTime] // the elements of keys, oldest first

	// The log is in rule.filled after a message was added, until rule.lifetime later. Else it is in
	// logs.empty, or in no list if its room is held; then place is nil.
	filled bool
	place  *list.Element
	used   time.Time // if filled, when the last message was added, otherwise the last use
}

type entry struct {
	message protocol.Message
	added   time.Time
}

type keyTime struct {
	key   string
	added time.Time
}

func newLogs(rules broker.HistoryRules) *logs {
	l := &logs{err: rules.Check()}
	for _, r := range rules {
		l.rules = append(l.rules, &rule{HistoryRule: r, lifetime: max(r.Age, broker.KeyLifetime)})
	}
	return l
}

// rule returns the rule for a room, nil if it has no history.
func (l *logs) rule(room string) *rule {
	for _, r := range l.rules {
		if r.Matches(room) {
			return r
		}
	}
	return nil
}

// publish adds m to the log of its room and calls deliver with it. It does nothing if the log has
// the key of m already.
func (l *logs) publish(r *rule, m protocol.Message, deliver func(protocol.Message)) {
	// A log keeps messages for a long time, so it must not keep larger buffers that they are in.
	m = m.Clone()
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.expireLocked(now)
	log := l.useLocked(r, m.Target, now)
	if m.Key != "" && !log.addKey(m.Key, now) {
		return
	}
	log.position.Offset++
	m.Target, m.Key, m.Position = log.room, "", log.position
	log.entries.Push(entry{message: m, added: now})
	if log.entries.Len() > r.Size {
		log.entries.Pop()
	}
	l.fillLocked(r, log, now)
	deliver(m)
}

// read returns the part of a log that was requested.
func (l *logs) read(r *rule, request broker.HistoryRequest) broker.HistoryPart {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.expireLocked(now)
	log := l.useLocked(r, request.Room, now)
	part := broker.HistoryPart{Position: log.position}
	missed := uint64(max(request.Limit, 0))
	if request.After != (protocol.Position{}) {
		if missed, part.Unrecovered = log.missed(request); part.Unrecovered != "" {
			return part
		}
	}
	first := log.entries.Len()
	for size := 0; first > 0 && missed > 0; missed-- {
		size += len(log.entries.At(first - 1).message.Data)
		if request.Bytes > 0 && size > request.Bytes {
			break
		}
		first--
	}
	if missed > 0 && request.After != (protocol.Position{}) {
		part.Unrecovered = protocol.UnrecoveredLimit
		return part
	}
	for ; first < log.entries.Len(); first++ {
		part.Messages = append(part.Messages, log.entries.At(first).message)
	}
	return part
}

// missed returns how many messages there are after a position, or why they cannot be read.
func (log *roomLog) missed(request broker.HistoryRequest) (n uint64, unrecovered string) {
	if request.After.Epoch != log.position.Epoch || request.After.Offset > log.position.Offset {
		return 0, protocol.UnrecoveredReset
	}
	n = log.position.Offset - request.After.Offset
	switch {
	case n > uint64(max(request.Limit, 0)):
		return n, protocol.UnrecoveredLimit
	case n > uint64(log.entries.Len()):
		return n, protocol.UnrecoveredEvicted
	}
	return n, ""
}

// addKey reports whether a key is new, and remembers it.
func (log *roomLog) addKey(key string, now time.Time) bool {
	for first := log.keyTimes.Peek(); first != nil; first = log.keyTimes.Peek() {
		if log.keyTimes.Len() < maxKeys && now.Sub(first.added) < broker.KeyLifetime {
			break
		}
		delete(log.keys, log.keyTimes.Pop().key)
	}
	if _, repeated := log.keys[key]; repeated {
		return false
	}
	if log.keys == nil {
		log.keys = map[string]struct{}{}
	}
	log.keys[key] = struct{}{}
	log.keyTimes.Push(keyTime{key, now})
	return true
}

// remove drops the log of a room.
func (l *logs) remove(room string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if log, ok := l.rooms.Lookup(room); ok {
		l.unlistLocked(l.rule(room), log)
		l.rooms.Delete(room)
	}
}

// unlistLocked takes a log out of its list.
func (l *logs) unlistLocked(r *rule, log *roomLog) {
	switch {
	case log.place == nil:
	case log.filled:
		r.filled.Remove(log.place)
	default:
		l.empty.Remove(log.place)
	}
	log.place = nil
}

// listEmptyLocked lists a log without messages that is in no list, unless its room is held.
func (l *logs) listEmptyLocked(log *roomLog, now time.Time) {
	log.used = now
	if l.held.Get(log.room) == 0 {
		log.place = l.empty.PushBack(log)
	}
}

// holdLocked keeps the log of a room, until as many calls of releaseLocked.
func (l *logs) holdLocked(room string) {
	n := l.held.Get(room)
	l.held.Put(room, n+1)
	if log, ok := l.rooms.Lookup(room); ok && n == 0 && !log.filled {
		l.unlistLocked(nil, log)
	}
}

// releaseLocked undoes one hold.
func (l *logs) releaseLocked(room string) {
	n := l.held.Get(room)
	if n > 1 {
		l.held.Put(room, n-1)
		return
	}
	l.held.Delete(room)
	if log, ok := l.rooms.Lookup(room); ok && log.place == nil {
		l.listEmptyLocked(log, time.Now())
	}
}

// useLocked returns the log of a room, without the messages that have expired. It makes a log if
// there is none.
func (l *logs) useLocked(r *rule, room string, now time.Time) *roomLog {
	log, ok := l.rooms.Lookup(room)
	if !ok {
		log = &roomLog{room: strings.Clone(room), position: protocol.Position{Epoch: newEpoch()}}
		l.rooms.Put(log.room, log)
		l.listEmptyLocked(log, now)
	}
	if !log.filled && log.place != nil {
		log.used = now
		l.empty.MoveToBack(log.place)
	}
	for log.entries.Len() > 0 && now.Sub(log.entries.Peek().added) >= r.Age {
		log.entries.Pop()
	}
	return log
}

// fillLocked notes that a message was added to a log.
func (l *logs) fillLocked(r *rule, log *roomLog, now time.Time) {
	l.unlistLocked(r, log)
	log.filled, log.used = true, now
	log.place = r.filled.PushBack(log)
}

// expireLocked empties logs to which no message was added for long, and drops logs that have been
// empty for long.
func (l *logs) expireLocked(now time.Time) {
	for _, r := range l.rules {
		for e := r.filled.Front(); e != nil && now.Sub(logOf(e).used) >= r.lifetime; e = r.filled.Front() {
			log := logOf(e)
			r.filled.Remove(e)
			*log = roomLog{room: log.room, position: log.position}
			l.listEmptyLocked(log, now)
		}
	}
	for e := l.empty.Front(); e != nil; e = l.empty.Front() {
		log := logOf(e)
		if l.empty.Len() <= maxEmpty && now.Sub(log.used) < keepEmpty {
			return
		}
		l.empty.Remove(e)
		l.rooms.Delete(log.room)
	}
}

func logOf(e *list.Element) *roomLog { return e.Value.(*roomLog) }

// newEpoch returns a random name for a log.
func newEpoch() string { return rand.Text()[:13] } // 65 bits
