package hub

import "encoding/hex"

// ID is a client's id, a UUID. Each client has one, and the hub mostly compares ids and looks them
// up. As text, an id would take 64 bytes instead of 16. String makes the text when it is needed.
type ID [16]byte

// idLength is the length of the text of an id.
const idLength = 36

// String returns the text of the id: lower case, with hyphens (RFC 9562 §4).
func (id ID) String() string {
	var b [idLength]byte
	hex.Encode(b[:8], id[:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:], id[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// ParseID parses the result of String, and no other text, so each id has one text. ok is false for
// most names of rooms, after the comparison of a length.
func ParseID(s string) (id ID, ok bool) {
	if len(s) != idLength || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, false
	}
	for i, at := range [len(id)]int{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34} {
		high, low := digit(s[at]), digit(s[at+1])
		if high|low > 15 {
			return ID{}, false
		}
		id[i] = high<<4 | low
	}
	return id, true
}

// digit returns the value of a hexadecimal digit in lower case, more than 15 for any other
// character.
func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}
