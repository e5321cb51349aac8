package protocol

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The extension is what Hearth adds to the protocol for clients that request it
// (docs/protocol.md §13).
const (
	// ExtensionVersion is the version of the extension that this package implements.
	ExtensionVersion = 1

	// ReservedEventPrefix begins the names of the extension's events. Applications cannot use such
	// names.
	ReservedEventPrefix = "hearth:"

	// EventInterrupted tells a client that it no longer gets the messages of some rooms, and has to
	// join them again from its position.
	EventInterrupted = ReservedEventPrefix + "interrupted"
	// EventTicket gives a client a ticket, with which it can resume its session.
	EventTicket = ReservedEventPrefix + "ticket"
	// EventExpiring tells a client that its credentials expire soon.
	EventExpiring = ReservedEventPrefix + "expiring"

	// EventAsk is a question of the server to a client, and EventAnswer the client's answer.
	EventAsk    = ReservedEventPrefix + "ask"
	EventAnswer = ReservedEventPrefix + "answer"

	// FeatureRecovery makes messages of rooms with history carry their position, and lets a client
	// join from a position.
	FeatureRecovery = "recovery"
	// FeatureResume gives a client tickets.
	FeatureResume = "resume"
	// FeatureAsk lets the server ask the client questions.
	FeatureAsk = "ask"
)

// MaxOffset is the largest offset of a message: the largest integer that JavaScript represents
// exactly.
const MaxOffset = 1<<53 - 1

// MaxTicket is the length of the longest ticket that a server accepts, in bytes.
const MaxTicket = 16<<10 - 2

const (
	maxFeatures = 16
	maxEpoch    = 32      // bytes
	maxCode     = 64      // bytes of the code of an error in an answer
	maxText     = 1 << 10 // bytes of its message
)

// An ExtensionRequest is the member "hearth" of authenticate: a client requests the extension.
type ExtensionRequest struct {
	Version  int      // at least 1
	Features []string // at most 16; may have names that the server does not know
	Ticket   string   // to resume a session; empty: none
	// Positions are where a resumed client wants to go on. The server takes them only for rooms of
	// the ticket.
	Positions map[string]Position
}

// Wants reports whether the client requests the feature.
func (r ExtensionRequest) Wants(feature string) bool { return slices.Contains(r.Features, feature) }

// ParseExtensionRequest parses the extension member of an authenticate message,
// Envelope.Extension. If raw is absent or invalid, the client does not request the extension, and
// ok is false.
func ParseExtensionRequest(raw json.RawMessage) (r ExtensionRequest, ok bool) {
	valid, object := parseObject(raw, func(key, value []byte) {
		switch string(key) {
		case "version":
			r.Version = int(parseInteger(value, 1<<30))
		case "features":
			r.Features = nil
			parseArray(value, func(raw []byte) bool {
				if raw[0] == '"' {
					r.Features = append(r.Features, string(shortText(raw)))
				}
				return len(r.Features) < maxFeatures
			})
		case "ticket":
			r.Ticket = ""
			if value[0] == '"' && len(value) <= MaxTicket+2 {
				r.Ticket = unquote(value)
			}
		case "positions":
			r.Positions = parsePositions(value)
		}
	})
	if !valid || !object || r.Version < 1 {
		return ExtensionRequest{}, false
	}
	return r, true
}

// parseInteger returns the integer in raw, or 0 if raw is not an integer from 1 to limit.
func parseInteger(raw []byte, limit uint64) uint64 {
	n, err := strconv.ParseUint(string(raw[:min(len(raw), 20)]), 10, 64)
	if err != nil || len(raw) > 20 || n > limit {
		return 0
	}
	return n
}

// parsePosition parses {"offset":…,"epoch":…}. The offset may be 0, the position before the first
// message. ok is false if raw is not a position.
func parsePosition(raw []byte) (p Position, ok bool) {
	offset := false
	valid, object := parseObject(raw, func(key, value []byte) {
		switch string(key) {
		case "offset":
			p.Offset = parseInteger(value, MaxOffset)
			offset = p.Offset > 0 || string(value) == "0"
		case "epoch":
			p.Epoch = ""
			if value[0] == '"' && len(value) <= maxEpoch+2 {
				p.Epoch = unquote(value)
			}
		}
	})
	return p, valid && object && offset && validEpoch(p.Epoch)
}

// validEpoch reports whether s can be an epoch: 1 to 32 letters, digits, '-' and '_'.
func validEpoch(s string) bool {
	if s == "" || len(s) > maxEpoch {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// parsePositions parses an object with a position for each room. Invalid positions become the zero
// Position. It ignores names that are not valid, and all members after the first
// MaxRoomsPerRequest.
func parsePositions(raw []byte) map[string]Position {
	var positions map[string]Position
	seen := 0
	parseObject(raw, func(key, value []byte) {
		if seen++; seen > MaxRoomsPerRequest {
			return
		}
		name := memberName(key)
		if CheckRoom(name) != nil {
			return
		}
		if positions == nil {
			positions = make(map[string]Position)
		}
		p, ok := parsePosition(value)
		if !ok {
			p = Position{}
		}
		positions[name] = p
	})
	return positions
}

// memberName returns the name of a member whose key parseObject has passed on: a long key with
// escapes is still escaped.
func memberName(key []byte) string {
	if len(key) <= 64 || len(key) > maxRoomJSON {
		return string(key)
	}
	return string(appendUnescaped(nil, key))
}

// A JoinRequest is the data of a join. Servers ignore all but Rooms for clients without the
// extension.
type JoinRequest struct {
	Rooms []string // valid names, in order, as ParseRooms returns them
	// Invalid are the names that are not valid, in order.
	Invalid []InvalidName
	// Ignored is how many elements of the list were ignored: those that are not strings, and those
	// after the first MaxRoomsPerRequest.
	Ignored int
	// Positions are where the client wants to go on in these rooms. An invalid position is the zero
	// Position.
	Positions map[string]Position
	// Last is how many of the newest messages the client wants of these rooms.
	Last map[string]int
}

// An InvalidName is a name in a join or leave that is not a valid room name.
type InvalidName struct {
	Name string // cut to MaxRoomName bytes
	// After is how many of JoinRequest.Rooms come before it in the list.
	After int
}

// ParseJoin parses the data of a join or leave from a client with the extension. The zero
// JoinRequest is the result for data that is not an object.
func ParseJoin(data json.RawMessage) JoinRequest {
	var r JoinRequest
	var list, positions, last []byte
	if valid, _ := parseObject(data, func(key, value []byte) {
		switch string(key) {
		case "rooms":
			list = value
		case "positions":
			positions = value
		case "last":
			last = value
		}
	}); !valid {
		return r
	}
	seen := 0
	parseArray(list, func(raw []byte) bool {
		seen++
		switch {
		case seen > MaxRoomsPerRequest || raw[0] != '"':
			r.Ignored++
		case len(raw) > maxRoomJSON:
			r.Invalid = append(r.Invalid, InvalidName{cut(string(shortText(raw))), len(r.Rooms)})
		default:
			name := unquote(raw)
			if CheckRoom(name) == nil {
				r.Rooms = append(r.Rooms, name)
			} else {
				r.Invalid = append(r.Invalid, InvalidName{cut(name), len(r.Rooms)})
			}
		}
		return true
	})
	r.Positions = parsePositions(positions)
	r.Last = parseLast(last)
	return r
}

// cut returns the beginning of a name that is not valid, to name it in an answer.
func cut(name string) string {
	if len(name) <= MaxRoomName {
		return name
	}
	return strings.ToValidUTF8(name[:MaxRoomName], "")
}

// parseLast parses an object with a number of messages for each room. It ignores names and numbers
// that are not valid, and all members after the first MaxRoomsPerRequest.
func parseLast(raw []byte) map[string]int {
	var last map[string]int
	seen := 0
	parseObject(raw, func(key, value []byte) {
		if seen++; seen > MaxRoomsPerRequest {
			return
		}
		n := parseInteger(value, 1<<31-1)
		name := memberName(key)
		if n == 0 || CheckRoom(name) != nil {
			return
		}
		if last == nil {
			last = make(map[string]int)
		}
		last[name] = int(n)
	})
	return last
}

// Granted is the member "hearth" of connected: the extension that a server grants to a client.
type Granted struct {
	Version  int      // of the extension on this connection
	Features []string // in the order on the wire

	// Heartbeat is after how much silence of its own the client sends a heartbeat. If nothing
	// arrives within HeartbeatTimeout after that, the client should take the connection for dead.
	// Both are rounded to milliseconds.
	Heartbeat, HeartbeatTimeout time.Duration

	MaxMessage int       // bytes of a message from the client
	MaxRooms   int       // that the client may be in; 0: no limit, left out
	Expires    time.Time // when the client's credentials expire; zero: never, left out
	Resumed    []Joined  // the rooms of a client that has resumed its session; nil: it has not
}

// AppendGranted adds the member to the connected message at the end of dst.
func AppendGranted(dst []byte, g Granted) []byte {
	dst = append(dst[:len(dst)-1], `,"hearth":{"version":`...)
	dst = strconv.AppendInt(dst, int64(g.Version), 10)
	dst = append(dst, `,"features":[`...)
	for i, name := range g.Features {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, name)
	}
	dst = append(dst, `],"heartbeat":{"interval":`...)
	dst = strconv.AppendInt(dst, g.Heartbeat.Milliseconds(), 10)
	dst = append(dst, `,"timeout":`...)
	dst = strconv.AppendInt(dst, g.HeartbeatTimeout.Milliseconds(), 10)
	dst = append(dst, `},"limits":{"message":`...)
	dst = strconv.AppendInt(dst, int64(g.MaxMessage), 10)
	if g.MaxRooms > 0 {
		dst = append(dst, `,"rooms":`...)
		dst = strconv.AppendInt(dst, int64(g.MaxRooms), 10)
	}
	dst = append(dst, '}')
	if !g.Expires.IsZero() {
		dst = append(dst, `,"expires":`...)
		dst = appendTime(dst, g.Expires)
	}
	if g.Resumed != nil {
		dst = append(dst, `,"resumed":{"joined":`...)
		dst = append(appendJoined(dst, g.Resumed), `,"rejected":[]}`...)
	}
	return append(dst, `}}`...)
}

// AppendPosition adds the position of a room's message to the message at the end of dst.
func AppendPosition(dst []byte, room string, p Position) []byte {
	dst = append(dst[:len(dst)-1], `,"room":`...)
	dst = appendString(dst, room)
	return append(appendOffset(dst, p), '}')
}

// CopyPosition adds the position of the message src, if it has one, to the message at the end of
// dst.
func CopyPosition(dst, src []byte) []byte {
	var room, offset, epoch []byte
	parseObject(src, func(key, value []byte) {
		switch string(key) {
		case "room":
			room = value
		case "offset":
			offset = value
		case "epoch":
			epoch = value
		}
	})
	if room == nil || offset == nil || epoch == nil {
		return dst
	}
	dst = append(append(dst[:len(dst)-1], `,"room":`...), room...)
	dst = append(append(dst, `,"offset":`...), offset...)
	return append(append(append(dst, `,"epoch":`...), epoch...), '}')
}

// appendOffset appends the members offset and epoch, each after a comma.
func appendOffset(dst []byte, p Position) []byte {
	dst = append(dst, `,"offset":`...)
	dst = strconv.AppendUint(dst, p.Offset, 10)
	dst = append(dst, `,"epoch":`...)
	return appendString(dst, p.Epoch)
}

// The reasons why a room was rejected, in Rejected.Code.
const (
	RejectInvalid   = "invalid"    // the name is not valid
	RejectForbidden = "forbidden"  // the application does not allow it
	RejectLimit     = "limit"      // the client is in too many rooms
	RejectInternal  = "internal"   // the application failed
	RejectNotMember = "not_member" // leave: the client is not in the room
)

// The reasons why missed messages could not be recovered, in Joined.Unrecovered.
const (
	UnrecoveredEvicted     = "evicted"     // some of them are no longer stored
	UnrecoveredReset       = "reset"       // the position is of another epoch, or does not exist yet
	UnrecoveredLimit       = "limit"       // there are more than the server recovers
	UnrecoveredInvalid     = "invalid"     // the position is not valid
	UnrecoveredUnavailable = "unavailable" // the history cannot be read now
	UnrecoveredNoHistory   = "no_history"  // the room has no history
)

// The codes of errors that servers send in answer to a request, in ClientError.Code.
const (
	CodeInternal       = "internal"        // the application failed
	CodeBusy           = "busy"            // an authenticate is too early after another one
	CodeUnknownEvent   = "unknown_event"   // the application does not handle the event
	CodeTicketRejected = "ticket_rejected" // the client has to authenticate with its credentials
)

// A Joined is a room that a client is in after its join.
type Joined struct {
	Room string // its name
	// Position is the position after which the live messages follow; the zero Position if the room
	// has no history, or the client has no FeatureRecovery.
	Position Position
	// Recovered is how many messages follow the answer because the client asked for them.
	Recovered int
	// Unrecovered is why the messages that the client asked for do not follow; empty if they do.
	Unrecovered string
}

// A Rejected is a room that was not joined or left.
type Rejected struct {
	Room string // its name, as JoinRequest has it
	Code string // one of the codes above
}

// AppendJoin appends the answer to a join. id is the JSON text of the id of the join, or nil.
func AppendJoin(dst []byte, joined []Joined, rejected []Rejected, ignored int, id []byte) []byte {
	dst = append(dst, `{"event":"join","data":{"joined":`...)
	return appendRejected(appendJoined(dst, joined), rejected, ignored, id)
}

// appendJoined appends a list of rooms.
func appendJoined(dst []byte, joined []Joined) []byte {
	dst = append(dst, '[')
	for i, j := range joined {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"room":`...)
		dst = appendString(dst, j.Room)
		if j.Position != (Position{}) {
			dst = appendOffset(dst, j.Position)
		}
		if j.Recovered > 0 {
			dst = append(dst, `,"recovered":`...)
			dst = strconv.AppendInt(dst, int64(j.Recovered), 10)
		}
		if j.Unrecovered != "" {
			dst = append(dst, `,"unrecovered":`...)
			dst = appendString(dst, j.Unrecovered)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// AppendLeave appends the answer to a leave. id is the JSON text of the id of the leave, or nil.
func AppendLeave(dst []byte, left []string, rejected []Rejected, ignored int, id []byte) []byte {
	dst = append(dst, `{"event":"leave","data":{"left":`...)
	return appendRejected(appendStrings(dst, left), rejected, ignored, id)
}

// appendRejected appends the end of an answer to a join or leave.
func appendRejected(dst []byte, rejected []Rejected, ignored int, id []byte) []byte {
	dst = append(dst, `,"rejected":[`...)
	for i, r := range rejected {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"room":`...)
		dst = appendString(dst, r.Room)
		dst = append(dst, `,"code":`...)
		dst = appendString(dst, r.Code)
		dst = append(dst, '}')
	}
	dst = append(dst, ']')
	if ignored > 0 {
		dst = append(dst, `,"ignored":`...)
		dst = strconv.AppendInt(dst, int64(ignored), 10)
	}
	return appendID(append(dst, `}}`...), id)
}

func appendStrings(dst []byte, list []string) []byte {
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, s)
	}
	return append(dst, ']')
}

// InterruptedGap is the reason of EventInterrupted: the server has missed messages, and could not
// read them from the history.
const InterruptedGap = "gap"

// AppendInterrupted appends the event that takes rooms from a client, for the reason above.
func AppendInterrupted(dst []byte, rooms []string, reason string) []byte {
	dst = append(dst, `{"event":"hearth:interrupted","data":{"rooms":`...)
	dst = appendStrings(dst, rooms)
	dst = append(dst, `,"reason":`...)
	dst = appendString(dst, reason)
	return append(dst, `}}`...)
}

// AppendTicket appends the event that gives a client a ticket.
func AppendTicket(dst []byte, ticket string, expires time.Time) []byte {
	dst = append(dst, `{"event":"hearth:ticket","data":{"ticket":`...)
	dst = appendString(dst, ticket)
	dst = append(dst, `,"expires":`...)
	return append(appendTime(dst, expires), `}}`...)
}

// AppendExpiring appends the event that tells a client when its credentials expire.
func AppendExpiring(dst []byte, expires time.Time) []byte {
	dst = append(dst, `{"event":"hearth:expiring","data":{"expires":`...)
	return append(appendTime(dst, expires), `}}`...)
}

// AppendReauthenticated appends the answer to an authenticate of a client that is authenticated.
// expires is zero if the new credentials do not expire. id is the JSON text of the id of the
// authenticate, or nil.
func AppendReauthenticated(dst []byte, expires time.Time, id []byte) []byte {
	dst = append(dst, `{"event":"authenticate"`...)
	if !expires.IsZero() {
		dst = append(dst, `,"data":{"expires":`...)
		dst = append(appendTime(dst, expires), '}')
	}
	return appendID(append(dst, '}'), id)
}

// AppendAsk appends a question to a client: an event of the application, for which the client
// returns a value. ask is its number, from 1 to MaxOffset. data is JSON text and is copied without
// a check. If data is nil, the question has no data member.
func AppendAsk(dst []byte, ask uint64, event string, data []byte) []byte {
	dst = append(dst, `{"event":"hearth:ask","data":{"ask":`...)
	dst = strconv.AppendUint(dst, ask, 10)
	dst = append(dst, `,"event":`...)
	dst = appendString(dst, event)
	if len(data) > 0 {
		dst = append(dst, `,"data":`...)
		dst = append(dst, data...)
	}
	return append(dst, `}}`...)
}

// An Answer is the answer of a client to a question of the server.
type Answer struct {
	Ask  uint64          // the number of the question
	Data json.RawMessage // as it was sent; nil when absent
	// Error says why there is no answer; nil if there is one. Its texts are cut to 64 bytes for the
	// code and 1 KiB for the message.
	Error *ClientError
}

// ParseAnswer parses the data of an EventAnswer. ok is false if it has no number of a question. An
// error that is not an object counts as one without a code and a message. Data aliases data.
func ParseAnswer(data json.RawMessage) (a Answer, ok bool) {
	valid, object := parseObject(data, func(key, value []byte) {
		switch string(key) {
		case "ask":
			a.Ask = parseInteger(value, MaxOffset)
		case "data":
			a.Data = value
		case "error":
			a.Error = parseAnswerError(value)
		}
	})
	if !valid || !object || a.Ask == 0 {
		return Answer{}, false
	}
	return a, true
}

func parseAnswerError(raw []byte) *ClientError {
	e := new(ClientError)
	text := func(value []byte, most int) string {
		if value[0] != '"' || len(value) > 6*most+2 {
			return ""
		}
		s := unquote(value)
		return strings.ToValidUTF8(s[:min(len(s), most)], "")
	}
	parseObject(raw, func(key, value []byte) {
		switch string(key) {
		case "code":
			e.Code = text(value, maxCode)
		case "message":
			e.Message = text(value, maxText)
		}
	})
	return e
}
