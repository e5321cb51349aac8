package seal

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
)

// strict rejects trailing bits that are not zero, but ignores line breaks; decode checks for those.
var strict = base64.StdEncoding.Strict()

// decode decodes canonical base64: exactly the text that encoding the same bytes would give. dst
// must have space for DecodedLen(len(src)) bytes.
func decode(dst, src []byte) (n int, ok bool) {
	n, err := strict.Decode(dst, src)
	return n, err == nil && strict.EncodedLen(n) == len(src)
}

var errBase64 = errors.New("not canonical base64")

// decodeExactly fills dst from s. It rejects a wrong length without reading s.
func decodeExactly(dst []byte, s string) error {
	if want := strict.EncodedLen(len(dst)); len(s) != want {
		return fmt.Errorf("%d characters, want %d", len(s), want)
	}
	var buf [96]byte // enough for the longer of the two inputs: EncodedLen(PublicKeySize) is 88
	src := buf[:copy(buf[:], s)]
	var out [72]byte // DecodedLen includes the bytes that padding replaces
	n, ok := decode(out[:], src)
	switch {
	case !ok:
		return errBase64
	case n != len(dst):
		return fmt.Errorf("%d bytes, want %d", n, len(dst))
	}
	copy(dst, out[:n])
	return nil
}

// pairTable has the two base64 characters for each 12 bits. The first character is the lower byte.
var pairTable = func() (table [1 << 12]uint16) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range table {
		table[i] = uint16(alphabet[i>>6]) | uint16(alphabet[i&63])<<8
	}
	return table
}()

// encode48 returns the eight characters for the upper 48 bits of v. The first character is the
// lowest byte.
func encode48(v uint64) uint64 {
	return uint64(pairTable[v>>52]) | uint64(pairTable[v>>40&0xfff])<<16 |
		uint64(pairTable[v>>28&0xfff])<<32 | uint64(pairTable[v>>16&0xfff])<<48
}

// encodeInPlace replaces b by the base64 of its last n bytes; len(b) must be EncodedLen(n). The
// encoder of the standard library takes three times as long, more than the encryption itself, and
// does not promise to work in place.
//
// With r bytes left, reading is ahead of writing by EncodedLen(r) - r >= r/3 bytes. That is at
// least 8 for r >= 24, so 32 written characters end before the 25th byte.
func encodeInPlace(b []byte, n int) {
	src := b[len(b)-n:]
	// Consumes 24 bytes; the last read extends two bytes further.
	for len(src) >= 26 && len(b) >= 32 {
		v0 := binary.BigEndian.Uint64(src)
		v1 := binary.BigEndian.Uint64(src[6:])
		v2 := binary.BigEndian.Uint64(src[12:])
		v3 := binary.BigEndian.Uint64(src[18:])
		binary.LittleEndian.PutUint64(b, encode48(v0))
		binary.LittleEndian.PutUint64(b[8:], encode48(v1))
		binary.LittleEndian.PutUint64(b[16:], encode48(v2))
		binary.LittleEndian.PutUint64(b[24:], encode48(v3))
		src, b = src[24:], b[32:]
	}
	// Up to 25 bytes, then zeros, which provide the missing bits of the last characters.
	var rest [30]byte
	var text [40]byte
	n = copy(rest[:], src)
	for i, j := 0, 0; i < n; i, j = i+6, j+8 {
		high, low := binary.BigEndian.Uint32(rest[i:]), binary.BigEndian.Uint16(rest[i+4:])
		binary.LittleEndian.PutUint64(text[j:], encode48(uint64(high)<<32|uint64(low)<<16))
	}
	copy(b, text[:])
	for i := range (3 - n%3) % 3 {
		b[len(b)-1-i] = '='
	}
}

// encodeIV writes the base64 of an IV to the start of b.
func encodeIV(b []byte, iv *[ivSize]byte) {
	binary.LittleEndian.PutUint64(b, encode48(binary.BigEndian.Uint64(iv[:])))
	low := uint64(binary.BigEndian.Uint32(iv[8:])) | uint64(binary.BigEndian.Uint16(iv[6:]))<<32
	binary.LittleEndian.PutUint64(b[8:], encode48(low<<16))
}
