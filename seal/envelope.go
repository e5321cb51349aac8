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

// EnvelopeSize returns how many bytes AppendEnvelope appends for a plaintext of n bytes. n must be
// at most MaxPlaintext.
func EnvelopeSize(n int) int { return len(envelopeHead) + DataSize(n) + len(envelopeTail) }

// DataSize returns how many bytes AppendData appends for a plaintext of n bytes. n must be at most
// MaxPlaintext.
func DataSize(n int) int {
	return len(dataHead) + ivChars + len(dataMiddle) + base64.StdEncoding.EncodedLen(n+tagSize) + len(dataTail)
}

// AppendEnvelope seals plaintext and appends the whole message,
// {"event":"encrypted","data":{"iv":…,"ct":…}}. If dst has space for EnvelopeSize more bytes, it
// does not allocate, so a server can write directly into a frame.
//
// plaintext must not lie in the spare capacity of dst, which is overwritten. The error is
// ErrTooLong or ErrExhausted; AppendEnvelope then returns dst unchanged.
func (c *Cipher) AppendEnvelope(dst, plaintext []byte) ([]byte, error) {
	return c.appendJSON(dst, plaintext, envelopeHead, envelopeTail)
}

// AppendData is AppendEnvelope without the envelope. It appends {"iv":…,"ct":…}, for callers that
// write the event themselves.
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

	// Seal so that the ciphertext ends where its base64 will end. The IV in front of it lies where
	// text will be written, and is encoded first.
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

// OpenData decrypts the data of an encrypted message, {"iv":…,"ct":…}, and appends the plaintext to
// dst. It has a fast path for the form that JSON.stringify writes. It also accepts other spacing,
// order and escapes, and further members, at the cost of more time and memory. Both are linear in
// len(data). data is not changed.
//
// The error is ErrMalformed, ErrForged or ErrExhausted. OpenData then returns dst unchanged, and
// its spare capacity holds no plaintext. data must not lie in the spare capacity of dst.
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
	// In the layout that Open expects, at the place where the plaintext will be.
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

// parseCanonical finds the two strings if data has the form that appendJSON and JSON.stringify
// write. It does not check their content: quotes and escapes, which would change the object's
// structure, are not base64 and are rejected later.
func parseCanonical(data []byte) (iv, ct []byte, ok bool) {
	const ctAt = len(dataHead) + ivChars + len(dataMiddle)
	if len(data) < ctAt+len(dataTail) || !bytes.HasPrefix(data, []byte(dataHead)) ||
		string(data[ctAt-len(dataMiddle):ctAt]) != dataMiddle || !bytes.HasSuffix(data, []byte(dataTail)) {
		return nil, nil, false
	}
	iv, ct = data[len(dataHead):len(dataHead)+ivChars], data[ctAt:len(data)-len(dataTail)]
	return iv, ct, bytes.IndexByte(iv, '"') < 0 && bytes.IndexByte(ct, '"') < 0 && bytes.IndexByte(ct, '\\') < 0
}

// parseAny finds the two strings in any JSON object.
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
