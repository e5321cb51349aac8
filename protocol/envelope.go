package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
)

// The errors of ParseEnvelope.
var (
	// ErrSyntax means that the text is not UTF-8, or not JSON as JSON.parse accepts it. The server
	// answers such a message with ErrInvalidFormat.
	ErrSyntax = errors.New("protocol: not JSON")

	// ErrNoEvent means that the JSON has no event that is a non-empty string. The server drops such
	// a message without an answer.
	ErrNoEvent = errors.New("protocol: no event")
)

// An Envelope is one message from a client or to a client.
type Envelope struct {
	// Event is never empty after ParseEnvelope. Unpaired surrogates are encoded as ParseString
	// does.
	Event string

	// Data is the JSON text of the data as it was sent, including its digits and spaces. It is nil
	// when the data is absent; null is data.
	Data json.RawMessage

	// ID is the JSON text of the id, of any type; nil when absent. The protocol gives it no
	// meaning.
	ID json.RawMessage

	// Extension is the JSON text of the member "hearth", with which a client requests the extension
	// in authenticate (ParseExtensionRequest); nil when absent.
	Extension json.RawMessage
}

// MarshalJSON returns e as it is sent on the wire, without absent members.
func (e Envelope) MarshalJSON() ([]byte, error) {
	b := AppendEvent(nil, e.Event, e.Data)
	if len(e.ID) > 0 {
		b = append(append(b[:len(b)-1], `,"id":`...), e.ID...)
		b = append(b, '}')
	}
	if len(e.Extension) > 0 {
		b = append(append(b[:len(b)-1], `,"hearth":`...), e.Extension...)
		b = append(b, '}')
	}
	return b, nil
}

// UnmarshalJSON calls ParseEnvelope with a copy of b.
func (e *Envelope) UnmarshalJSON(b []byte) (err error) {
	*e, err = ParseEnvelope(bytes.Clone(b))
	return err
}

// ParseEnvelope parses one message. It accepts what JSON.parse accepts, up to MaxDepth: the last of
// equal keys counts, escapes in keys are decoded, and unknown keys are checked and ignored. The
// error is ErrSyntax or ErrNoEvent.
//
// Data, ID and Extension alias b. An event name of the protocol needs no allocation; any other name is copied.
// Time is linear in len(b).
func ParseEnvelope(b []byte) (Envelope, error) {
	var e Envelope
	var event []byte
	valid, object := parseObject(b, func(key, value []byte) {
		switch string(key) {
		case "event":
			event = value
		case "data":
			e.Data = value
		case "id":
			e.ID = value
		case "hearth":
			e.Extension = value
		}
	})
	switch {
	case !valid:
		return Envelope{}, ErrSyntax
	// The event is missing, empty, or not a string.
	case !object, len(event) <= len(`""`), event[0] != '"':
		return Envelope{}, ErrNoEvent
	}
	e.Event = eventName(event)
	return e, nil
}

// eventName is unquote without an allocation for the frequent names.
func eventName(raw []byte) string {
	switch string(raw[1 : len(raw)-1]) {
	case EventHeartbeat:
		return EventHeartbeat
	case EventJoin:
		return EventJoin
	case EventLeave:
		return EventLeave
	case EventAuthenticate:
		return EventAuthenticate
	case EventEncrypted:
		return EventEncrypted
	}
	return unquote(raw)
}
