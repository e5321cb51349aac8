// Package identity defines what the server binary knows about an authenticated client, whichever
// way it authenticated.
package identity

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/hearthws/hearth/protocol"
)

// The limits of an Identity.
const (
	MaxUser     = 256     // bytes of a user id
	MaxMetadata = 4 << 10 // bytes of metadata
	MaxRooms    = 1024    // rooms
	MaxClaims   = 4 << 10 // bytes of the names and values of claims
)

// Identity describes an authenticated client. It must not be changed.
type Identity struct {
	User     string            `json:"user,omitempty"`     // the user id; empty for an anonymous client
	Metadata json.RawMessage   `json:"metadata,omitempty"` // valid JSON; nil for none
	Rooms    []string          `json:"rooms,omitempty"`    // the rooms that the client joins when it connects
	Claims   map[string]string `json:"claims,omitempty"`   // further values by name; nil for none
	Expires  time.Time         `json:"expires,omitzero"`   // when the credentials expire; zero for never
}

// Check returns an error for the first part that exceeds a limit, or is not a valid name of a room.
func (id Identity) Check() error {
	if len(id.User) > MaxUser {
		return fmt.Errorf("the user id has %d bytes, limit %d", len(id.User), MaxUser)
	}
	if len(id.Metadata) > MaxMetadata {
		return fmt.Errorf("the metadata has %d bytes, limit %d", len(id.Metadata), MaxMetadata)
	}
	if len(id.Rooms) > MaxRooms {
		return fmt.Errorf("there are %d rooms, limit %d", len(id.Rooms), MaxRooms)
	}
	claims := 0
	for name, value := range id.Claims {
		claims += len(name) + len(value)
	}
	if claims > MaxClaims {
		return fmt.Errorf("the claims have %d bytes, limit %d", claims, MaxClaims)
	}
	for _, room := range id.Rooms {
		if err := protocol.CheckRoom(room); err != nil {
			return fmt.Errorf("%.64q cannot be a room: %w", room, err)
		}
	}
	return nil
}
