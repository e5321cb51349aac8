package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hearthws/hearth/protocol"
)

// A History is a Broker that can keep the history of rooms: a log of the last messages of each. The
// configuration of the broker has the rules that select the rooms. All nodes and emitters need the
// same rules.
//
// For a room with history, Publish and PublishAll add the message to the log of the room. That
// gives it the next Position of the room. Then every node that holds the channel of the room
// receives it with its Position, including the node that published it: Receiver.ServerID does not
// exclude messages with a position. The messages of a room arrive in the order of their offsets,
// and a missing offset is a lost message.
//
// If a message has a Key, a message with the same key that was added to the same log within
// KeyLifetime is not added or delivered again, and the second publish succeeds. So a sender that
// does not know whether a message was published can publish it again.
type History interface {
	Broker

	// KeepsHistory reports whether there are rules.
	KeepsHistory() bool

	// HasHistory reports whether a rule selects the room.
	HasHistory(room string) bool

	// ReadHistory returns a part of the history of each room, in the order of the requests. It
	// waits for the network until ctx is done. The error says why nothing could be read, and wraps
	// ErrDown if there is no connection. If some rooms could be read, the parts of the others have
	// protocol.UnrecoveredUnavailable and no position. A room that has no log gets an empty one,
	// and so a position from which a client can continue.
	ReadHistory(ctx context.Context, requests ...HistoryRequest) ([]HistoryPart, error)

	// RemoveHistory removes the log of the room. Its next log has another epoch. Later reads from
	// a position of the removed log return protocol.UnrecoveredReset.
	RemoveHistory(ctx context.Context, room string) error
}

// KeyLifetime is how long a message with the same Key counts as a repetition.
const KeyLifetime = 2 * time.Minute

// A HistoryRequest asks for messages of one room. If the room has no history, the result is an
// empty HistoryPart with protocol.UnrecoveredNoHistory.
type HistoryRequest struct {
	// Room is the name of the room.
	Room string

	// After is the position after which the messages begin. The zero Position asks for the newest
	// messages instead.
	After protocol.Position

	// Limit is the largest number of messages to return. If there are more after After, the result
	// is protocol.UnrecoveredLimit, and without After the newest ones. 0 asks for the position
	// only: with After, the result then says whether messages were missed, by UnrecoveredLimit.
	Limit int

	// Bytes bounds the sum of the data of the messages. If they have more, the result is as if
	// Limit were lower. 0: no bound.
	Bytes int
}

// A HistoryPart is the answer to a HistoryRequest.
type HistoryPart struct {
	// Position is the newest position of the log: that of the last message, or offset 0 if none was
	// added to it.
	Position protocol.Position

	// Messages are in the order of their offsets, without gaps, each with its Position. The last
	// one is at Position. There are none if Unrecovered is set. Their data must not be changed.
	Messages []protocol.Message

	// Unrecovered says why the messages after HistoryRequest.After are not there: one of
	// protocol.UnrecoveredNoHistory, UnrecoveredUnavailable, UnrecoveredReset, UnrecoveredLimit and
	// UnrecoveredEvicted. If there are more than Limit, it is UnrecoveredLimit, whether or not they
	// were evicted. Empty if they are there.
	Unrecovered string
}

// A HistoryRule selects rooms that have history.
type HistoryRule struct {
	// Rooms is a pattern for the names of the rooms. "*" in it stands for any text: "chat:*"
	// selects all rooms whose names begin with "chat:". Required.
	Rooms string

	// Size is how many messages the log of a room keeps, 1 to MaxHistorySize. Required.
	Size int

	// Age is how long a message is kept, MinHistoryAge to MaxHistoryAge. Required.
	Age time.Duration
}

// ParseHistoryRule parses a rule in the form of HistoryRule.String: "chat:*=100/5m" keeps the last
// 100 messages of each room whose name begins with "chat:", for five minutes. The age is in the
// form of time.ParseDuration. The error names the mistake, for the user.
func ParseHistoryRule(s string) (HistoryRule, error) {
	equals := strings.LastIndexByte(s, '=')
	if equals < 0 {
		return HistoryRule{}, errors.New("takes ROOMS=SIZE/AGE, as in chat:*=100/5m: the last 100 messages, for five minutes")
	}
	size, age, ok := strings.Cut(s[equals+1:], "/")
	r := HistoryRule{Rooms: s[:equals]}
	var sizeErr, ageErr error
	r.Size, sizeErr = strconv.Atoi(size)
	r.Age, ageErr = time.ParseDuration(age)
	switch {
	case !ok:
		return HistoryRule{}, errors.New("has no age: write =SIZE/AGE at the end, as in =100/5m")
	case r.Rooms == "":
		return HistoryRule{}, errors.New("has no rooms: write a name or a pattern before =, as in chat:*=100/5m")
	case sizeErr != nil || r.Size < 1 || r.Size > MaxHistorySize:
		return HistoryRule{}, fmt.Errorf("size %.20q: takes 1 to %d messages", size, MaxHistorySize)
	case ageErr != nil || r.Age < MinHistoryAge || r.Age > MaxHistoryAge:
		return HistoryRule{}, fmt.Errorf("age %.20q: takes a duration from 1s to 720h, as in 90s, 5m or 24h", age)
	}
	return r, nil
}

// String returns the rule in the form of ParseHistoryRule.
func (r HistoryRule) String() string { return fmt.Sprintf("%s=%d/%v", r.Rooms, r.Size, r.Age) }

// The limits of a HistoryRule.
const (
	MaxHistorySize = 100_000
	MinHistoryAge  = time.Second
	MaxHistoryAge  = 30 * 24 * time.Hour
)

// Matches reports whether the rule selects a room. No rule selects the room that is named by a
// client's id: it ends with the client.
func (r HistoryRule) Matches(room string) bool {
	return matchRoom(r.Rooms, room) && !protocol.IsClientID(room)
}

// HistoryRules are tried in their order: the first that matches the name of a room applies.
type HistoryRules []HistoryRule

// Rule returns the rule for a room. ok is false if the room has no history.
func (r HistoryRules) Rule(room string) (rule HistoryRule, ok bool) {
	for i := range r {
		if r[i].Matches(room) {
			return r[i], true
		}
	}
	return HistoryRule{}, false
}

// Check returns an error that names the first field that is invalid, with the valid values.
func (r HistoryRules) Check() error {
	for i, rule := range r {
		switch {
		case rule.Rooms == "":
			return fmt.Errorf("broker: history rule %d: Rooms is empty; it is the name of a room, or a pattern such as \"chat:*\"", i+1)
		case rule.Size < 1 || rule.Size > MaxHistorySize:
			return fmt.Errorf("broker: history rule %d for %q: Size is %d; it can be 1 to %d", i+1, rule.Rooms, rule.Size, MaxHistorySize)
		case rule.Age < MinHistoryAge || rule.Age > MaxHistoryAge:
			return fmt.Errorf("broker: history rule %d for %q: Age is %v; it can be %v to %v", i+1, rule.Rooms, rule.Age, MinHistoryAge, MaxHistoryAge)
		}
	}
	return nil
}

// matchRoom reports whether a pattern matches a name. It takes time proportional to the length of
// the name for each "*".
func matchRoom(pattern, name string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, head)
	for ok {
		var part string
		if part, rest, star = strings.Cut(rest, "*"); !star {
			return strings.HasSuffix(name, part)
		}
		_, name, ok = strings.Cut(name, part)
	}
	return false
}

var (
	// ErrNoHistory is returned by RemoveHistory for a room that no rule selects.
	ErrNoHistory = errors.New("the room has no history")

	// ErrUnrecovered is the error of HistoryPart.Err for a part with HistoryPart.Unrecovered.
	ErrUnrecovered = errors.New("the history does not have all messages after the position")
)

// Err returns nil if Unrecovered is empty. Otherwise the error wraps ErrNoHistory or
// ErrUnrecovered, and has the reason in words.
func (p HistoryPart) Err() error {
	switch p.Unrecovered {
	case "":
		return nil
	case protocol.UnrecoveredNoHistory:
		return ErrNoHistory
	case protocol.UnrecoveredUnavailable:
		return fmt.Errorf("%w: they cannot be read now", ErrUnrecovered)
	case protocol.UnrecoveredEvicted:
		return fmt.Errorf("%w: some are no longer stored", ErrUnrecovered)
	case protocol.UnrecoveredReset:
		return fmt.Errorf("%w: it is of a history that was removed or lost", ErrUnrecovered)
	case protocol.UnrecoveredLimit:
		return fmt.Errorf("%w: there are more than the limit", ErrUnrecovered)
	}
	return fmt.Errorf("%w: %s", ErrUnrecovered, p.Unrecovered)
}
