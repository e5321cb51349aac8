// Package ticket makes the tickets with which clients resume their sessions (docs/protocol.md §13),
// and decides which tickets are accepted. It does no I/O.
//
// A Sealer turns a Ticket into text that only the holders of its secret can read or make. All nodes
// of an application share the secret, so each of them opens the tickets of the others. A Register
// remembers which tickets must not be accepted any more: those that were used, and those of users
// that the application has logged out.
//
// # Format
//
//	text   unpadded base64url of the bytes below
//	bytes  version (1) | id (16, random) | AES-256-GCM of the fields | tag (16)
//	key    HKDF-SHA-256(secret, no salt, "hearth resume ticket v1" | id), 32 bytes
//
// The version is the additional data of the encryption. Each ticket has a key of its own, derived
// from its id, so the nonce is always zero. With one key for all tickets and random nonces of 96
// bits, the limit of 2^32 messages for a key (NIST SP 800-38D, 8.3) would be reached after a month
// of 100,000 tickets a minute. Two of 2^39 ids of 128 bits, ten years at that rate, are equal with
// a probability of 2^-51.
package ticket

import (
	"encoding/binary"
	"errors"
	"time"
)

// The errors to test for with errors.Is. Clients are not told which of them it was.
var (
	// ErrMalformed means that the text cannot be a ticket, whatever the secret.
	ErrMalformed = errors.New("malformed ticket")

	// ErrForged means that the ticket was sealed with none of the secrets, or was changed.
	ErrForged = errors.New("ticket was not sealed with a secret of this server")

	// ErrExpired means that the ticket was valid, and is not any more.
	ErrExpired = errors.New("ticket has expired")

	// ErrFuture means that the ticket was issued later than now, by more than MaxSkew: the clock of
	// this node or that of the issuer is wrong.
	ErrFuture = errors.New("ticket is from the future: the clocks of the servers differ")

	// ErrUsed means that a ticket of the same connection was used before.
	ErrUsed = errors.New("ticket was used before")

	// ErrRevoked means that the application has revoked the ticket.
	ErrRevoked = errors.New("ticket was revoked")

	// ErrFull means that a Register remembers as many used tickets as it can. It accepts no other
	// ticket until it may forget some.
	ErrFull = errors.New("too many tickets were used")

	// ErrTooLarge means that the ticket would be larger than the Sealer allows.
	ErrTooLarge = errors.New("ticket would be too large")
)

// MaxSkew is how much the clocks of two nodes may differ: a ticket that was issued by a clock that
// is further ahead is rejected.
const MaxSkew = 30 * time.Second

// A Ticket is a session that a client may resume.
type Ticket struct {
	Client      [16]byte  // the id of the client
	Generation  uint32    // how often the session was resumed before; see Register
	User        string    // empty for an anonymous client
	Metadata    []byte    // of the application
	Rooms       []string  // that the client is in
	Encrypted   bool      // the client's connection is encrypted
	Credentials time.Time // when the client's credentials expire; zero: never
	Issued      time.Time
	Expires     time.Time
}

const flagEncrypted = 1

// append appends the fields of t to dst. Times are rounded to milliseconds.
func (t *Ticket) append(dst []byte) []byte {
	var flags byte
	if t.Encrypted {
		flags |= flagEncrypted
	}
	dst = append(dst, flags)
	dst = append(dst, t.Client[:]...)
	dst = binary.AppendUvarint(dst, uint64(t.Generation))
	for _, at := range []time.Time{t.Issued, t.Expires, t.Credentials} {
		dst = binary.AppendUvarint(dst, millis(at))
	}
	dst = appendText(dst, t.User)
	dst = appendText(dst, string(t.Metadata))
	dst = binary.AppendUvarint(dst, uint64(len(t.Rooms)))
	for _, room := range t.Rooms {
		dst = appendText(dst, room)
	}
	return dst
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// millis returns a time in milliseconds since 1970, and 0 for the zero time.
func millis(at time.Time) uint64 {
	if at.IsZero() {
		return 0
	}
	return uint64(max(0, at.UnixMilli()))
}

// parse sets t to the fields in b, and reports whether b was the result of append.
func (t *Ticket) parse(b []byte) bool {
	r := reader{rest: b}
	flags := r.bytes(1)
	copy(t.Client[:], r.bytes(uint64(len(t.Client))))
	generation := r.number()
	t.Issued, t.Expires, t.Credentials = r.time(), r.time(), r.time()
	t.User = string(r.bytes(r.number()))
	t.Metadata = append([]byte(nil), r.bytes(r.number())...)
	for n := r.number(); n > 0 && !r.failed; n-- {
		t.Rooms = append(t.Rooms, string(r.bytes(r.number())))
	}
	if r.failed || len(r.rest) > 0 || flags[0] > flagEncrypted || generation > 1<<32-1 {
		return false
	}
	t.Encrypted, t.Generation = flags[0] == flagEncrypted, uint32(generation)
	return true
}

// A reader reads the fields of a ticket. After a field that is not complete, all are empty.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) bytes(n uint64) []byte {
	if r.failed || n > uint64(len(r.rest)) {
		r.failed = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.rest)
	if r.failed || n <= 0 {
		r.failed = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) time() time.Time {
	ms := r.number()
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}
