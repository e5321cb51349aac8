// Package seal encrypts the messages of one client, compatible with WebCrypto in browsers.
// Intermediaries that end the connection's TLS (a proxy, a CDN) or log its frames cannot read the
// messages.
//
// The exchange:
//
//	client                                     server
//	  │ authenticate: publicKey ──────────────► │  ParsePublicKey, GenerateKey, NewSalt, Derive
//	  │ ◄────────── connected: serverPublicKey, salt
//	  │ ◄─────────────────────────── encrypted ─│  AppendEnvelope
//	  │─ encrypted ───────────────────────────► │  OpenData
//
//	secret   ECDH on P-256: the X coordinate, 32 bytes
//	key      HKDF-SHA-256(secret, salt, "ignis-ecdh-p256-aes-256-gcm-v1"), 32 bytes; the same for both directions
//	message  {"event":"encrypted","data":{"iv":…,"ct":…}}
//	iv       12 random bytes, in base64
//	ct       AES-256-GCM of the inner message followed by the tag, 16 bytes, in base64; no additional data
//
// Base64 is the standard alphabet with padding, and only its canonical form is accepted.
//
// # What it protects, and what it does not
//
// A passive eavesdropper learns only the lengths and times of messages. If a key pair is made for
// each connection and discarded after Derive, a recording cannot be decrypted later (forward
// secrecy). A message that was changed does not decrypt.
//
// The public keys are not authenticated. An active attacker that can change the exchange can
// substitute its own keys and read everything, so this package complements TLS and does not replace
// it. Messages are not numbered. An attacker can drop, repeat or delay a message, or send it back
// to its sender, and it still decrypts.
//
// # Timing
//
// P-256, HKDF and the comparison of tags in the standard library take constant time. Its AES-GCM
// takes constant time on processors with instructions for it (amd64, arm64, s390x), but not on
// others. The code that this package adds, for base64 and lengths, handles only public data.
package seal

import "errors"

const (
	// PublicKeySize is the length of a public key before base64: an uncompressed point.
	PublicKeySize = 65

	// SaltSize is the length of a salt before base64.
	SaltSize = 32

	// Overhead is the number of bytes that sealing adds to a message: the IV and the tag.
	Overhead = ivSize + tagSize

	// MaxPlaintext is the maximum length of a message to seal, in bytes: 1 GiB.
	MaxPlaintext = 1 << 30

	// MaxMessages is the number of messages, sealed and opened together, that one Cipher accepts.
	// They count together because both sides draw random IVs for the same key. Two equal IVs would
	// reveal the XOR of two messages and allow forgeries. Two of 2^32 random IVs of 96 bits are
	// equal with a probability of 2^-33, which is within the limit of NIST SP 800-38D, 8.3. At 1000
	// messages a second, the limit is reached after 49 days.
	MaxMessages = 1 << 32

	ivSize  = 12
	tagSize = 16
)

// The errors to test for with errors.Is. Returned errors may wrap them with details.
var (
	// ErrPublicKey means that a text is not a public key: not canonical base64, not 65 bytes,
	// compressed, or not on the curve.
	ErrPublicKey = errors.New("seal: invalid public key")

	// ErrSalt means that a text is not a salt: not canonical base64, or not 32 bytes.
	ErrSalt = errors.New("seal: invalid salt")

	// ErrMalformed means that the data cannot be a sealed message, whatever the key.
	ErrMalformed = errors.New("seal: malformed sealed message")

	// ErrForged means that the message was sealed with another key, or changed afterwards.
	ErrForged = errors.New("seal: message cannot be decrypted with this key")

	// ErrTooLong means that the plaintext has more than MaxPlaintext bytes.
	ErrTooLong = errors.New("seal: message too long")

	// ErrExhausted means that the key has been used for MaxMessages messages. The client needs a
	// new key, and therefore a new connection.
	ErrExhausted = errors.New("seal: key reached its message limit")
)
