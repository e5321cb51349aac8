// Package seal encrypts the messages of one client, the way browsers do with WebCrypto, so that what carries a connection
// and ends its TLS (a proxy, a CDN, a log of frames) can't read them.
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
// Base64 is the standard alphabet with padding, and only its canonical form is read.
//
// # What it protects, and what not
//
// Who only listens learns the lengths and times of messages, and nothing else. A key pair made for one connection and
// forgotten after Derive leaves nothing by which a recording could be read later (forward secrecy). A message that was
// changed does not open.
//
// The public keys are not authenticated, so who can change what goes by during the exchange can put its own keys in
// place and read everything: this goes inside TLS and does not replace it. Messages are not numbered: one can be left
// out, repeated, delayed, or sent back to where it came from, and still opens.
//
// # Timing
//
// The standard library's P-256, HKDF and comparison of tags take the same time whatever the secrets are; its AES-GCM
// does where the processor has instructions for it (amd64, arm64, s390x), and does not elsewhere. What this package adds,
// base64 and lengths, sees public data only.
package seal

import "errors"

const (
	// PublicKeySize is the length of a public key before base64: an uncompressed point.
	PublicKeySize = 65

	// SaltSize is the length of a salt before base64.
	SaltSize = 32

	// Overhead is by how many bytes a sealed message is longer than its plaintext: IV and tag.
	Overhead = ivSize + tagSize

	// MaxPlaintext is the length of the longest message that can be sealed, in bytes: 1 GiB.
	MaxPlaintext = 1 << 30

	// MaxMessages is how many messages one Cipher takes, those sealed and those opened together, as both sides draw their
	// IVs for the same key. Two equal IVs would give away the XOR of two messages and the means to forge others. Among
	// 2^32 IVs of 96 random bits there are two equal ones with a probability of 2^-33, which is within what NIST SP
	// 800-38D, 8.3 allows; at 1000 messages a second it takes 49 days to get there.
	MaxMessages = 1 << 32

	ivSize  = 12
	tagSize = 16
)

// The errors to branch on, with errors.Is. What is returned may say more.
var (
	// ErrPublicKey is for what is no public key: not canonical base64, not 65 bytes, compressed, not on the curve.
	ErrPublicKey = errors.New("seal: not a public key")

	// ErrSalt is for what is no salt: not canonical base64, not 32 bytes.
	ErrSalt = errors.New("seal: not a salt")

	// ErrMalformed is for what can't be a sealed message, whatever the key.
	ErrMalformed = errors.New("seal: not a sealed message")

	// ErrForged is for a message that was sealed with another key, or changed since.
	ErrForged = errors.New("seal: message does not open with this key")

	// ErrTooLong is for a plaintext of more than MaxPlaintext bytes.
	ErrTooLong = errors.New("seal: message too long")

	// ErrExhausted says that the key has been used for MaxMessages messages. The client needs a new one: a new connection.
	ErrExhausted = errors.New("seal: key used up")
)
