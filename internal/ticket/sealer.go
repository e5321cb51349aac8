package ticket

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"
)

const (
	// MinSecret is the least length of a secret, in bytes.
	MinSecret = 32

	// MaxSecrets is how many secrets a Sealer may have. Opening a ticket may try all of them.
	MaxSecrets = 4

	version   = 1
	idSize    = 16
	tagSize   = 16
	nonceSize = 12

	keyInfo = "hearth resume ticket v1"
)

// encoding rejects all texts except that which it makes itself, so each ticket has one text.
var encoding = base64.RawURLEncoding.Strict()

// A Sealer seals and opens tickets. Its methods are safe for concurrent use and do not block.
type Sealer struct {
	// Set by NewSealer, then read-only.
	keys     [][]byte // HKDF's extract of each secret
	maxText  int
	lifetime time.Duration
}

// NewSealer makes a Sealer. The first secret seals tickets, and all of them open tickets: while a
// secret is replaced, the old one is the second. Without secrets it makes a random one, so only
// this Sealer opens its tickets. A ticket is valid for the lifetime, whatever other nodes have
// written into it, and has at most maxText bytes.
func NewSealer(secrets [][]byte, lifetime time.Duration, maxText int) (*Sealer, error) {
	if len(secrets) > MaxSecrets {
		return nil, fmt.Errorf("there are %d secrets, more than %d", len(secrets), MaxSecrets)
	}
	if len(secrets) == 0 {
		secret := make([]byte, MinSecret)
		_, _ = rand.Read(secret) // never fails
		secrets = [][]byte{secret}
	}
	s := &Sealer{maxText: maxText, lifetime: lifetime}
	for i, secret := range secrets {
		if len(secret) < MinSecret {
			return nil, fmt.Errorf("secret %d has %d bytes, fewer than %d", i+1, len(secret), MinSecret)
		}
		key, err := hkdf.Extract(sha256.New, secret, nil)
		if err != nil {
			return nil, fmt.Errorf("derive key: %w", err)
		}
		s.keys = append(s.keys, key)
	}
	return s, nil
}

// Seal returns the text of the ticket, which expires after the lifetime or with the credentials,
// whichever is first. It sets t.Issued and t.Expires. The error is ErrTooLarge, or one that the
// cryptography of this system reports.
func (s *Sealer) Seal(t *Ticket, now time.Time) (text string, err error) {
	t.Issued, t.Expires = now, now.Add(s.lifetime)
	if !t.Credentials.IsZero() && t.Credentials.Before(t.Expires) {
		t.Expires = t.Credentials
	}
	size := 1 + idSize + len(t.append(nil)) + tagSize
	if encoding.EncodedLen(size) > s.maxText {
		return "", fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, encoding.EncodedLen(size), s.maxText)
	}
	sealed := make([]byte, 1+idSize, size)
	sealed[0] = version
	_, _ = rand.Read(sealed[1:]) // never fails
	aead, err := s.aead(s.keys[0], sealed[1:])
	if err != nil {
		return "", err
	}
	sealed = aead.Seal(sealed, make([]byte, nonceSize), t.append(nil), sealed[:1])
	return encoding.EncodeToString(sealed), nil
}

// aead returns the cipher for the ticket with that id.
func (s *Sealer) aead(key, id []byte) (cipher.AEAD, error) {
	derived, err := hkdf.Expand(sha256.New, key, keyInfo+string(id), 32)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Open returns the ticket with that text, if it is valid now. The errors are ErrMalformed,
// ErrForged, ErrExpired and ErrFuture. Until the text is known to be authentic, the work depends on
// its length and the number of secrets only.
func (s *Sealer) Open(text string, now time.Time) (*Ticket, error) {
	if len(text) > s.maxText {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrMalformed, len(text), s.maxText)
	}
	sealed, err := encoding.DecodeString(text)
	ignored := len(text) - encoding.EncodedLen(len(sealed)) // line breaks
	if err != nil || ignored != 0 || len(sealed) < 1+idSize+tagSize || sealed[0] != version {
		return nil, ErrMalformed
	}
	fields, err := s.decrypt(sealed)
	if err != nil {
		return nil, err
	}
	t := new(Ticket)
	if !t.parse(fields) { // from a node of another version, which should have said so
		return nil, ErrMalformed
	}
	switch {
	case t.Issued.After(now.Add(MaxSkew)):
		return nil, ErrFuture
	case !now.Before(t.Expires), !now.Before(t.Issued.Add(s.lifetime)):
		return nil, ErrExpired
	}
	return t, nil
}

// decrypt returns the fields of a ticket that was sealed with one of the secrets.
func (s *Sealer) decrypt(sealed []byte) ([]byte, error) {
	id, ciphertext := sealed[1:1+idSize], sealed[1+idSize:]
	for _, key := range s.keys {
		aead, err := s.aead(key, id)
		if err != nil {
			return nil, err
		}
		fields, err := aead.Open(nil, make([]byte, nonceSize), ciphertext, sealed[:1])
		if err == nil {
			return fields, nil
		}
	}
	return nil, ErrForged
}
