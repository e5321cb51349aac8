package protocol

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// Events of messages with TypeNodes and TypeNode, with which nodes announce themselves and call
// each other (docs/protocol.md §9). The other implementations do not subscribe to those channels.
const (
	// To all: the sender has started and asks the others to announce themselves. Data is a
	// Presence.
	NodeHello = "hello"
	// To all at intervals, or to one node in answer to its hello: the sender is alive. Data is a
	// Presence.
	NodeHere = "here"
	NodeBye  = "bye" // to all: the sender is shutting down

	// NodeMissed tells all nodes that they may have missed messages of its sender, a node or an
	// emitter. Data is a Missed.
	NodeMissed = "missed"

	// Calls, sent to all nodes with the data of a Call. Each node handles the call for its own
	// clients and answers the caller with the same event and the data of a Reply.
	CallCount      = "count"      // count the clients of the target
	CallDisconnect = "disconnect" // close the clients of a client or user target
	CallJoin       = "join"       // make the clients of a client or user target members of rooms
	CallLeave      = "leave"      // remove the clients of a client or user target from rooms
	// CallResume says that the calling node resumes sessions with tickets. A node rejects those in its
	// reply of which it knows that they must not be accepted. It closes its connections of the other
	// clients.
	CallResume = "resume"
	CallRevoke = "revoke" // reject the tickets that a client or user target has got until now
)

const (
	// MaxNodeData is the maximum size of the data of a message to nodes, in bytes. Larger data is
	// rejected without being parsed.
	MaxNodeData = 256 << 10

	// MaxRoomsPerCall is the maximum number of rooms in one call.
	MaxRoomsPerCall = 128

	// MaxClaims is the maximum number of claims in one call.
	MaxClaims = 256

	// MaxNodeName and MaxCallError are the maximum lengths of a node name and of an error text, in
	// bytes. Longer texts are truncated.
	MaxNodeName  = 64
	MaxCallError = 256

	// MaxMissed is the maximum age of the start of a Missed. Larger values are reduced to it.
	MaxMissed = 24 * time.Hour
)

// A Presence is what a node announces about itself.
type Presence struct {
	Name string // for people; need not be unique
}

// A Missed is the time range in which a sender published messages that may not have reached the
// nodes. It is relative to the time of the report, because the clocks of nodes differ.
type Missed struct {
	// How long ago the range began and ended, to the millisecond; Until <= Since <= MaxMissed.
	Since, Until time.Duration
}

// A Call is a request from one node to all nodes.
type Call struct {
	Event  string        // one of the calls above; not part of the data
	ID     uint64        // chosen by the calling node, to match replies
	Type   MessageType   // of the target
	Target string        // empty for TypeBroadcast
	Within time.Duration // how long the caller waits for replies, to the millisecond

	Code   int      // CallDisconnect: the close code
	Reason string   // CallDisconnect
	Rooms  []string // CallJoin, CallLeave
	Claims []Claim  // CallResume
}

// A Claim is a session that a node resumes with a ticket.
type Claim struct {
	Client     string    `json:"client"`               // the id of the client
	Generation uint32    `json:"generation,omitempty"` // of the ticket
	User       string    `json:"user,omitempty"`       // of the client; empty: anonymous
	Issued     time.Time `json:"issued"`               // when the ticket was issued
}

// A Reply is a node's answer to a Call.
type Reply struct {
	Call    uint64 // the ID of the Call
	Clients int    // how many clients of that node were counted, closed, joined or removed
	Error   string // the error for further clients of that node; empty if there was none

	Rejected []RejectedClaim // CallResume
}

// A RejectedClaim is a claim that a node rejects.
type RejectedClaim struct {
	Claim  int    `json:"claim"`  // the index in Call.Claims
	Reason string `json:"reason"` // one of the reasons below
}

// The reasons for which a node rejects a claim.
const (
	ClaimUsed    = "used"    // a ticket of this generation was used before
	ClaimRevoked = "revoked" // the ticket was revoked
	ClaimUnknown = "unknown" // the node cannot decide
)

// The data on the wire, with its members in order.
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
		Claims []Claim  `json:"claims,omitempty"`
	}
	replyData struct {
		Call    uint64 `json:"call"`
		Clients int    `json:"clients"`
		Error   string `json:"error,omitempty"`

		Rejected []RejectedClaim `json:"rejected,omitempty"`
	}
)

// Data encodes p as the data of a message.
func (p Presence) Data() (json.RawMessage, error) {
	return EncodeData(presenceData{truncate(p.Name, MaxNodeName)})
}

// ParsePresence parses the data of NodeHello and NodeHere. The error wraps ErrMessage.
func ParsePresence(data json.RawMessage) (Presence, error) {
	var d presenceData
	if err := parseNodeData(data, &d); err != nil {
		return Presence{}, err
	}
	return Presence{truncate(d.Name, MaxNodeName)}, nil
}

// Data encodes m as the data of a message. Since is rounded up, Until down.
func (m Missed) Data() (json.RawMessage, error) {
	m = m.clamped()
	return EncodeData(missedData{(m.Since + time.Millisecond - 1).Milliseconds(), m.Until.Milliseconds()})
}

// ParseMissed parses the data of NodeMissed. The error wraps ErrMessage.
func ParseMissed(data json.RawMessage) (Missed, error) {
	var d missedData
	if err := parseNodeData(data, &d); err != nil {
		return Missed{}, err
	}
	if d.Since < 0 || d.Until < 0 || d.Until > d.Since {
		return Missed{}, fmt.Errorf("%w: missed: invalid range, from %d ms to %d ms ago", ErrMessage, d.Since, d.Until)
	}
	const most = int64(MaxMissed / time.Millisecond)
	return Missed{time.Duration(min(d.Since, most)) * time.Millisecond, time.Duration(min(d.Until, most)) * time.Millisecond}, nil
}

// clamped returns m within its bounds.
func (m Missed) clamped() Missed {
	since := min(max(m.Since, 0), MaxMissed)
	return Missed{since, min(max(m.Until, 0), since)}
}

// Data encodes c, which must pass Check, as the data of a message.
func (c Call) Data() (json.RawMessage, error) {
	d := callData{
		Call: c.ID, Type: c.Type.String(), Target: c.Target, Within: c.Within.Milliseconds(), Code: c.Code, Reason: c.Reason, Rooms: c.Rooms,
		Claims: c.Claims,
	}
	data, err := EncodeData(d)
	if err == nil && len(data) > MaxNodeData {
		return nil, fmt.Errorf("%w: call of %d bytes", ErrMessage, len(data))
	}
	return data, err
}

// ParseCall parses and checks the data of a call with that event. The error wraps ErrMessage.
func ParseCall(event string, data json.RawMessage) (Call, error) {
	var d callData
	if err := parseNodeData(data, &d); err != nil {
		return Call{}, err
	}
	c := Call{
		Event: event, ID: d.Call, Type: parseType([]byte(d.Type)), Target: d.Target, Code: d.Code, Reason: d.Reason, Rooms: d.Rooms,
		Claims: d.Claims,
	}
	c.Within = time.Duration(min(max(d.Within, 0), int64(time.Hour/time.Millisecond))) * time.Millisecond
	return c, c.Check()
}

// Check returns an error if c is invalid. The error wraps ErrMessage.
func (c Call) Check() error {
	switch {
	case c.Type < TypeBroadcast || c.Type > TypeUser:
		return fmt.Errorf("%w: %s: unknown target type", ErrMessage, c.Event)
	case c.Type != TypeBroadcast && c.Target == "":
		return fmt.Errorf("%w: %s: the target %v has no name", ErrMessage, c.Event, c.Type)
	}
	switch c.Event {
	case CallCount:
		return nil
	case CallDisconnect:
		if c.Type != TypeClient && c.Type != TypeUser {
			return fmt.Errorf("%w: disconnect: the target is a %v; want a client or a user", ErrMessage, c.Type)
		}
		if err := CheckCloseCode(c.Code); err != nil {
			return fmt.Errorf("%w: %w", ErrMessage, err)
		}
		return nil
	case CallJoin, CallLeave:
		if c.Type != TypeClient && c.Type != TypeUser {
			return fmt.Errorf("%w: %s: the target is a %v; want a client or a user", ErrMessage, c.Event, c.Type)
		}
		return checkCallRooms(c.Rooms)
	case CallRevoke:
		if c.Type != TypeClient && c.Type != TypeUser {
			return fmt.Errorf("%w: revoke: the target is a %v; want a client or a user", ErrMessage, c.Type)
		}
		return nil
	case CallResume:
		return c.checkClaims()
	}
	return fmt.Errorf("%w: unknown call %q", ErrMessage, truncate(c.Event, 64))
}

func (c Call) checkClaims() error {
	if c.Type != TypeBroadcast || len(c.Claims) == 0 || len(c.Claims) > MaxClaims {
		return fmt.Errorf("%w: resume: %d claims for a %v; want 1 to %d for all", ErrMessage, len(c.Claims), c.Type, MaxClaims)
	}
	for _, claim := range c.Claims {
		if !IsClientID(claim.Client) || claim.Issued.IsZero() {
			return fmt.Errorf("%w: resume: a claim without the id of a client, or without the time of issue", ErrMessage)
		}
	}
	return nil
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

// Data encodes r as the data of a message.
func (r Reply) Data() (json.RawMessage, error) {
	return EncodeData(replyData{r.Call, r.Clients, truncate(r.Error, MaxCallError), r.Rejected})
}

// ParseReply parses the data of a reply. The error wraps ErrMessage.
func ParseReply(data json.RawMessage) (Reply, error) {
	var d replyData
	if err := parseNodeData(data, &d); err != nil {
		return Reply{}, err
	}
	if d.Clients < 0 || d.Clients > 1<<30 {
		return Reply{}, fmt.Errorf("%w: %d clients", ErrMessage, d.Clients)
	}
	if len(d.Rejected) > MaxClaims {
		return Reply{}, fmt.Errorf("%w: %d rejected claims", ErrMessage, len(d.Rejected))
	}
	return Reply{d.Call, d.Clients, truncate(d.Error, MaxCallError), d.Rejected}, nil
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

// truncate shortens s to at most n bytes, without splitting a character.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
