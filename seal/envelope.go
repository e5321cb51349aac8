package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
)

// The parts of a message around its base64.
const (
	envelopeHead = `{"event":"encrypted","data":`
	envelopeTail = `}`
	dataHead     = `{"iv":"`
	dataMiddle   = `","ct":"`
	dataTail     = `"}`

	ivChars = ivSize / 3 * 4
)

// EnvelopeSize is the length of what AppendEnvelope appends for a plaintext of n bytes, for n up to MaxPlaintext.
func EnvelopeSize(n int) int { return len(envelopeHead) + DataSize(n) + len(envelopeTail) }

// DataSize is the length of what AppendData appends for a plaintext of n bytes, for n up to MaxPlaintext.
func DataSize(n int) int {
	return len(dataHead) + ivChars + len(dataMiddle) + base64.StdEncoding.EncodedLen(n+tagSize) + len(dataTail)
}

// AppendEnvelope appends the whole message that carries plaintext, {"event":"encrypted","data":{"iv":…,"ct":…}}. If dst
// has room for EnvelopeSize more bytes it needs no memory: a server can write straight into a frame.
//
// plaintext must not lie in the spare capacity of dst, which is written to. The error is ErrTooLong or ErrExhausted, and
// comes with dst as it was.
func (c *Cipher) AppendEnvelope(dst, plaintext []byte) ([]byte, error) {
	return c.appendJSON(dst, plaintext, envelopeHead, envelopeTail)
}

// AppendData is AppendEnvelope without the envelope: it appends {"iv":…,"ct":…}, for who writes the event otherwise.
func (c *Cipher) AppendData(dst, plaintext []byte) ([]byte, error) {
	return c.appendJSON(dst, plaintext, "", "")
}

func (c *Cipher) appendJSON(dst, plaintext []byte, head, tail string) ([]byte, error) {
	if err := c.countUse(plaintext); err != nil {
		return dst, err
	}
	boxed := len(plaintext) + tagSize
	text := base64.StdEncoding.EncodedLen(boxed)
	b := slices.Grow(dst, len(head)+DataSize(len(plaintext))+len(tail))
	b = append(b, head...)
	b = append(b, dataHead...)
	ivAt := len(b)
	ctAt := ivAt + ivChars + len(dataMiddle)
	end := ctAt + text

	// Seal so that the ciphertext ends where its base64 will end. The IV, in front of it, is in the way of what comes there.
	sealedAt := end - boxed - ivSize
	c.aead.Seal(b[:sealedAt], nil, plaintext, nil)
	b = b[:end]
	iv := [ivSize]byte(b[sealedAt:])
	encodeInPlace(b[ctAt:], boxed)
	encodeIV(b[ivAt:ivAt+ivChars], &iv)
	copy(b[ivAt+ivChars:], dataMiddle)
	b = append(b, dataTail...)
	return append(b, tail...), nil
}

// OpenData appends to dst the plaintext of an encrypted message's data: {"iv":…,"ct":…}. What JSON.stringify makes of
// that is read as it is; other spacing, order, escapes and further members are understood too, for more time and memory.
// Both take time and memory linear in len(data), which is not changed.
//
// The error is ErrMalformed, ErrForged or ErrExhausted, and comes with dst as it was; its spare capacity never holds
// plaintext then. data must not lie there.
func (c *Cipher) OpenData(dst, data []byte) ([]byte, error) {
	iv, ct, ok := parseCanonical(data)
	if !ok {
		var err error
		if iv, ct, err = parseAny(data); err != nil {
			return dst, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	if len(iv) != ivChars {
		return dst, fmt.Errorf("%w: IV of %d characters", ErrMalformed, len(iv))
	}
	// As Open wants it, and in the place where the plaintext will be.
	start, size := len(dst), ivSize+base64.StdEncoding.DecodedLen(len(ct))
	b := slices.Grow(dst, size)
	sealed := b[start : start+size]
	if n, ok := decode(sealed, iv); !ok || n != ivSize {
		return dst, fmt.Errorf("%w: base64 of the IV", ErrMalformed)
	}
	n, ok := decode(sealed[ivSize:], ct)
	if !ok {
		return dst, fmt.Errorf("%w: base64 of the ciphertext", ErrMalformed)
	}
	opened, err := c.Open(b, sealed[:ivSize+n])
	if err != nil {
		return dst, err
	}
	return opened, nil
}

// parseCanonical finds the two strings if data looks as appendJSON and JSON.stringify write it. They may still be anything:
// the quotes and escapes that would make another object of it are not base64.
func parseCanonical(data []byte) (iv, ct []byte, ok bool) {
	const ctAt = len(dataHead) + ivChars + len(dataMiddle)
	if len(data) < ctAt+len(dataTail) || !bytes.HasPrefix(data, []byte(dataHead)) ||
		string(data[ctAt-len(dataMiddle):ctAt]) != dataMiddle || !bytes.HasSuffix(data, []byte(dataTail)) {
		return nil, nil, false
	}
	iv, ct = data[len(dataHead):len(dataHead)+ivChars], data[ctAt:len(data)-len(dataTail)]
	return iv, ct, bytes.IndexByte(iv, '"') < 0 && bytes.IndexByte(ct, '"') < 0 && bytes.IndexByte(ct, '\\') < 0
}

// parseAny finds them in any JSON object.
func parseAny(data []byte) (iv, ct []byte, err error) {
	var object struct {
		IV string `json:"iv"`
		CT string `json:"ct"`
	}
	if err := json.Unmarshal(data, &object); err != nil {
		return nil, nil, fmt.Errorf("parse data: %w", err)
	}
	return []byte(object.IV), []byte(object.CT), nil
}
