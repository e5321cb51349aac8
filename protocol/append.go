package protocol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// AppendEvent appends the message {"event":…,"data":…} to dst. data is JSON text and is copied
// without a check: use EncodeData, or text that has been checked. If data is nil, the message is
// {"event":…}; the JSON text null is data.
func AppendEvent(dst []byte, event string, data []byte) []byte {
	dst = append(dst, `{"event":`...)
	dst = appendString(dst, event)
	if len(data) > 0 {
		dst = append(dst, `,"data":`...)
		dst = append(dst, data...)
	}
	return append(dst, '}')
}

// AppendError appends the error event that reports e to a client.
func AppendError(dst []byte, e *Error) []byte {
	dst = append(dst, `{"event":"error","data":{"message":`...)
	dst = appendString(dst, e.Message)
	return append(dst, `}}`...)
}

// AppendReply appends the reply to a message with that event and id: {"event":…,"data":…,"id":…}.
// data and id are JSON text and are copied without a check. If data is nil, the message has no data
// member.
func AppendReply(dst []byte, event string, data, id []byte) []byte {
	dst = AppendEvent(dst, event, data)
	return appendID(dst, id)
}

// AppendClientError appends the error event with which an application reports e to a client. id is
// the JSON text of the id of the message that caused the error, or nil.
func AppendClientError(dst []byte, e ClientError, id []byte) []byte {
	dst = append(dst, `{"event":"error","data":{"message":`...)
	dst = appendString(dst, e.Message)
	if e.Code != "" {
		dst = append(dst, `,"code":`...)
		dst = appendString(dst, e.Code)
	}
	return appendID(append(dst, `}}`...), id)
}

// appendID adds the id member to the object at the end of dst.
func appendID(dst, id []byte) []byte {
	if len(id) == 0 {
		return dst
	}
	dst = append(dst[:len(dst)-1], `,"id":`...)
	dst = append(dst, id...)
	return append(dst, '}')
}

// AppendConnected appends the message that ends authentication. An empty userID, as anonymous
// clients have it, is left out.
func AppendConnected(dst []byte, id, userID string, t time.Time) []byte {
	return append(appendConnected(dst, id, userID, t), `}}`...)
}

// AppendConnectedEncrypted is AppendConnected for a client with encryption. The message carries the
// server's public key and the salt of the key exchange, both in base64.
func AppendConnectedEncrypted(dst []byte, id, userID string, t time.Time, serverPublicKey, salt string) []byte {
	dst = appendConnected(dst, id, userID, t)
	dst = append(dst, `,"serverPublicKey":`...)
	dst = appendString(dst, serverPublicKey)
	dst = append(dst, `,"salt":`...)
	dst = appendString(dst, salt)
	return append(dst, `}}`...)
}

func appendConnected(dst []byte, id, userID string, t time.Time) []byte {
	dst = append(dst, `{"event":"connected","data":{"id":`...)
	dst = appendString(dst, id)
	if userID != "" {
		dst = append(dst, `,"userId":`...)
		dst = appendString(dst, userID)
	}
	dst = append(dst, `,"time":`...)
	return appendTime(dst, t)
}

func appendTime(dst []byte, t time.Time) []byte {
	dst = append(dst, '"')
	dst = t.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	return append(dst, '"')
}

// A Resync describes the messages that a client may have missed: those that other nodes sent
// between two points in time.
type Resync struct {
	Rooms     []string // the client's rooms that are affected, in their order on the wire
	Broadcast bool     // broadcasts are affected
	User      bool     // messages to the client's user are affected
	// Messages to the client itself are affected, including those to its own room.
	Client       bool
	Since, Until time.Time // when the messages were sent that may be missing
}

// AppendResync appends the event that reports r to a client. Since is rounded down to the
// millisecond, Until up.
func AppendResync(dst []byte, r Resync) []byte {
	dst = append(dst, `{"event":"resync","data":{"rooms":[`...)
	for i, name := range r.Rooms {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, name)
	}
	dst = append(dst, `],"targets":[`...)
	comma := false
	for _, target := range [...]struct {
		concerned bool
		kind      MessageType
	}{{r.Broadcast, TypeBroadcast}, {r.User, TypeUser}, {r.Client, TypeClient}} {
		if !target.concerned {
			continue
		}
		if comma {
			dst = append(dst, ',')
		}
		dst = appendString(dst, target.kind.String())
		comma = true
	}
	dst = append(dst, `],"since":`...)
	dst = appendTime(dst, r.Since)
	dst = append(dst, `,"until":`...)
	dst = appendTime(dst, r.Until.Add(time.Millisecond-1))
	return append(dst, `}}`...)
}

// EncodeData returns v as the data of a message, encoded like encoding/json without HTML escaping.
//
//   - A json.RawMessage is returned without a copy.
//   - A nil v, and a nil json.RawMessage, become null.
//   - NoData becomes nil, which means that the message has no data.
//
// If ParseEnvelope would not accept the data, the error wraps ErrSyntax. This includes an empty
// json.RawMessage that is not nil.
func EncodeData(v any) (json.RawMessage, error) {
	switch v := v.(type) {
	case nil:
		return json.RawMessage("null"), nil
	case NoData:
		return nil, nil
	case json.RawMessage:
		if v == nil {
			return json.RawMessage("null"), nil
		}
		if !validData(v) {
			return nil, fmt.Errorf("encode data: %w", ErrSyntax)
		}
		return v, nil
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode data: %w", err)
	}
	data := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	// Encoding/json does not check the UTF-8 of a MarshalJSON result, nor the total depth.
	if !validData(data) {
		return nil, fmt.Errorf("encode data: %w", ErrSyntax)
	}
	return data, nil
}

// appendString appends s as JSON.stringify writes it. It uses short escapes where they exist and
// \u00xx in lower case for the other control characters. Unpaired surrogates (see ParseString) are
// escaped, too. Everything else is copied. Other bytes that are not UTF-8 become U+FFFD.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for {
		n := asciiPrefix(s)
		dst = append(dst, s[:n]...)
		if s = s[n:]; s == "" {
			return append(dst, '"')
		}
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r < utf8.RuneSelf:
			dst = appendEscaped(dst, s[0])
		case n == 1 && isSurrogate(s):
			dst = append(dst, '\\', 'u', 'd', hexDigits[s[1]>>2&15], hexDigits[s[1]<<2&12|s[2]>>4&3], hexDigits[s[2]&15])
			n = 3
		default:
			dst = utf8.AppendRune(dst, r)
		}
		s = s[n:]
	}
}

// asciiPrefix returns the length of the prefix of s that is ASCII and needs no escape in JSON.
func asciiPrefix(s string) int {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return i
		}
	}
	return len(s)
}

// isSurrogate reports whether s begins with an unpaired surrogate in the encoding of ParseString.
func isSurrogate(s string) bool {
	return len(s) >= 3 && s[0] == 0xED && s[1]&0xE0 == 0xA0 && s[2]&0xC0 == 0x80
}

const hexDigits = "0123456789abcdef"

func appendEscaped(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}
