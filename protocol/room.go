package protocol

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"
)

const (
	// MaxRoomName is the maximum length of a room name, in UTF-16 code units (JavaScript's length).
	MaxRoomName = 256

	// MaxRoomsPerRequest is the maximum number of names in one join or leave. Further names are
	// ignored. The limit exists because one call of the room validator gets all of them, and 128
	// KiB of JSON can hold more than thirty thousand.
	MaxRoomsPerRequest = 1024

	// ReservedRoomPrefix is the prefix of channel names. No room name may start with it.
	ReservedRoomPrefix = "ws:"
)

// maxRoomJSON is the maximum length of a room name in JSON: each code unit as \uXXXX, and the
// quotes.
const maxRoomJSON = 6*MaxRoomName + 2

// The errors of CheckRoom.
var (
	ErrRoomEmpty    = errors.New("protocol: room name is empty")
	ErrRoomTooLong  = errors.New("protocol: room name is longer than 256 characters")
	ErrRoomReserved = errors.New(`protocol: room name starts with "ws:"`)
	ErrRoomInvalid  = errors.New("protocol: room name is not valid UTF-8")
)

// CheckRoom returns an error if name is not a valid room name. A valid name is non-empty UTF-8 with
// at most MaxRoomName code units, and does not start with ReservedRoomPrefix.
func CheckRoom(name string) error {
	switch {
	case name == "":
		return ErrRoomEmpty
	case strings.HasPrefix(name, ReservedRoomPrefix):
		return ErrRoomReserved
	case len(name) > 3*MaxRoomName: // a code unit takes at most three bytes of UTF-8
		return ErrRoomTooLong
	case !utf8.ValidString(name):
		return ErrRoomInvalid
	case len(name) > MaxRoomName && utf16Len(name) > MaxRoomName:
		return ErrRoomTooLong
	}
	return nil
}

// utf16Len returns the length of s in UTF-16 code units.
func utf16Len(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r > 0xFFFF {
			n++
		}
	}
	return n
}

// ParseRooms returns the list of rooms in the data of a join or leave, {"rooms":[…]}, in order. It
// leaves out elements that are not strings, names that CheckRoom rejects, and everything after the
// first MaxRoomsPerRequest elements. It returns nil if data is not such an object. The names do not
// alias data.
func ParseRooms(data json.RawMessage) []string {
	var list []byte
	if valid, _ := parseObject(data, func(key, value []byte) {
		if string(key) == "rooms" {
			list = value
		}
	}); !valid {
		return nil
	}
	var rooms []string
	seen := 0
	parseArray(list, func(raw []byte) bool {
		seen++
		if raw[0] == '"' && len(raw) <= maxRoomJSON {
			if name := unquote(raw); CheckRoom(name) == nil {
				rooms = append(rooms, name)
			}
		}
		return seen < MaxRoomsPerRequest
	})
	return rooms
}
