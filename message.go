package hearth

import (
	"encoding/json"
	"fmt"

	"github.com/hearthws/hearth/internal/session"
)

// Message is an event that a client has sent. It encodes to JSON in the form that it has on the
// wire.
type Message struct {
	Event string `json:"event"` // never empty
	// as it was sent, including digits and spaces; nil if there was none
	Data json.RawMessage `json:"data,omitempty"`
	// as it was sent, of any JSON type; nil if there was none
	ID json.RawMessage `json:"id,omitempty"`

	request *session.Request // nil if the client does not expect exactly one answer
}

// Decode decodes the data into v, as json.Unmarshal does. Absent data counts as null. The error
// wraps a *ClientError, so a callback may return it: the client then receives an `error` that says
// that its data was invalid.
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

// A ClientError is an error for the client. If Config.Message, Config.ValidateRooms or a handler
// returns one, wrapped or not, the client receives an `error` event with this code and message, and
// with the id of the message that caused it, if there is one. The connection stays open. The error
// is logged at slog.LevelDebug, with the errors that wrap it, and does not count as a failure of
// the callback.
//
// From Config.Authenticate and Upgrade.FromRequest it counts as ErrRejected: the client receives
// the protocol's own text.
type ClientError struct {
	Code    string // for programs, such as "not_found"; omitted if empty
	Message string // for people; must not be empty
}

// Error returns the code, if there is one, and the message.
func (e *ClientError) Error() string {
	if e.Code == "" {
		return e.Message
	}
	return e.Code + ": " + e.Message
}
