package protocol

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// What nodes tell each other about themselves and ask of each other (docs/protocol.md §9): the events of messages of
// TypeNodes and TypeNode. The other implementations do not listen on those channels.
const (
	NodeHello = "hello" // to all: I am here; who else is? Data is a Presence
	NodeHere  = "here"  // to all at intervals, or to one in answer to its hello: I am here. Data is a Presence
	NodeBye   = "bye"   // to all: do not wait for me any more

	// NodeMissed tells all nodes that they may have missed messages of its sender, a node or an emitter. Data is a Missed.
	NodeMissed = "missed"

	// Calls: to all, with the data of a Call. Each node does it for its own clients, and answers the one that has asked by
	// the same event, with the data of a Reply.
	CallCount      = "count"      // how many clients has the target?
	CallDisconnect = "disconnect" // close the clients of a client or user target
	CallJoin       = "join"       // make the clients of a client or user target members of rooms
	CallLeave      = "leave"      // remove the clients of a client or user target from rooms
)

const (
	// MaxNodeData is how many bytes of data a message to nodes may have; more is refused unread.
	MaxNodeData = 256 << 10

	// MaxRoomsPerCall is how many rooms one call may name.
	MaxRoomsPerCall = 128

	// MaxNodeName and MaxCallError are how many bytes the name of a node, and the text of an error, may have. Longer
	// ones are cut.
	MaxNodeName  = 64
	MaxCallError = 256

	// MaxMissed is how long ago what a Missed is about may have begun. What was longer ago counts as that.
	MaxMissed = 24 * time.Hour
)

// A Presence is what a node says about itself.
type Presence struct {
	Name string // for people; need not be unique
}

// A Missed is the time in which a sender published messages that may not have reached the nodes. It is told in time before
// the report, since clocks differ.
type Missed struct {
	Since, Until time.Duration // to the millisecond; Since is not less than Until, and at most MaxMissed
}

// A Call is what a node asks of all.
type Call struct {
	Event  string        // one of the calls above; not part of the data
	ID     uint64        // the asking node's own number for it
	Type   MessageType   // of the target
	Target string        // empty for TypeBroadcast
	Within time.Duration // how long the answer is waited for, to the millisecond

	Code   int      // CallDisconnect: the close code
	Reason string   // CallDisconnect
	Rooms  []string // CallJoin, CallLeave
}

// A Reply is what a node has done for a Call.
type Reply struct {
	Call    uint64 // the ID of what it answers
	Clients int    // of that node: counted, closed, joined, taken out
	Error   string // what went wrong with others of its clients; empty if nothing did
}

// The data on the wire, in the order of the members.
type (
	presenceData struct {
		Name string `json:"name"`
	}
	missedData struct {
		Since int64 `json:"since"` // milliseconds ago
		Until int64 `json:"until"`
	}
	callData struct {
		Call   uint64   `json:"call"`
		Type   string   `json:"type"`
		Target string   `json:"target,omitempty"`
		Within int64    `json:"within"` // milliseconds
		Code   int      `json:"code,omitempty"`
		Reason string   `json:"reason,omitempty"`
		Rooms  []string `json:"rooms,omitempty"`
	}
	replyData struct {
		Call    uint64 `json:"call"`
		Clients int    `json:"clients"`
		Error   string `json:"error,omitempty"`
	}
)

// Data is p as the data of a message.
func (p Presence) Data() (json.RawMessage, error) {
	return EncodeData(presenceData{truncate(p.Name, MaxNodeName)})
}

// ParsePresence reads the data of NodeHello and NodeHere. The error wraps ErrMessage.
func ParsePresence(data json.RawMessage) (Presence, error) {
	var d presenceData
	if err := parseNodeData(data, &d); err != nil {
		return Presence{}, err
	}
	return Presence{truncate(d.Name, MaxNodeName)}, nil
}

// Data is m as the data of a message. Since is rounded up, Until down.
func (m Missed) Data() (json.RawMessage, error) {
	m = m.clamped()
	return EncodeData(missedData{(m.Since + time.Millisecond - 1).Milliseconds(), m.Until.Milliseconds()})
}

// ParseMissed reads the data of NodeMissed. The error wraps ErrMessage.
func ParseMissed(data json.RawMessage) (Missed, error) {
	var d missedData
	if err := parseNodeData(data, &d); err != nil {
		return Missed{}, err
	}
	if d.Since < 0 || d.Until < 0 || d.Until > d.Since {
		return Missed{}, fmt.Errorf("%w: missed since %d ms, until %d ms ago", ErrMessage, d.Since, d.Until)
	}
	const most = int64(MaxMissed / time.Millisecond)
	return Missed{time.Duration(min(d.Since, most)) * time.Millisecond, time.Duration(min(d.Until, most)) * time.Millisecond}, nil
}

// clamped is m within its bounds.
func (m Missed) clamped() Missed {
	since := min(max(m.Since, 0), MaxMissed)
	return Missed{since, min(max(m.Until, 0), since)}
}

// Data is c, which must pass Check, as the data of a message.
func (c Call) Data() (json.RawMessage, error) {
	d := callData{c.ID, c.Type.String(), c.Target, c.Within.Milliseconds(), c.Code, c.Reason, c.Rooms}
	data, err := EncodeData(d)
	if err == nil && len(data) > MaxNodeData {
		return nil, fmt.Errorf("%w: call of %d bytes", ErrMessage, len(data))
	}
	return data, err
}

// ParseCall reads the data of a call with that event, and checks it. The error wraps ErrMessage.
func ParseCall(event string, data json.RawMessage) (Call, error) {
	var d callData
	if err := parseNodeData(data, &d); err != nil {
		return Call{}, err
	}
	c := Call{Event: event, ID: d.Call, Type: parseType([]byte(d.Type)), Target: d.Target, Code: d.Code, Reason: d.Reason, Rooms: d.Rooms}
	c.Within = time.Duration(min(max(d.Within, 0), int64(time.Hour/time.Millisecond))) * time.Millisecond
	return c, c.Check()
}

// Check reports what is wrong with c. The error wraps ErrMessage.
func (c Call) Check() error {
	switch {
	case c.Type < TypeBroadcast || c.Type > TypeUser:
		return fmt.Errorf("%w: %s of no known target", ErrMessage, c.Event)
	case c.Type != TypeBroadcast && c.Target == "":
		return fmt.Errorf("%w: %s of a %v without its name", ErrMessage, c.Event, c.Type)
	}
	switch c.Event {
	case CallCount:
		return nil
	case CallDisconnect:
		if c.Type != TypeClient && c.Type != TypeUser {
			return fmt.Errorf("%w: disconnect of a %v; it can be of a client or a user", ErrMessage, c.Type)
		}
		if err := CheckCloseCode(c.Code); err != nil {
			return fmt.Errorf("%w: %w", ErrMessage, err)
		}
		return nil
	case CallJoin, CallLeave:
		if c.Type != TypeClient && c.Type != TypeUser {
			return fmt.Errorf("%w: %s of a %v; it can be of a client or a user", ErrMessage, c.Event, c.Type)
		}
		return checkCallRooms(c.Rooms)
	}
	return fmt.Errorf("%w: no call is named %q", ErrMessage, truncate(c.Event, 64))
}

func checkCallRooms(rooms []string) error {
	if len(rooms) > MaxRoomsPerCall {
		return fmt.Errorf("%w: %d rooms; at most %d in one call", ErrMessage, len(rooms), MaxRoomsPerCall)
	}
	for _, name := range rooms {
		if err := CheckRoom(name); err != nil {
			return fmt.Errorf("%w: %w", ErrMessage, err)
		}
	}
	return nil
}

// Data is r as the data of a message.
func (r Reply) Data() (json.RawMessage, error) {
	return EncodeData(replyData{r.Call, r.Clients, truncate(r.Error, MaxCallError)})
}

// ParseReply reads the data of an answer. The error wraps ErrMessage.
func ParseReply(data json.RawMessage) (Reply, error) {
	var d replyData
	if err := parseNodeData(data, &d); err != nil {
		return Reply{}, err
	}
	if d.Clients < 0 || d.Clients > 1<<30 {
		return Reply{}, fmt.Errorf("%w: %d clients", ErrMessage, d.Clients)
	}
	return Reply{d.Call, d.Clients, truncate(d.Error, MaxCallError)}, nil
}

func parseNodeData(data json.RawMessage, v any) error {
	if len(data) > MaxNodeData {
		return fmt.Errorf("%w: data of %d bytes", ErrMessage, len(data))
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: data of a message to nodes: %w", ErrMessage, err)
	}
	return nil
}

// truncate shortens s to n bytes at most, at the end of a character.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
