package protocol

import (
	"errors"
	"fmt"
)

// Close codes that a server sends (RFC 6455 section 7.4). 4001 to 4004 belong to this protocol, the others are the
// RFC's or IANA's.
const (
	CloseGoingAway          = 1001
	CloseProtocolError      = 1002
	CloseUnsupportedData    = 1003
	CloseInvalidPayload     = 1007
	ClosePolicyViolation    = 1008 // too much said before authentication, or an encrypted message that does not decrypt
	CloseMessageTooBig      = 1009
	CloseSlowConsumer       = 1013
	CloseAuthTimeout        = 4001
	CloseHeartbeatTimeout   = 4002
	CloseAuthFailed         = 4003
	CloseEncryptionRequired = 4004
)

// The reasons that go with them, exact.
const (
	ReasonGoingAway          = "Server shutting down"
	ReasonSlowConsumer       = "Slow consumer"
	ReasonAuthTimeout        = "Authentication timeout"
	ReasonHeartbeatTimeout   = "Heartbeat timeout"
	ReasonAuthFailed         = "Authentication failed"
	ReasonEncryptionRequired = "Encryption required"
)

// CloseReason is the reason text that belongs to code; empty for codes that leave the text to whoever closes.
func CloseReason(code int) string {
	switch code {
	case CloseGoingAway:
		return ReasonGoingAway
	case CloseSlowConsumer:
		return ReasonSlowConsumer
	case CloseAuthTimeout:
		return ReasonAuthTimeout
	case CloseHeartbeatTimeout:
		return ReasonHeartbeatTimeout
	case CloseAuthFailed:
		return ReasonAuthFailed
	case CloseEncryptionRequired:
		return ReasonEncryptionRequired
	}
	return ""
}

// CheckCloseCode reports why a server can't close with code, nil if it can: 1000, 1001, 1007 to 1014 and, for the
// application, 3000 to 4999. The error wraps ErrCloseCode.
func CheckCloseCode(code int) error {
	if code == 1000 || code == 1001 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999 {
		return nil
	}
	return fmt.Errorf("%w: %d; 1000, 1001, 1007 to 1014 and, for the application, 3000 to 4999 can", ErrCloseCode, code)
}

// ErrCloseCode is wrapped by CheckCloseCode's errors.
var ErrCloseCode = errors.New("protocol: close code that can't be sent")

// An Error is all that a client ever learns of what went wrong: it gets the message in an error event.
type Error struct {
	// Code is the close code that ends the connection after the event, 0 where the connection stays.
	Code int

	// Message is the text on the wire. Clients compare it: it never changes.
	Message string
}

func (e *Error) Error() string { return "protocol: " + e.Message }

// A ClientError is an application's own error for a client.
type ClientError struct {
	Code    string // for programs; empty: left out
	Message string // for people
}

// The errors that a client may be told. Never changed after start.
var (
	ErrInvalidFormat        = &Error{Message: "Invalid message format"}
	ErrAlreadyAuthenticated = &Error{Message: "Already authenticated"}
	ErrNotAuthenticated     = &Error{Message: "Not authenticated"}
	ErrAuthFailed           = &Error{Code: CloseAuthFailed, Message: "Authentication failed"}
	ErrAuthError            = &Error{Code: CloseAuthFailed, Message: "Authentication error"}
	ErrHandshakeFailed      = &Error{Code: CloseEncryptionRequired, Message: "Encryption handshake failed"}
)
