package protocol

import (
	"errors"
	"fmt"
)

// Close codes that a server sends (RFC 6455 section 7.4). This protocol defines 4001 to 4006; the
// RFC or IANA defines the others.
const (
	CloseGoingAway       = 1001
	CloseProtocolError   = 1002
	CloseUnsupportedData = 1003
	CloseInvalidPayload  = 1007
	// Too many messages before authentication, or an encrypted message that cannot be decrypted.
	ClosePolicyViolation    = 1008
	CloseMessageTooBig      = 1009
	CloseServiceRestart     = 1012
	CloseSlowConsumer       = 1013
	CloseAuthTimeout        = 4001
	CloseHeartbeatTimeout   = 4002
	CloseAuthFailed         = 4003
	CloseEncryptionRequired = 4004
	CloseExpired            = 4005
	CloseResumed            = 4006
)

// The exact close reasons for these codes.
const (
	ReasonGoingAway          = "Server shutting down"
	ReasonServiceRestart     = "Service restart"
	ReasonSlowConsumer       = "Slow consumer"
	ReasonAuthTimeout        = "Authentication timeout"
	ReasonHeartbeatTimeout   = "Heartbeat timeout"
	ReasonAuthFailed         = "Authentication failed"
	ReasonEncryptionRequired = "Encryption required"
	ReasonExpired            = "Credentials expired"
	ReasonResumed            = "Session resumed"
)

// CloseReason returns the reason text for code. It is empty for codes without a fixed text.
func CloseReason(code int) string {
	switch code {
	case CloseGoingAway:
		return ReasonGoingAway
	case CloseServiceRestart:
		return ReasonServiceRestart
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
	case CloseExpired:
		return ReasonExpired
	case CloseResumed:
		return ReasonResumed
	}
	return ""
}

// CheckCloseCode returns an error if a server cannot close with code. Valid are 1000, 1001, 1007 to
// 1014 and, for the application, 3000 to 4999. The error wraps ErrCloseCode.
func CheckCloseCode(code int) error {
	if code == 1000 || code == 1001 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999 {
		return nil
	}
	return fmt.Errorf("%w: %d; use 3000 to 4999, or 1000, 1001, 1007 to 1014", ErrCloseCode, code)
}

// ErrCloseCode is wrapped by the errors of CheckCloseCode.
var ErrCloseCode = errors.New("protocol: invalid close code")

// An Error is everything that a client learns about a failure: the client gets the message in an
// error event.
type Error struct {
	// Code is the close code with which the server ends the connection after the event. It is 0 if
	// the connection stays open.
	Code int

	// Message is the text on the wire. Clients compare it, so it never changes.
	Message string
}

func (e *Error) Error() string { return "protocol: " + e.Message }

// A ClientError is an application's own error for a client.
type ClientError struct {
	Code    string // for programs; left out if empty
	Message string // for people
}

// The errors that the protocol sends to clients. They never change after start.
var (
	ErrInvalidFormat        = &Error{Message: "Invalid message format"}
	ErrAlreadyAuthenticated = &Error{Message: "Already authenticated"}
	ErrNotAuthenticated     = &Error{Message: "Not authenticated"}
	ErrAuthFailed           = &Error{Code: CloseAuthFailed, Message: "Authentication failed"}
	ErrAuthError            = &Error{Code: CloseAuthFailed, Message: "Authentication error"}
	ErrHandshakeFailed      = &Error{Code: CloseEncryptionRequired, Message: "Encryption handshake failed"}
)
