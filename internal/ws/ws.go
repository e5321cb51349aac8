// Package ws is WebSocket without I/O: bytes in, messages out (RFC 6455), with compression of single messages
// (RFC 7692, permessage-deflate).
//
// Incoming bytes go through an Endpoint, which tells a Handler what they hold. Outgoing frames are made by the Append
// functions, and by Message where many connections get the same one. Upgrade and AppendResponse are the opening
// handshake of the server.
//
// Nothing in this package blocks, starts a goroutine, or knows of sockets, sessions and origins.
package ws

import "strconv"

// An Opcode says what a frame, and with it a message, is (RFC 6455 §5.2).
type Opcode byte

// The opcodes that exist. Any other is reserved, and a violation.
const (
	OpContinuation Opcode = 0x0
	OpText         Opcode = 0x1
	OpBinary       Opcode = 0x2
	OpClose        Opcode = 0x8
	OpPing         Opcode = 0x9
	OpPong         Opcode = 0xA
)

func (op Opcode) control() bool { return op&0x8 != 0 }

func (op Opcode) known() bool { return op <= OpBinary || op >= OpClose && op <= OpPong }

// A Role says which end of a connection an Endpoint is.
type Role byte

const (
	// Server reads masked frames and refuses others.
	Server Role = iota
	// Client reads unmasked frames and refuses others.
	Client
)

// The close codes that this package gives by itself (RFC 6455 §7.4.1).
const (
	CloseProtocolError  = 1002 // frames against the RFC
	CloseNoStatus       = 1005 // stands for a close frame without a code; never sent
	CloseInvalidPayload = 1007 // text that is not UTF-8, compressed data that is not DEFLATE
	CloseTooBig         = 1009 // a message over the limit
)

// MaxControlPayload is the most that a ping, a pong or a close frame may carry, in bytes (RFC 6455 §5.5).
const MaxControlPayload = 125

// A CloseError is how the peer broke the rules. Code and Reason are fit for the close frame that answers it.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string {
	return "websocket: " + e.Reason + " (close " + strconv.Itoa(e.Code) + ")"
}

func protocolError(reason string) error { return &CloseError{Code: CloseProtocolError, Reason: reason} }

func invalidPayload(reason string) error {
	return &CloseError{Code: CloseInvalidPayload, Reason: reason}
}

func tooBig(reason string) error { return &CloseError{Code: CloseTooBig, Reason: reason} }

// validCloseCode reports whether a close frame may carry code: those defined for the wire (RFC 6455 §7.4.1 and the
// IANA registry up to 1014), and those for libraries and applications.
func validCloseCode(code int) bool {
	switch {
	case code == 1004 || code == 1005 || code == 1006:
		return false
	case code >= 1000 && code <= 1014:
		return true
	default:
		return code >= 3000 && code <= 4999
	}
}
