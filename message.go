package hearth

import (
	"encoding/json"
	"fmt"
)

// Message is an event that a client has sent. It encodes to JSON as it looks on the wire.
type Message struct {
	Event string          `json:"event"`          // never empty
	Data  json.RawMessage `json:"data,omitempty"` // as it was sent, digits and spaces included; nil if there was none
	ID    json.RawMessage `json:"id,omitempty"`   // as it was sent, of any JSON type; nil if there was none
}

// Decode decodes the data into v, as json.Unmarshal does. Data that is absent counts as null. The error wraps a
// *ClientError, so a callback may return it: the client is then told that its data was invalid.
func (m Message) Decode(v any) error {
	data := m.Data
	if data == nil {
		data = json.RawMessage("null")
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("hearth: decode the data of %q: %w: %w", m.Event, &ClientError{Code: "invalid_data", Message: "Invalid data"}, err)
	}
	return nil
}

// A ClientError is an error that is meant for the client. If Config.Message, Config.ValidateRooms or a handler returns one,
// wrapped or not, the client gets it as an `error` event with this code and message, and with the id of the message that
// caused it if that had one. The connection stays open. It is logged at slog.LevelDebug, with what wraps it, and not counted
// as a failure of the callback.
//
// From Config.Authenticate and Upgrade.FromRequest it counts as ErrRejected: the client gets the protocol's own text.
type ClientError struct {
	Code    string // for programs, such as "not_found"; empty: left out
	Message string // for people; not empty
}

// Error returns the message, with the code before it.
func (e *ClientError) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return e.Code + ": " + e.Message
}
