package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unsafe"
)

// EmitterID is the ServerID of messages that come from an emitter. No server has it, so all deliver them.
const EmitterID = "emitter"

// MaxExclude is how many client ids one message may exclude.
const MaxExclude = 1 << 16

// Channels on which messages travel between nodes.
const (
	BroadcastChannel     = "ws:broadcast"
	roomChannelPrefix    = "ws:room:"
	clientChannelPrefix  = "ws:client:"
	userChannelPrefix    = "ws:user:"
	NodesChannel         = "hearth:nodes" // every Hearth node holds it
	nodeChannelPrefix    = "hearth:node:"
	RoomChannelPattern   = roomChannelPrefix + "*" // for Redis PSUBSCRIBE
	ClientChannelPattern = clientChannelPrefix + "*"
	UserChannelPattern   = userChannelPrefix + "*"
)

// RoomChannel is the channel of a room.
func RoomChannel(room string) string { return roomChannelPrefix + room }

// ClientChannel is the channel of one client.
func ClientChannel(clientID string) string { return clientChannelPrefix + clientID }

// UserChannel is the channel of all sessions of a user.
func UserChannel(userID string) string { return userChannelPrefix + userID }

// NodeChannel is the channel of one Hearth node.
func NodeChannel(nodeID string) string { return nodeChannelPrefix + nodeID }

// ParseChannel is whom the messages on a channel are for; ok is false for a channel that carries none for clients.
func ParseChannel(channel string) (t MessageType, target string, ok bool) {
	if channel == BroadcastChannel {
		return TypeBroadcast, "", true
	}
	for t, prefix := range prefixes {
		if target, found := strings.CutPrefix(channel, prefix); found && prefix != "" && target != "" {
			return MessageType(t), target, true
		}
	}
	return 0, "", false
}

// prefixes are those of the channels of each type that has a target.
var prefixes = [...]string{
	TypeRoom: roomChannelPrefix, TypeClient: clientChannelPrefix, TypeUser: userChannelPrefix,
}

// A MessageType says whom a message between nodes is for. The zero value is none.
type MessageType uint8

// The types of messages between nodes. All but TypeBroadcast and TypeNodes need a target. The last two are Hearth's own, for
// its nodes and not for clients; see the constants that begin with Node and Call.
const (
	TypeBroadcast MessageType = iota + 1 // every authenticated client
	TypeRoom                             // the members of a room
	TypeClient                           // one client, by its id
	TypeUser                             // all sessions of a user
	TypeNodes                            // every Hearth node
	TypeNode                             // one Hearth node, by its id
)

// targeted reports whether a message of that type says whom among several it is for.
func (t MessageType) targeted() bool { return t != TypeBroadcast && t != TypeNodes }

// String is the type's name on the wire; "unknown" for a value that has none.
func (t MessageType) String() string {
	switch t {
	case TypeBroadcast:
		return "broadcast"
	case TypeRoom:
		return "room"
	case TypeClient:
		return "client"
	case TypeUser:
		return "user"
	case TypeNodes:
		return "nodes"
	case TypeNode:
		return "node"
	}
	return "unknown"
}

// MarshalText returns the type's name on the wire, in JSON too.
func (t MessageType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads a name. The error wraps ErrMessage.
func (t *MessageType) UnmarshalText(text []byte) error {
	named := parseType(text)
	if named == 0 {
		return fmt.Errorf("%w: unknown type", ErrMessage)
	}
	*t = named
	return nil
}

// ErrMessage is wrapped by every error about a message between nodes that breaks the contract. Such a message is
// dropped and logged.
var ErrMessage = errors.New("protocol: bad message")

// A Message is what one node, or an emitter, tells the others.
type Message struct {
	// ServerID is the sender: a node's UUID, or EmitterID. A node ignores its own.
	ServerID string

	// Type says whom the message is for; not the channel that it came by.
	Type MessageType

	// Target is the room, client id, user id or node id. Empty for TypeBroadcast and TypeNodes.
	Target string

	// Event is the event that clients get, or what nodes are told or asked. Never empty.
	Event string

	// Data is valid JSON, nil when absent, which null is not. Clients then get an event without data.
	Data json.RawMessage

	// Exclude lists the ids of clients that do not get it. Only for TypeRoom and TypeBroadcast, ignored otherwise.
	Exclude []string
}

// Clone is a copy of m that shares nothing with it.
func (m Message) Clone() Message {
	m.ServerID, m.Target, m.Event = strings.Clone(m.ServerID), strings.Clone(m.Target), strings.Clone(m.Event)
	m.Data = bytes.Clone(m.Data)
	exclude := m.Exclude
	m.Exclude = nil
	for _, id := range exclude {
		m.Exclude = append(m.Exclude, strings.Clone(id))
	}
	return m
}

// Channel is the channel that m belongs on; empty if its type is unknown.
func (m Message) Channel() string {
	switch m.Type {
	case TypeBroadcast:
		return BroadcastChannel
	case TypeRoom:
		return RoomChannel(m.Target)
	case TypeClient:
		return ClientChannel(m.Target)
	case TypeUser:
		return UserChannel(m.Target)
	case TypeNodes:
		return NodesChannel
	case TypeNode:
		return NodeChannel(m.Target)
	}
	return ""
}

// Check reports what is missing in m: a known type, a server id, an event, a target. It does not look at Data.
// The error wraps ErrMessage.
func (m Message) Check() error {
	switch {
	case m.Type < TypeBroadcast || m.Type > TypeNode:
		return fmt.Errorf("%w: unknown type", ErrMessage)
	case m.ServerID == "":
		return fmt.Errorf("%w: no serverId", ErrMessage)
	case m.Event == "":
		return fmt.Errorf("%w: no event", ErrMessage)
	case m.Type.targeted() && m.Target == "":
		return fmt.Errorf("%w: %v without a target", ErrMessage, m.Type)
	case len(m.Exclude) > MaxExclude:
		return fmt.Errorf("%w: more than %d ids excluded", ErrMessage, MaxExclude)
	}
	return nil
}

// AppendMessage appends m, which must pass Check and whose Data must be valid JSON, as one line of JSON. The fields
// come in the order in which the other implementations write them, absent ones are left out.
func AppendMessage(dst []byte, m Message) []byte {
	dst = append(dst, `{"serverId":`...)
	dst = appendString(dst, m.ServerID)
	dst = append(dst, `,"type":"`...)
	dst = append(dst, m.Type.String()...)
	dst = append(dst, '"')
	if m.Type.targeted() {
		dst = append(dst, `,"target":`...)
		dst = appendString(dst, m.Target)
	}
	dst = append(dst, `,"event":`...)
	dst = appendString(dst, m.Event)
	if len(m.Data) > 0 {
		dst = append(dst, `,"data":`...)
		dst = append(dst, m.Data...)
	}
	for i, id := range m.Exclude {
		if i == 0 {
			dst = append(dst, `,"exclude":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = appendString(dst, id)
	}
	if len(m.Exclude) > 0 {
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// MarshalJSON returns m as AppendMessage writes it. It fails if m does not pass Check.
func (m Message) MarshalJSON() ([]byte, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	return AppendMessage(nil, m), nil
}

// UnmarshalJSON is ParseMessage of a copy.
func (m *Message) UnmarshalJSON(b []byte) (err error) {
	*m, err = ParseMessage(bytes.Clone(b))
	return err
}

// ParseMessage reads a message between nodes, in whatever order its fields come. It accepts the JSON that ParseEnvelope
// accepts; null counts as absent for target and exclude; elements of exclude that are not strings exclude nobody.
// Everything else that breaks the contract is an error that wraps ErrMessage.
//
// Data aliases b. Time is linear in len(b), memory at most in proportion to it.
func ParseMessage(b []byte) (Message, error) { return parseMessage(b, unquote) }

// ParseMessageString is ParseMessage without copies: not only Data, which must then not be changed, but all strings of
// the message that have no escapes share the memory of s.
func ParseMessageString(s string) (Message, error) {
	return parseMessage(unsafe.Slice(unsafe.StringData(s), len(s)), unquoteShared)
}

// parseMessage makes texts of valid JSON strings by text.
func parseMessage(b []byte, text func(raw []byte) string) (Message, error) {
	f, err := parseMessageFields(b)
	if err != nil {
		return Message{}, err
	}
	m := Message{Data: f.data}
	if m.Type = parseTypeField(f.typ); m.Type == 0 {
		return Message{}, fmt.Errorf("%w: unknown type", ErrMessage)
	}
	if m.ServerID, err = parseText("serverId", f.serverID, text); err != nil {
		return Message{}, err
	}
	if m.Event, err = parseText("event", f.event, text); err != nil {
		return Message{}, err
	}
	if m.Type != TypeBroadcast {
		if m.Target, err = parseText("target", f.target, text); err != nil {
			return Message{}, err
		}
	}
	if m.Type == TypeRoom || m.Type == TypeBroadcast {
		if m.Exclude, err = parseExclude(f.exclude, text); err != nil {
			return Message{}, err
		}
	}
	if err := m.Check(); err != nil {
		return Message{}, err
	}
	return m, nil
}

// messageFields are the raw values of a message's members, nil where absent.
type messageFields struct{ serverID, typ, target, event, data, exclude []byte }

func parseMessageFields(b []byte) (messageFields, error) {
	f, ok := parseCanonicalFields(b)
	if ok {
		return f, nil
	}
	f = messageFields{}
	valid, object := parseObject(b, func(key, value []byte) {
		switch string(key) {
		case "serverId":
			f.serverID = value
		case "type":
			f.typ = value
		case "target":
			f.target = value
		case "event":
			f.event = value
		case "data":
			f.data = value
		case "exclude":
			f.exclude = value
		}
	})
	if !valid || !object {
		return f, fmt.Errorf("%w: not a JSON object", ErrMessage)
	}
	return f, nil
}

// parseCanonicalFields are those of a message that looks as AppendMessage and JSON.stringify write it, as nearly all do: the
// members in their order, and no white space between them. To look for just that takes half the time. ok is false for
// any other.
func parseCanonicalFields(b []byte) (f messageFields, ok bool) {
	s := scanner{text: b}
	for _, m := range [...]struct {
		head  string
		value *[]byte
	}{
		{`{"serverId":`, &f.serverID}, {`,"type":`, &f.typ}, {`,"target":`, &f.target},
		{`,"event":`, &f.event}, {`,"data":`, &f.data}, {`,"exclude":`, &f.exclude},
	} {
		if !s.literal(m.head) {
			continue
		}
		start := s.at
		if s.peek() <= ' ' || !s.value(MaxDepth-1) {
			return f, false
		}
		*m.value = b[start:s.at:s.at]
	}
	return f, s.literal("}") && s.at == len(b)
}

// parseTypeField is 0 for what is no type's name.
func parseTypeField(raw []byte) MessageType {
	if len(raw) == 0 || raw[0] != '"' {
		return 0
	}
	return parseType(shortText(raw))
}

func parseType(name []byte) MessageType {
	for t := TypeBroadcast; t <= TypeNode; t++ {
		if string(name) == t.String() {
			return t
		}
	}
	return 0
}

// parseText is a string field's text; empty, for Check to judge, when absent or null.
func parseText(name string, raw []byte, text func([]byte) string) (string, error) {
	switch {
	case len(raw) == 0 || raw[0] == 'n':
		return "", nil
	case raw[0] != '"':
		return "", fmt.Errorf("%w: %s is not a string", ErrMessage, name)
	}
	return text(raw), nil
}

// parseExclude takes an array that the scanner has passed; null and absent give none.
func parseExclude(raw []byte, text func([]byte) string) ([]string, error) {
	if len(raw) == 0 || raw[0] == 'n' {
		return nil, nil
	}
	var ids []string
	array := parseArray(raw, func(id []byte) bool {
		if id[0] == '"' {
			ids = append(ids, text(id))
		}
		return len(ids) <= MaxExclude // one more than allowed is for Check to refuse
	})
	if !array {
		return nil, fmt.Errorf("%w: exclude is not an array", ErrMessage)
	}
	return ids, nil
}
