// Package ws implements WebSocket without I/O: it parses received bytes into messages (RFC 6455),
// with compression of single messages (RFC 7692, permessage-deflate).
//
// An Endpoint parses incoming bytes and calls a Handler with the messages. The Append functions
// make outgoing frames, and Message makes a frame for many connections. Upgrade and AppendResponse
// are the server's side of the opening handshake.
//
// Nothing in this package blocks, starts a goroutine, or knows about sockets, sessions and origins.
package ws

import "strconv"

// An Opcode is the type of a frame, and of the message that it begins (RFC 6455 §5.2).
type Opcode byte

// The defined opcodes. Any other is reserved, and a protocol error.
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
	// Server accepts only masked frames.
	Server Role = iota
	// Client accepts only unmasked frames.
	Client
)

// The close codes that this package uses itself (RFC 6455 §7.4.1).
const (
	CloseProtocolError  = 1002 // frames that violate the RFC
	CloseNoStatus       = 1005 // stands for a close frame without a code; never sent
	CloseInvalidPayload = 1007 // text that is not UTF-8, compressed data that is not DEFLATE
	CloseTooBig         = 1009 // a message over the limit
)

// MaxControlPayload is the maximum payload of a ping, pong or close frame, in bytes (RFC 6455
// §5.5).
const MaxControlPayload = 125

// A CloseError describes a protocol violation by the peer. Code and Reason can be used in the close
// frame that answers it.
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

// validCloseCode reports whether a close frame may carry code: the codes defined for the wire (RFC
// 6455 §7.4.1 and the IANA registry up to 1014), and those for libraries and applications.
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
