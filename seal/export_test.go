package seal

import (
	"crypto/ecdh"
	"fmt"
)

// FixedKey returns the private key with the scalar d.
func FixedKey(d []byte) (*PrivateKey, error) {
	key, err := ecdh.P256().NewPrivateKey(d)
	if err != nil {
		return nil, fmt.Errorf("fixed key: %w", err)
	}
	return &PrivateKey{key: key}, nil
}

// Use sets the number of messages that c has processed.
func (c *Cipher) Use(n uint64) { c.used.Store(n) }

// EncodeInPlace is the encoder, which tests compare with the standard library.
var EncodeInPlace = encodeInPlace
