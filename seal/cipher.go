package seal

import (
	"crypto/cipher"
	"fmt"
	"sync/atomic"
)

// A Cipher seals messages to one client and opens those from it. It comes from PrivateKey.Derive, and all its methods
// may be called from several goroutines at once.
//
// It takes about 800 bytes, nearly all of it tables that follow from the key. To make them anew for each message takes as
// long as to seal some KiB, and leaves more garbage than this.
//
// IVs are drawn from the system one by one. That costs 50 to 80 ns on Linux since 6.11, which answers without a system
// call, and a few hundred elsewhere. They are not drawn ahead: two copies of a virtual machine's memory would go on with
// the same ones.
type Cipher struct {
	aead cipher.AEAD // read-only; draws the IVs and puts them in front

	used atomic.Uint64 // messages sealed and opened
}

// SealedSize is the length of a message of n bytes after AppendSealed.
func SealedSize(n int) int { return n + Overhead }

// AppendSealed appends the sealed plaintext to dst as bytes: IV, ciphertext, tag. Clients expect AppendEnvelope instead.
//
// plaintext must not lie in the spare capacity of dst, which is written to. The error is ErrTooLong or ErrExhausted, and
// comes with dst as it was.
func (c *Cipher) AppendSealed(dst, plaintext []byte) ([]byte, error) {
	if err := c.countUse(plaintext); err != nil {
		return dst, err
	}
	return c.aead.Seal(dst, nil, plaintext, nil), nil
}

// Open appends to dst the plaintext of what AppendSealed gave. dst may be sealed[:0], and may not overlap it otherwise.
// The error is ErrMalformed, ErrForged or ErrExhausted, and comes with dst as it was; its spare capacity never holds
// plaintext then.
func (c *Cipher) Open(dst, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return dst, fmt.Errorf("%w: %d bytes", ErrMalformed, len(sealed))
	}
	if c.used.Load() >= MaxMessages {
		return dst, ErrExhausted
	}
	opened, err := c.aead.Open(dst, nil, sealed, nil)
	if err != nil {
		return dst, ErrForged // the cause says nothing more
	}
	// Counted only now: a forged message did not use the key.
	c.used.Add(1)
	return opened, nil
}

// countUse takes one message from what the key is good for.
func (c *Cipher) countUse(plaintext []byte) error {
	if len(plaintext) > MaxPlaintext {
		return ErrTooLong
	}
	if c.used.Add(1) > MaxMessages { // uint64: it does not come round
		return ErrExhausted
	}
	return nil
}
