package ws

import (
	"bytes"
	"crypto/sha1" // RFC 6455 requires it; no security depends on it
	"encoding/base64"
	"net/http"
	"strings"
)

const (
	version = "13"

	// acceptGUID is appended to the key before it is hashed (RFC 6455 §1.3).
	acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// Accepted is a handshake that AppendResponse can answer.
type Accepted struct {
	// Key is the client's Sec-WebSocket-Key.
	Key string

	// Deflate says that the client offered permessage-deflate with parameters that this package
	// supports. Clear it to decline compression.
	Deflate bool

	// Offered lists the subprotocols that the client offers, in its order of preference; nil if
	// none.
	Offered []string

	// Protocol is the subprotocol to answer with; empty means none. Upgrade sets it to the first
	// offered one.
	Protocol string

	windowBits bool // the offer had server_max_window_bits=15, which the answer must repeat
}

// maxOffered is the maximum number of subprotocols that are kept of a request. Further ones are
// ignored.
const maxOffered = 64

// A HandshakeError says why a request cannot become a WebSocket, as an HTTP response.
type HandshakeError struct {
	Status  int         // HTTP status
	Header  http.Header // headers that the status requires; may be nil
	Message string      // for the body: one line, without a newline
}

func (e *HandshakeError) Error() string { return "websocket handshake: " + e.Message }

// Respond writes the response to w.
func (e *HandshakeError) Respond(w http.ResponseWriter) {
	for name, values := range e.Header {
		w.Header()[name] = values
	}
	http.Error(w, e.Message, e.Status)
}

// Upgrade checks the client's opening handshake (RFC 6455 §4.2.1) and negotiates permessage-deflate
// (RFC 7692 §7.1). Its error is a *HandshakeError. The caller checks the origin and the path, and
// decides whether to answer with the first subprotocol. Upgrade neither reads the body nor writes
// anything.
func Upgrade(r *http.Request) (Accepted, error) {
	if err := checkUpgrade(r); err != nil {
		return Accepted{}, err
	}
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) != 1 || !validKey(keys[0]) {
		return Accepted{}, badRequest("exactly one Sec-WebSocket-Key is needed, 16 bytes in base64")
	}
	o, err := negotiate(r.Header["Sec-Websocket-Extensions"])
	if err != nil {
		return Accepted{}, badRequest("malformed Sec-WebSocket-Extensions")
	}
	a := Accepted{Key: keys[0], Deflate: o.ok, windowBits: o.seen&serverMaxWindowBits != 0}
	if lines := r.Header["Sec-Websocket-Protocol"]; lines != nil {
		if a.Offered, err = subprotocols(lines); err != nil {
			return Accepted{}, badRequest("malformed Sec-WebSocket-Protocol")
		}
		if len(a.Offered) > 0 {
			a.Protocol = a.Offered[0]
		}
	}
	return a, nil
}

// subprotocols parses a list of tokens (RFC 6455 §11.3.4), of one header line or several. It skips
// empty elements, as RFC 9110 §5.6.1 requires.
func subprotocols(lines []string) (offered []string, err error) {
	for _, line := range lines {
		for s := (scanner{rest: line}); !s.done(); {
			if s.eat(',') {
				continue
			}
			token := s.token()
			if token == "" || !s.done() && s.rest[0] != ',' {
				return nil, errProtocols
			}
			if len(offered) < maxOffered {
				offered = append(offered, token)
			}
		}
	}
	return offered, nil
}

// checkUpgrade checks everything in the request except the key and the extensions. It checks the
// protocol first, because HTTP/2 has another method and other headers, and errors about those would
// mislead.
func checkUpgrade(r *http.Request) error {
	switch {
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return &HandshakeError{
			Status:  http.StatusHTTPVersionNotSupported,
			Message: "WebSocket is served over HTTP/1.1 only, not over " + r.Proto,
		}
	case r.Method != http.MethodGet:
		return &HandshakeError{
			Status:  http.StatusMethodNotAllowed,
			Header:  http.Header{"Allow": {http.MethodGet}},
			Message: "a WebSocket handshake is a GET request",
		}
	case r.Host == "":
		return badRequest("Host is missing")
	case !hasToken(r.Header["Upgrade"], "websocket"):
		return upgradeRequired("this is a WebSocket endpoint: Upgrade must name websocket", nil)
	case !hasToken(r.Header["Connection"], "upgrade"):
		return badRequest("Connection must name upgrade; a proxy may have removed it")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return badRequest("a WebSocket handshake has no body")
	}
	if v := r.Header["Sec-Websocket-Version"]; len(v) != 1 || v[0] != version {
		return upgradeRequired("Sec-WebSocket-Version must be "+version, http.Header{"Sec-Websocket-Version": {version}})
	}
	return nil
}

func badRequest(message string) error {
	return &HandshakeError{Status: http.StatusBadRequest, Message: message}
}

// upgradeRequired returns status 426 with the headers that RFC 9110 §15.5.22 requires, and those in
// header.
func upgradeRequired(message string, header http.Header) error {
	if header == nil {
		header = http.Header{}
	}
	header["Upgrade"] = []string{"websocket"}
	header["Connection"] = []string{"Upgrade"}
	return &HandshakeError{Status: http.StatusUpgradeRequired, Header: header, Message: message}
}

// hasToken reports whether a header, of one line or several, lists token in any case.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(part, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// validKey reports whether key is 16 bytes in base64.
func validKey(key string) bool {
	if len(key) != 24 {
		return false
	}
	var buf [18]byte
	n, err := base64.StdEncoding.Decode(buf[:], []byte(key))
	return err == nil && n == 16
}

// AcceptKey returns the Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 §4.2.2).
func AcceptKey(key string) string { return string(appendAcceptKey(nil, key)) }

func appendAcceptKey(dst []byte, key string) []byte {
	buf := make([]byte, 0, 64)
	sum := sha1.Sum(append(append(buf, key...), acceptGUID...))
	return base64.StdEncoding.AppendEncode(dst, sum[:])
}

// AppendResponse appends the response to a; frames follow it. It also sends header, which may be
// nil, without the headers of the handshake itself and those that describe a body. A line break in
// a value becomes a space.
func AppendResponse(dst []byte, a Accepted, header http.Header) []byte {
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	dst = appendAcceptKey(dst, a.Key)
	dst = append(dst, "\r\n"...)
	if a.Protocol != "" {
		dst = append(dst, "Sec-WebSocket-Protocol: "...)
		dst = append(dst, a.Protocol...)
		dst = append(dst, "\r\n"...)
	}
	if a.Deflate {
		dst = append(dst, "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"...)
		if a.windowBits {
			dst = append(dst, "; server_max_window_bits=15"...)
		}
		dst = append(dst, "\r\n"...)
	}
	if len(header) > 0 {
		dst = appendExtra(dst, header)
	}
	return append(dst, "\r\n"...)
}

// appendExtra appends the lines of header that are not part of the handshake.
func appendExtra(dst []byte, header http.Header) []byte {
	clean := make(http.Header, len(header))
	for name, values := range header {
		switch http.CanonicalHeaderKey(name) {
		case "Upgrade", "Connection", "Sec-Websocket-Accept", "Sec-Websocket-Extensions", "Sec-Websocket-Protocol",
			"Content-Length", "Transfer-Encoding", "Trailer":
		default:
			clean[name] = values
		}
	}
	buf := bytes.NewBuffer(dst)
	_ = clean.Write(buf) // a Buffer never fails
	return buf.Bytes()
}
