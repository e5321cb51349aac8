package seal

import (
	"crypto/cipher"
	"fmt"
	"sync/atomic"
)

// A Cipher seals messages to one client and opens those from it. PrivateKey.Derive makes it. All
// methods are safe for concurrent use.
//
// It takes about 800 bytes, nearly all of it tables derived from the key. Deriving them again for
// each message would take as long as sealing several KiB, and leave more garbage.
//
// Each IV is read from the system separately. That costs 50 to 80 ns on Linux since 6.11, which
// needs no system call for it, and a few hundred elsewhere. IVs are not drawn in advance, because
// two copies of a virtual machine's memory would continue with the same ones.
type Cipher struct {
	aead cipher.AEAD // read-only; draws the IVs and prepends them

	used atomic.Uint64 // messages sealed and opened
}

// SealedSize returns the length of a message of n bytes after AppendSealed.
func SealedSize(n int) int { return n + Overhead }

// AppendSealed seals plaintext and appends IV, ciphertext and tag to dst as bytes. Clients expect
// AppendEnvelope instead.
//
// plaintext must not lie in the spare capacity of dst, which is overwritten. The error is
// ErrTooLong or ErrExhausted; AppendSealed then returns dst unchanged.
func (c *Cipher) AppendSealed(dst, plaintext []byte) ([]byte, error) {
	if err := c.countUse(plaintext); err != nil {
		return dst, err
	}
	return c.aead.Seal(dst, nil, plaintext, nil), nil
}

// Open decrypts the output of AppendSealed and appends the plaintext to dst. dst may be sealed[:0];
// it must not overlap sealed in any other way. The error is ErrMalformed, ErrForged or
// ErrExhausted. Open then returns dst unchanged, and its spare capacity holds no plaintext.
func (c *Cipher) Open(dst, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return dst, fmt.Errorf("%w: %d bytes", ErrMalformed, len(sealed))
	}
	if c.used.Load() >= MaxMessages {
		return dst, ErrExhausted
	}
	opened, err := c.aead.Open(dst, nil, sealed, nil)
	if err != nil {
		return dst, ErrForged // the cause has no further information
	}
	// Counted only after success, because a forged message does not use the key.
	c.used.Add(1)
	return opened, nil
}

// countUse checks the length of plaintext and counts one message sealed with the key.
func (c *Cipher) countUse(plaintext []byte) error {
	if len(plaintext) > MaxPlaintext {
		return ErrTooLong
	}
	if c.used.Add(1) > MaxMessages { // a uint64 does not overflow here
		return ErrExhausted
	}
	return nil
}
