package protocol

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"
)

const (
	// MaxRoomName is the length of the longest room name, in characters as JavaScript counts them: UTF-16 code units.
	MaxRoomName = 256

	// MaxRoomsPerRequest is how many names of one join or leave are looked at. Those beyond are ignored: they are all
	// handed to one call of the room validator, and 128 KiB of JSON can hold more than thirty thousand.
	MaxRoomsPerRequest = 1024

	// ReservedRoomPrefix starts the names of channels, and so no room's.
	ReservedRoomPrefix = "ws:"
)

// maxRoomJSON is the most that a room's name can take as JSON: each code unit as \uXXXX, and the quotes.
const maxRoomJSON = 6*MaxRoomName + 2

// What CheckRoom refuses.
var (
	ErrRoomEmpty    = errors.New("protocol: room name is empty")
	ErrRoomTooLong  = errors.New("protocol: room name is longer than 256 characters")
	ErrRoomReserved = errors.New(`protocol: room name starts with "ws:"`)
	ErrRoomInvalid  = errors.New("protocol: room name is not valid UTF-8")
)

// CheckRoom reports why name cannot be a room's, nil if it can: it must be valid UTF-8, not empty, at most MaxRoomName
// characters and must not start with ReservedRoomPrefix.
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

// utf16Len is what JavaScript calls the length of s.
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

// ParseRooms is the list in the data of a join or leave, {"rooms":[…]}, in its order. What is not a string, and what
// CheckRoom refuses, is left out, as is everything after the first MaxRoomsPerRequest elements. Anything but such an
// object gives nil. The names do not alias data.
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
