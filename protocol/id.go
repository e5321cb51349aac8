package protocol

import (
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"strings"
)

// idLength is the length of a UUID in text form.
const idLength = 36

// IsID reports whether s has the form of a client or node id: a version 4 UUID in lower case.
func IsID(s string) bool {
	if len(s) != idLength {
		return false
	}
	for i := range len(s) {
		c := s[i]
		hex := '0' <= c && c <= '9' || 'a' <= c && c <= 'f'
		switch i {
		case 8, 13, 18, 23:
			hex = c == '-'
		case 14:
			hex = c == '4'
		case 19:
			hex = c == '8' || c == '9' || c == 'a' || c == 'b'
		}
		if !hex {
			return false
		}
	}
	return true
}

// The id of a client of a Hearth node is a version 4 UUID with a checksum: its last four bytes are
// the CRC-32 (IEEE) of the first twelve (docs/protocol.md §4). The checksum is not secret and
// proves nothing. It lets every node recognise client ids without asking another node, so that no
// client joins the room of another client.
const checksumOffset = 12

// StampClientID turns id, which holds random bytes, into a client id. It sets the version, the
// variant and the checksum.
func StampClientID(id *[16]byte) {
	id[6] = id[6]&0x0f | 4<<4 // the version (RFC 9562 §5.4)
	id[8] = id[8]&0x3f | 2<<6 // the variant
	binary.BigEndian.PutUint32(id[checksumOffset:], crc32.ChecksumIEEE(id[:checksumOffset]))
}

// IsClientID reports whether s has the form of the id of a client of a Hearth node. It is true for
// every id that StampClientID has made, whether or not the client is connected, and false for the
// ids that other implementations give. A random UUID has this form by chance once in 2^32.
func IsClientID(s string) bool {
	if !IsID(s) {
		return false
	}
	id, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil {
		return false
	}
	return binary.BigEndian.Uint32(id[checksumOffset:]) == crc32.ChecksumIEEE(id[:checksumOffset])
}
