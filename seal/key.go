package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// info binds keys to this protocol and its version.
const (
	info    = "ignis-ecdh-p256-aes-256-gcm-v1"
	keySize = 32
)

// A PrivateKey is one side's secret of an exchange. Make one for each connection, and let go of it after Derive.
// It may be used from any goroutine.
type PrivateKey struct {
	key *ecdh.PrivateKey // read-only
}

// GenerateKey makes a key pair from the system's randomness. It fails only where that was replaced by something that
// can fail.
func GenerateKey() (*PrivateKey, error) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return &PrivateKey{key: key}, nil
}

// PublicKey is what the other side gets.
func (k *PrivateKey) PublicKey() *PublicKey {
	return &PublicKey{key: k.key.PublicKey()}
}

// Derive gives the cipher that both sides come to: k with the other side's public key here, the other way round there,
// and the same salt. Together with GenerateKey it takes some 50 µs of an amd64 core, as 200 short messages do.
func (k *PrivateKey) Derive(peer *PublicKey, salt Salt) (*Cipher, error) {
	secret, err := k.key.ECDH(peer.key)
	if err != nil {
		return nil, fmt.Errorf("agree on a secret: %w", err)
	}
	key, err := hkdf.Key(sha256.New, secret, salt[:], info, keySize)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("set up AES: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("set up GCM: %w", err)
	}
	return &Cipher{aead: aead}, nil
}

// A PublicKey is the other side's half of an exchange: a point of P-256, and not the one at infinity. It comes from
// ParsePublicKey or PrivateKey.PublicKey, and may be used from any goroutine.
type PublicKey struct {
	key *ecdh.PublicKey // read-only
}

// ParsePublicKey reads the base64 of an uncompressed point. Anything else is ErrPublicKey: the point at infinity, points
// that are not on the curve, compressed ones. The cost does not grow with the length of s.
func ParsePublicKey(s string) (*PublicKey, error) {
	var point [PublicKeySize]byte
	if err := decodeExactly(point[:], s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPublicKey, err)
	}
	key, err := ecdh.P256().NewPublicKey(point[:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPublicKey, err)
	}
	return &PublicKey{key: key}, nil
}

// String is the key in base64, as it goes over the wire: 88 characters.
func (k *PublicKey) String() string {
	return base64.StdEncoding.EncodeToString(k.key.Bytes())
}

// MarshalText returns what String returns, in JSON too.
func (k *PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// A Salt makes the keys of two exchanges differ even if both key pairs are the same. It is not secret.
type Salt [SaltSize]byte

// NewSalt draws a salt from the system's randomness, which can't fail.
func NewSalt() Salt {
	var s Salt
	_, _ = rand.Read(s[:]) // does not return errors
	return s
}

// ParseSalt reads a salt in base64. Anything but SaltSize bytes is ErrSalt.
func ParseSalt(s string) (Salt, error) {
	var salt Salt
	if err := decodeExactly(salt[:], s); err != nil {
		return Salt{}, fmt.Errorf("%w: %w", ErrSalt, err)
	}
	return salt, nil
}

// String is the salt in base64, as it goes over the wire: 44 characters.
func (s Salt) String() string {
	return base64.StdEncoding.EncodeToString(s[:])
}

// MarshalText returns what String returns, in JSON too.
func (s Salt) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Keys are what a server and a client have agreed on for one connection (docs/protocol.md §10).
type Keys struct {
	// ServerPublicKey goes to the client in `connected`, in standard base64: PublicKey.String.
	ServerPublicKey string

	// Salt goes to the client in `connected`, in standard base64: Salt.String.
	Salt string

	// Cipher seals what the server sends to the client, and opens what the client sends encrypted. Nil: the application
	// encrypts by itself (Config.Transform of package hearth), and encrypted messages of the client are dropped.
	Cipher *Cipher
}
