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

// A PrivateKey is the private key of one side of an exchange. Make one for each connection, and
// drop all references to it after Derive. It is safe for concurrent use.
type PrivateKey struct {
	key *ecdh.PrivateKey // read-only
}

// GenerateKey makes a key pair from the system's random number generator. It fails only if the
// program has replaced crypto/rand.Reader by a reader that fails.
func GenerateKey() (*PrivateKey, error) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return &PrivateKey{key: key}, nil
}

// PublicKey returns the public key to send to the other side.
func (k *PrivateKey) PublicKey() *PublicKey {
	return &PublicKey{key: k.key.PublicKey()}
}

// Derive returns the cipher of the connection. Both sides get the same key if each passes the
// other's public key, and the same salt. Together with GenerateKey it takes about 50 µs of an amd64
// core, as much as 200 short messages.
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

// A PublicKey is the public key of the other side of an exchange: a point of P-256 that is not the
// point at infinity. ParsePublicKey and PrivateKey.PublicKey return one. It is safe for concurrent
// use.
type PublicKey struct {
	key *ecdh.PublicKey // read-only
}

// ParsePublicKey parses the base64 of an uncompressed point. Any other text is an error that wraps
// ErrPublicKey, including the point at infinity, points that are not on the curve, and compressed
// points. The cost does not depend on the length of s.
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

// String returns the key in base64, as it is sent on the wire: 88 characters.
func (k *PublicKey) String() string {
	return base64.StdEncoding.EncodeToString(k.key.Bytes())
}

// MarshalText returns the same text as String. It is also the JSON form.
func (k *PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// A Salt makes the keys of two exchanges differ even if both key pairs are the same. It is not
// secret.
type Salt [SaltSize]byte

// NewSalt draws a salt from the system's random number generator, which cannot fail.
func NewSalt() Salt {
	var s Salt
	_, _ = rand.Read(s[:]) // never returns an error
	return s
}

// ParseSalt parses a salt in base64. If it is not SaltSize bytes long, the error wraps ErrSalt.
func ParseSalt(s string) (Salt, error) {
	var salt Salt
	if err := decodeExactly(salt[:], s); err != nil {
		return Salt{}, fmt.Errorf("%w: %w", ErrSalt, err)
	}
	return salt, nil
}

// String returns the salt in base64, as it is sent on the wire: 44 characters.
func (s Salt) String() string {
	return base64.StdEncoding.EncodeToString(s[:])
}

// MarshalText returns the same text as String. It is also the JSON form.
func (s Salt) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Keys are the keys of one connection, which the server and the client have agreed on
// (docs/protocol.md §10).
type Keys struct {
	// ServerPublicKey is sent to the client in `connected`, in standard base64: PublicKey.String.
	ServerPublicKey string

	// Salt is sent to the client in `connected`, in standard base64: Salt.String.
	Salt string

	// Cipher seals the messages from the server to the client, and opens encrypted messages from
	// the client. If it is nil, the application encrypts by itself (Config.Transform of package
	// hearth), and encrypted messages from the client are dropped.
	Cipher *Cipher
}
