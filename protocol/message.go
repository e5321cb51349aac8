package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unsafe"
)

// EmitterID is the ServerID of messages from an emitter. No server has this id, so all servers
// deliver them.
const EmitterID = "emitter"

// MaxExclude is the maximum number of client ids that one message may exclude.
const MaxExclude = 1 << 16

// MaxKey is the longest Message.Key, in bytes.
const MaxKey = 256

// Channels that carry messages between nodes.
const (
	BroadcastChannel     = "ws:broadcast"
	roomChannelPrefix    = "ws:room:"
	clientChannelPrefix  = "ws:client:"
	userChannelPrefix    = "ws:user:"
	NodesChannel         = "hearth:nodes" // every Hearth node subscribes to it
	nodeChannelPrefix    = "hearth:node:"
	RoomChannelPattern   = roomChannelPrefix + "*" // for Redis PSUBSCRIBE
	ClientChannelPattern = clientChannelPrefix + "*"
	UserChannelPattern   = userChannelPrefix + "*"
)

// RoomChannel returns the channel of a room.
func RoomChannel(room string) string { return roomChannelPrefix + room }

// ClientChannel returns the channel of one client.
func ClientChannel(clientID string) string { return clientChannelPrefix + clientID }

// UserChannel returns the channel of all sessions of a user.
func UserChannel(userID string) string { return userChannelPrefix + userID }

// NodeChannel returns the channel of one Hearth node.
func NodeChannel(nodeID string) string { return nodeChannelPrefix + nodeID }

// ParseChannel returns the target of the messages on a channel. ok is false for a channel that
// carries no messages to clients.
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

// prefixes has the channel prefix of each message type that has a target.
var prefixes = [...]string{
	TypeRoom: roomChannelPrefix, TypeClient: clientChannelPrefix, TypeUser: userChannelPrefix,
}

// A MessageType says which clients or nodes a message between nodes is for. The zero value is
// invalid.
type MessageType uint8

// The types of messages between nodes. All except TypeBroadcast and TypeNodes need a target. The
// last two exist only between Hearth nodes and do not reach clients; see the constants that begin
// with Node and Call.
const (
	TypeBroadcast MessageType = iota + 1 // every authenticated client
	TypeRoom                             // the members of a room
	TypeClient                           // one client, by its id
	TypeUser                             // all sessions of a user
	TypeNodes                            // every Hearth node
	TypeNode                             // one Hearth node, by its id
)

// targeted reports whether messages of the type need a target.
func (t MessageType) targeted() bool { return t != TypeBroadcast && t != TypeNodes }

// String returns the type's name on the wire, or "unknown".
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

// MarshalText returns the type's name on the wire, which is also its JSON form.
func (t MessageType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText parses a name. The error wraps ErrMessage.
func (t *MessageType) UnmarshalText(text []byte) error {
	named := parseType(text)
	if named == 0 {
		return fmt.Errorf("%w: unknown type", ErrMessage)
	}
	*t = named
	return nil
}

// ErrMessage is wrapped by every error about an invalid message between nodes. Nodes drop and log
// such messages.
var ErrMessage = errors.New("protocol: bad message")

// A Message is a message from a node or an emitter to other nodes.
type Message struct {
	// ServerID identifies the sender: a node's UUID, or EmitterID. A node ignores messages with its
	// own id.
	ServerID string

	// Type says which clients or nodes the message is for. It counts, not the channel that carried
	// the message.
	Type MessageType

	// Target is the room, client id, user id or node id. Empty for TypeBroadcast and TypeNodes.
	Target string

	// Event is the event for the clients, or the notification or call for the nodes. Never empty.
	Event string

	// Data is valid JSON, or nil when absent; null is data. Without data, clients get an event
	// without data.
	Data json.RawMessage

	// Exclude lists the ids of clients that do not get the message. Only for TypeRoom and
	// TypeBroadcast, ignored otherwise.
	Exclude []string

	// Position is the place of the message in the history of its room. Only for TypeRoom, ignored
	// otherwise. The broker sets it (broker.History); it is zero for rooms without history, and for
	// messages of senders that do not know the history.
	Position Position

	// Key identifies the message among those that were published to its room recently, so that a
	// second publish of the same message does nothing (broker.History). It is not part of the
	// message on the wire, and ignored for rooms without history and other types. At most MaxKey
	// bytes. Empty: none.
	Key string
}

// Clone returns a copy of m that shares no memory with it.
func (m Message) Clone() Message {
	m.ServerID, m.Target, m.Event = strings.Clone(m.ServerID), strings.Clone(m.Target), strings.Clone(m.Event)
	m.Position.Epoch, m.Key = strings.Clone(m.Position.Epoch), strings.Clone(m.Key)
	m.Data = bytes.Clone(m.Data)
	exclude := m.Exclude
	m.Exclude = nil
	for _, id := range exclude {
		m.Exclude = append(m.Exclude, strings.Clone(id))
	}
	return m
}

// Channel returns the channel of m. It is empty if the type is unknown.
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

// Check returns an error if m lacks a known type, a server id, an event or a target, excludes too
// many ids, or has a key that is too long. It does not check Data and Position. The error wraps ErrMessage.
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
	case len(m.Key) > MaxKey:
		return fmt.Errorf("%w: a key of more than %d bytes", ErrMessage, MaxKey)
	}
	return nil
}

// AppendMessage appends m as one line of JSON. m must pass Check, and its Data must be valid JSON.
// The order of the fields is that of the other implementations. Absent fields are left out.
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
	if m.Type == TypeRoom && m.Position.Offset > 0 {
		dst = appendOffset(dst, m.Position)
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

// UnmarshalJSON calls ParseMessage with a copy of b.
func (m *Message) UnmarshalJSON(b []byte) (err error) {
	*m, err = ParseMessage(bytes.Clone(b))
	return err
}

// ParseMessage parses a message between nodes, with its fields in any order. It accepts the same
// JSON as ParseEnvelope. For target and exclude, null counts as absent. Elements of exclude that
// are not strings are ignored. For any other violation the error wraps ErrMessage.
//
// Data aliases b. Time is linear in len(b), memory at most proportional to it.
func ParseMessage(b []byte) (Message, error) { return parseMessage(b, unquote) }

// ParseMessageString is ParseMessage without copies. Data, which must not be changed, and all
// strings without escapes share the memory of s.
func ParseMessageString(s string) (Message, error) {
	return parseMessage(unsafe.Slice(unsafe.StringData(s), len(s)), unquoteShared)
}

// parseMessage parses a message, and uses text to decode JSON strings, which are valid.
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
	if m.Type == TypeRoom && f.offset != nil {
		if m.Position, err = parseMessagePosition(f, text); err != nil {
			return Message{}, err
		}
	}
	if err := m.Check(); err != nil {
		return Message{}, err
	}
	return m, nil
}

// messageFields has the raw values of a message's members, nil where absent.
type messageFields struct{ serverID, typ, target, event, data, exclude, offset, epoch []byte }

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
		case "offset":
			f.offset = value
		case "epoch":
			f.epoch = value
		}
	})
	if !valid || !object {
		return f, fmt.Errorf("%w: not a JSON object", ErrMessage)
	}
	return f, nil
}

// parseCanonicalFields parses a message in the form that AppendMessage and JSON.stringify write:
// the members in their order, without white space between them. Nearly all messages have this form,
// and checking for it takes half the time. ok is false for any other form.
func parseCanonicalFields(b []byte) (f messageFields, ok bool) {
	s := scanner{text: b}
	for _, m := range [...]struct {
		head  string
		value *[]byte
	}{
		{`{"serverId":`, &f.serverID}, {`,"type":`, &f.typ}, {`,"target":`, &f.target},
		{`,"event":`, &f.event}, {`,"data":`, &f.data}, {`,"exclude":`, &f.exclude},
		{`,"offset":`, &f.offset}, {`,"epoch":`, &f.epoch},
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

// parseTypeField returns the message type in raw, 0 if it is not the name of a type.
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

// parseText returns the text of a string field. If the field is absent or null, the text is empty,
// and Check reports that.
func parseText(name string, raw []byte, text func([]byte) string) (string, error) {
	switch {
	case len(raw) == 0 || raw[0] == 'n':
		return "", nil
	case raw[0] != '"':
		return "", fmt.Errorf("%w: %s is not a string", ErrMessage, name)
	}
	return text(raw), nil
}

// parseMessagePosition returns the position of a message of a room. Invalid positions are errors: a
// message without its position would be delivered out of order.
func parseMessagePosition(f messageFields, text func([]byte) string) (p Position, err error) {
	p.Offset = parseInteger(f.offset, MaxOffset)
	if p.Epoch, err = parseText("epoch", f.epoch, text); err != nil {
		return Position{}, err
	}
	if p.Offset == 0 || !validEpoch(p.Epoch) {
		return Position{}, fmt.Errorf("%w: invalid position", ErrMessage)
	}
	return p, nil
}

// parseExclude parses an array that the scanner has checked. It returns nil if the array is null or
// absent.
func parseExclude(raw []byte, text func([]byte) string) ([]string, error) {
	if len(raw) == 0 || raw[0] == 'n' {
		return nil, nil
	}
	var ids []string
	array := parseArray(raw, func(id []byte) bool {
		if id[0] == '"' {
			ids = append(ids, text(id))
		}
		// Keeps one more than allowed, so that Check reports the excess.
		return len(ids) <= MaxExclude
	})
	if !array {
		return nil, fmt.Errorf("%w: exclude is not an array", ErrMessage)
	}
	return ids, nil
}
