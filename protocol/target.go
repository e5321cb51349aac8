package protocol

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

var (
	// ErrTarget is wrapped by errors about a Target that no message can be sent to.
	ErrTarget = errors.New("invalid target")

	// ErrEvent is wrapped by errors about an event name that an application cannot send.
	ErrEvent = errors.New("invalid event")
)

// A Target says which clients a message is for (docs/protocol.md §6): one client, the clients of
// one user, the members of one room, or all authenticated clients. Make one with ToClient, ToUser,
// ToRoom or ToAll. The zero Target is invalid, so that a missing target is an error and not a
// broadcast.
//
// A Target is a value: it may be copied and kept, and several goroutines may use it.
type Target struct {
	typ      MessageType // 0: no target
	name     string
	excluded []string // never changed; nil for clients and users
}

// ToClient returns the target for the client with that id.
func ToClient(clientID string) Target { return Target{typ: TypeClient, name: clientID} }

// ToUser returns the target for every client of that user.
func ToUser(userID string) Target { return Target{typ: TypeUser, name: userID} }

// ToRoom returns the target for every member of that room.
func ToRoom(name string) Target { return Target{typ: TypeRoom, name: name} }

// ToAll returns the target for every authenticated client.
func ToAll() Target { return Target{typ: TypeBroadcast} }

// Except returns t without the clients with those ids, in addition to the exclusions that t already
// has. Only rooms and ToAll may have exclusions; Check reports any other use. Queries, such as
// Count, ignore exclusions.
func (t Target) Except(clientIDs ...string) Target {
	if len(clientIDs) > 0 {
		t.excluded = slices.Concat(t.excluded, clientIDs)
	}
	return t
}

// Type returns the kind of target, as in messages between nodes; 0 for the zero Target.
func (t Target) Type() MessageType { return t.typ }

// Name returns the client id, the user id or the room name; empty for ToAll.
func (t Target) Name() string { return t.name }

// Excluded returns the ids passed to Except. The slice must not be changed.
func (t Target) Excluded() []string { return t.excluded }

// String describes t in words: `all clients`, or `room "tea"`.
func (t Target) String() string {
	switch t.typ {
	case TypeBroadcast:
		return "all clients"
	case TypeClient, TypeUser, TypeRoom:
		return fmt.Sprintf("%v %q", t.typ, truncate(t.name, MaxNodeName))
	}
	return "no target"
}

// Check returns an error if no message can be sent to t. It does not check whether such a client
// exists. The error wraps ErrTarget.
func (t Target) Check() error {
	switch {
	case t.typ < TypeBroadcast || t.typ > TypeUser:
		return fmt.Errorf("%w: the zero Target; use ToClient, ToUser, ToRoom or ToAll", ErrTarget)
	case t.typ == TypeRoom:
		if err := CheckRoom(t.name); err != nil {
			return fmt.Errorf("%w: %w", ErrTarget, err)
		}
	case t.typ != TypeBroadcast && t.name == "":
		return fmt.Errorf("%w: the id of the %v is empty", ErrTarget, t.typ)
	case !validText(t.name):
		return fmt.Errorf("%w: the id of the %v is not valid UTF-8", ErrTarget, t.typ)
	}
	switch {
	case len(t.excluded) == 0:
	case t.typ != TypeRoom && t.typ != TypeBroadcast:
		return fmt.Errorf("%w: Except of a %v; only a room and all clients have exclusions", ErrTarget, t.typ)
	case len(t.excluded) > MaxExclude:
		return fmt.Errorf("%w: %d excluded ids; at most %d", ErrTarget, len(t.excluded), MaxExclude)
	}
	return nil
}

// CheckEvent returns an error if an application cannot send an event with that name: the name is
// empty, not valid UTF-8, or reserved by the protocol. The error wraps ErrEvent.
func CheckEvent(event string) error {
	switch {
	case event == "":
		return fmt.Errorf("%w: the name is empty", ErrEvent)
	case System(event) || event == EventResync:
		return fmt.Errorf("%w: %q is reserved for the protocol", ErrEvent, event)
	case !validText(event):
		return fmt.Errorf("%w: the name is not valid UTF-8", ErrEvent)
	}
	return nil
}

// validText reports whether s is valid UTF-8, except for unpaired surrogates as ParseString encodes
// them.
func validText(s string) bool {
	for !utf8.ValidString(s) {
		i := strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError })
		switch {
		case strings.HasPrefix(s[i:], string(utf8.RuneError)):
			s = s[i+len(string(utf8.RuneError)):]
		case isSurrogate(s[i:]):
			s = s[i+3:]
		default:
			return false
		}
	}
	return true
}

// NoData is the data of an event without data: {"event":"ping"}. A nil value would become null.
type NoData struct{}
