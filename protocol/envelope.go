package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
)

// What ParseEnvelope refuses.
var (
	// ErrSyntax is for what JSON.parse would throw at, and what is not UTF-8. The client is told ErrInvalidFormat.
	ErrSyntax = errors.New("protocol: not JSON")

	// ErrNoEvent is for JSON without an event that is a non-empty string. The message is dropped without an answer.
	ErrNoEvent = errors.New("protocol: no event")
)

// An Envelope is one message from a client, or to one.
type Envelope struct {
	// Event is never empty after ParseEnvelope. Unpaired surrogates are kept as ParseString keeps them.
	Event string

	// Data is the JSON text of the data as it was sent, digits and spaces untouched; nil when absent, which null is not.
	Data json.RawMessage

	// ID is the JSON text of the id, of whatever type; nil when absent. The protocol gives it no meaning.
	ID json.RawMessage
}

// MarshalJSON returns e as it goes over the wire, without what is absent.
func (e Envelope) MarshalJSON() ([]byte, error) {
	b := AppendEvent(nil, e.Event, e.Data)
	if len(e.ID) > 0 {
		b = append(append(b[:len(b)-1], `,"id":`...), e.ID...)
		b = append(b, '}')
	}
	return b, nil
}

// UnmarshalJSON is ParseEnvelope of a copy.
func (e *Envelope) UnmarshalJSON(b []byte) (err error) {
	*e, err = ParseEnvelope(bytes.Clone(b))
	return err
}

// ParseEnvelope reads one message. It accepts what JSON.parse accepts, up to MaxDepth: of equal keys the last counts,
// escapes in keys are understood, unknown keys are checked and ignored. The error is ErrSyntax or ErrNoEvent.
//
// Data and ID alias b. An event with a name of the protocol costs no memory, any other its own length. Time is linear
// in len(b).
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
		}
	})
	switch {
	case !valid:
		return Envelope{}, ErrSyntax
	case !object, len(event) <= len(`""`), event[0] != '"': // no event, an empty one, or not a string
		return Envelope{}, ErrNoEvent
	}
	e.Event = eventName(event)
	return e, nil
}

// eventName is unquote without memory for the names that come all the time.
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
