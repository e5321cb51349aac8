package seal

import (
	"crypto/ecdh"
	"fmt"
)

// FixedKey is the private key with the scalar d.
func FixedKey(d []byte) (*PrivateKey, error) {
	key, err := ecdh.P256().NewPrivateKey(d)
	if err != nil {
		return nil, fmt.Errorf("fixed key: %w", err)
	}
	return &PrivateKey{key: key}, nil
}

// Use makes c one that has taken n messages.
func (c *Cipher) Use(n uint64) { c.used.Store(n) }

// EncodeInPlace is the encoder, which has a slow obvious counterpart in the standard library.
var EncodeInPlace = encodeInPlace
