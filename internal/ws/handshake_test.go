package ws_test

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/hearthws/hearth/internal/ws"
)

const sampleKey = "dGhlIHNhbXBsZSBub25jZQ=="

// request returns a valid handshake, with lines appended, or replacing those with the same name.
func request(t *testing.T, first string, lines ...string) *http.Request {
	t.Helper()
	header := []string{"Host: example.com", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: " + sampleKey, "Sec-WebSocket-Version: 13"}
	for _, line := range lines {
		name, _, _ := strings.Cut(line, ":")
		for i := 0; i < len(header); i++ {
			if n, _, _ := strings.Cut(header[i], ":"); n == name {
				header = append(header[:i], header[i+1:]...)
				i--
			}
		}
	}
	for _, line := range lines {
		if !strings.HasSuffix(line, ": -") {
			header = append(header, strings.ReplaceAll(line, "&", "\r\n"))
		}
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(first + "\r\n" + strings.Join(header, "\r\n") + "\r\n\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestUpgrade(t *testing.T) {
	t.Parallel()
	const get = "GET /chat HTTP/1.1"
	for _, c := range []struct {
		name  string
		first string
		lines []string // "Name: -" removes a header; & is a line break
		want  int      // status, 0 for success
	}{
		{"plain", get, nil, 0},
		{"names in any case", get, []string{"Upgrade: WebSocket", "Connection: keep-alive, UPGRADE"}, 0},
		{"several lines", get, []string{"Connection: keep-alive&Connection: foo,\tupgrade ,", "Upgrade: h2c&Upgrade: websocket"}, 0},
		{"POST", "POST / HTTP/1.1", nil, 405},
		{"HEAD", "HEAD / HTTP/1.1", nil, 405},
		{"HTTP/1.0", "GET / HTTP/1.0", nil, 505},
		{"HTTP/2", "GET / HTTP/2.0", nil, 505},
		{"no Host", get, []string{"Host: -"}, 400},
		{"no Upgrade", get, []string{"Upgrade: -"}, 426},
		{"other Upgrade", get, []string{"Upgrade: h2c"}, 426},
		{"Upgrade only as part of a word", get, []string{"Upgrade: websockets, xwebsocket"}, 426},
		{"a browser's visit", get, []string{"Upgrade: -", "Connection: keep-alive", "Sec-WebSocket-Key: -", "Sec-WebSocket-Version: -"}, 426},
		{"no Connection", get, []string{"Connection: -"}, 400},
		{"other Connection", get, []string{"Connection: keep-alive"}, 400},
		{"no version", get, []string{"Sec-WebSocket-Version: -"}, 426},
		{"old version", get, []string{"Sec-WebSocket-Version: 8"}, 426},
		{"versions", get, []string{"Sec-WebSocket-Version: 13, 8"}, 426},
		{"version twice", get, []string{"Sec-WebSocket-Version: 13&Sec-WebSocket-Version: 13"}, 426},
		{"version 013", get, []string{"Sec-WebSocket-Version: 013"}, 426},
		{"no key", get, []string{"Sec-WebSocket-Key: -"}, 400},
		{"two keys", get, []string{"Sec-WebSocket-Key: " + sampleKey + "&Sec-WebSocket-Key: " + sampleKey}, 400},
		{"short key", get, []string{"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"}, 400},
		{"key of 18 bytes", get, []string{"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA"}, 400},
		{"key of 17 bytes", get, []string{"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA="}, 400},
		{"key not base64", get, []string{"Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="}, 400},
		{"key without padding", get, []string{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"}, 400},
		{"body", get, []string{"Content-Length: 3"}, 400},
		{"chunked body", get, []string{"Transfer-Encoding: chunked"}, 400},
		{"empty body", get, []string{"Content-Length: 0"}, 0},
		{"subprotocol with a space", get, []string{"Sec-WebSocket-Protocol: a b"}, 400},
		{"quoted subprotocol", get, []string{`Sec-WebSocket-Protocol: "a"`}, 400},
		{"subprotocol that is no token", get, []string{"Sec-WebSocket-Protocol: a, b/c"}, 400},
		{"malformed subprotocol in a second line", get, []string{"Sec-WebSocket-Protocol: a&Sec-WebSocket-Protocol: b;c"}, 400},
		{"subprotocol that is not ASCII", get, []string{"Sec-WebSocket-Protocol: \xc3\xa9"}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, err := ws.Upgrade(request(t, c.first, c.lines...))
			if c.want == 0 {
				if err != nil || a.Key != sampleKey || a.Deflate {
					t.Fatalf("got %+v, %v", a, err)
				}
				return
			}
			checkRejection(t, err, c.want)
		})
	}
}

func checkRejection(t *testing.T, err error, status int) {
	t.Helper()
	var he *ws.HandshakeError
	if !errors.As(err, &he) || he.Status != status {
		t.Fatalf("got %v, want status %d", err, status)
	}
	w := httptest.NewRecorder()
	he.Respond(w)
	if w.Code != status || strings.TrimSpace(w.Body.String()) != he.Message || !strings.Contains(err.Error(), he.Message) {
		t.Errorf("responded %d %q", w.Code, w.Body)
	}
	switch h := w.Header(); status {
	case http.StatusMethodNotAllowed:
		if h.Get("Allow") != "GET" {
			t.Errorf("no Allow: %v", h)
		}
	case http.StatusUpgradeRequired:
		if h.Get("Upgrade") != "websocket" || h.Get("Connection") != "Upgrade" {
			t.Errorf("no Upgrade: %v", h)
		}
		if strings.Contains(he.Message, "Version") && h.Get("Sec-WebSocket-Version") != "13" {
			t.Errorf("no version: %v", h)
		}
	}
}

func TestNegotiation(t *testing.T) {
	t.Parallel()
	const (
		rejected  = ""
		malformed = "400"
		plain     = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
		bits      = plain + "; server_max_window_bits=15"
	)
	for offer, want := range map[string]string{
		"":                   rejected,
		" , ,":               rejected,
		"permessage-deflate": plain,
		"permessage-deflate; client_max_window_bits":                                plain,
		"permessage-deflate;client_max_window_bits=15":                              plain,
		"permessage-deflate; client_max_window_bits=8":                              plain,
		`permessage-deflate; client_max_window_bits="10"`:                           plain,
		`permessage-deflate; client_max_window_bits="1\0"`:                          plain,
		"permessage-deflate ; client_max_window_bits = 15 , foo":                    plain,
		"permessage-deflate; server_no_context_takeover":                            plain,
		"permessage-deflate; client_no_context_takeover":                            plain,
		"permessage-deflate; client_no_context_takeover;server_no_context_takeover": plain,
		"permessage-deflate; server_max_window_bits=15":                             bits,
		`permessage-deflate; server_max_window_bits="15"`:                           bits,
		// declined
		"permessage-deflate; server_max_window_bits=14":                              rejected,
		"permessage-deflate; server_max_window_bits=8":                               rejected,
		"permessage-deflate; server_max_window_bits":                                 rejected,
		"permessage-deflate; server_max_window_bits=16":                              rejected,
		"permessage-deflate; server_max_window_bits=015":                             rejected,
		"permessage-deflate; client_max_window_bits=7":                               rejected,
		"permessage-deflate; client_max_window_bits=16":                              rejected,
		"permessage-deflate; client_max_window_bits=08":                              rejected,
		"permessage-deflate; client_max_window_bits=x":                               rejected,
		"permessage-deflate; client_no_context_takeover=1":                           rejected,
		"permessage-deflate; server_no_context_takeover=true":                        rejected,
		"permessage-deflate; unknown":                                                rejected,
		"permessage-deflate; unknown=1":                                              rejected,
		"permessage-deflate; client_no_context_takeover; client_no_context_takeover": rejected,
		"permessage-deflate; client_max_window_bits; client_max_window_bits=10":      rejected,
		"permessage-deflate; server_max_window_bits=15; server_max_window_bits=15":   rejected,
		"x-webkit-deflate-frame":                                                     rejected,
		"permessage-bzip2, foo; bar=baz":                                             rejected,
		"Permessage-Deflate":                                                         rejected,
		// the first acceptable offer
		"permessage-deflate; server_max_window_bits=10, permessage-deflate":                         plain,
		"permessage-deflate; server_max_window_bits=10&permessage-deflate":                          plain,
		"foo; a=\"b\", permessage-deflate; server_max_window_bits=15, permessage-deflate":           bits,
		"permessage-deflate; client_max_window_bits, permessage-deflate; server_max_window_bits=15": plain,
		",, permessage-deflate,": plain,
		// violates the grammar
		"permessage-deflate;":                              malformed,
		"permessage-deflate; ;":                            malformed,
		"permessage-deflate; =10":                          malformed,
		"permessage-deflate; client_max_window_bits=":      malformed,
		"permessage-deflate; client_max_window_bits=\"\"":  malformed,
		"permessage-deflate; client_max_window_bits=\"1":   malformed,
		"permessage-deflate; client_max_window_bits=\"1\\": malformed,
		`foo; bar="a b"`:                                   malformed,
		"permessage-deflate foo":                           malformed,
		"permessage-deflate; a b":                          malformed,
		"permessage-deflate, foo/bar":                      malformed,
		"=":                                                malformed,
		"; foo":                                            malformed,
		"permessage-defl\u00e4te":                          malformed,
	} {
		t.Run(offer, func(t *testing.T) {
			t.Parallel()
			r := request(t, "GET / HTTP/1.1")
			r.Header["Sec-Websocket-Extensions"] = strings.Split(offer, "&")
			a, err := ws.Upgrade(r)
			if want == malformed {
				checkRejection(t, err, 400)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := response(t, a, nil).Header.Get("Sec-WebSocket-Extensions"); got != want {
				t.Errorf("agreed on %q, want %q", got, want)
			}
			if a.Deflate != (want != rejected) {
				t.Errorf("Deflate is %v", a.Deflate)
			}
			a.Deflate = false
			if got := response(t, a, nil).Header; got["Sec-Websocket-Extensions"] != nil {
				t.Errorf("Deflate was cleared, but the response has %v", got)
			}
		})
	}
}

func TestSubprotocols(t *testing.T) {
	t.Parallel()
	many := strings.Repeat("x, ", 1000)
	for _, c := range []struct {
		lines []string
		want  []string
	}{
		{nil, nil},
		{[]string{""}, nil},
		{[]string{" , ,"}, nil},
		{[]string{"chat.v1"}, []string{"chat.v1"}},
		{[]string{"chat.v1, chat.v2"}, []string{"chat.v1", "chat.v2"}},
		{[]string{"\tb ,a,,c"}, []string{"b", "a", "c"}},
		{[]string{"b", "", "a,c"}, []string{"b", "a", "c"}},
		{[]string{"Chat!#$%&'*+-.^_`|~9"}, []string{"Chat!#$%&'*+-.^_`|~9"}},
		{[]string{many, "y"}, strings.Split(strings.TrimSuffix(many, ", "), ", ")[:64]},
	} {
		r := request(t, "GET / HTTP/1.1")
		r.Header["Sec-Websocket-Protocol"] = c.lines
		a, err := ws.Upgrade(r)
		if err != nil || !slices.Equal(a.Offered, c.want) {
			t.Errorf("%.100q: %v, %v", c.lines, a.Offered, err)
			continue
		}
		first := ""
		if len(c.want) > 0 {
			first = c.want[0]
		}
		if got := response(t, a, nil).Header.Values("Sec-WebSocket-Protocol"); strings.Join(got, "|") != first {
			t.Errorf("%.100q: answered with %q, want %q", c.lines, got, first)
		}
	}
}

func response(t *testing.T, a ws.Accepted, header http.Header) *http.Response {
	t.Helper()
	br := bufio.NewReader(bytes.NewReader(ws.AppendResponse(nil, a, header)))
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if br.Buffered() != 0 {
		t.Errorf("%d bytes after the response", br.Buffered())
	}
	return resp
}

func TestAppendResponse(t *testing.T) {
	t.Parallel()
	if got := ws.AcceptKey(sampleKey); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("AcceptKey: %s", got)
	}
	want := "before" + "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	if got := string(ws.AppendResponse([]byte("before"), ws.Accepted{Key: sampleKey}, nil)); got != want {
		t.Errorf("got %q", got)
	}
	// The reference uses the same order.
	want = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat.v1\r\n" +
		"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n"
	if got := string(ws.AppendResponse(nil, ws.Accepted{Key: sampleKey, Protocol: "chat.v1", Deflate: true}, nil)); got != want {
		t.Errorf("got %q", got)
	}
	header := http.Header{
		"Sec-Websocket-Protocol": {"other"}, "Set-Cookie": {"a=1", "b=2"}, "X-Evil": {"a\r\nInjected: yes"}, "Bad\r\nName": {"x"},
		"connection": {"close"}, "Upgrade": {"h2c"}, "Sec-WebSocket-Accept": {"no"}, "Sec-Websocket-Extensions": {"no"}, "Content-Length": {"5"},
	}
	resp := response(t, ws.Accepted{Key: sampleKey, Protocol: "chat"}, header)
	h := resp.Header
	if resp.StatusCode != 101 || h.Get("Sec-WebSocket-Protocol") != "chat" || len(h["Set-Cookie"]) != 2 || h.Get("X-Evil") != "a  Injected: yes" {
		t.Errorf("got %v %v", resp.Status, h)
	}
	if h.Get("Connection") != "Upgrade" || h.Get("Upgrade") != "websocket" || len(h["Sec-Websocket-Accept"]) != 1 || len(h) != 6 {
		t.Errorf("got %v", h)
	}
}

// FuzzUpgrade checks that no request breaks anything, and that an accepted one gets a readable
// response.
func FuzzUpgrade(f *testing.F) {
	f.Add("GET", "websocket", "Upgrade", sampleKey, "13", "permessage-deflate; client_max_window_bits", "chat.v1, b")
	f.Add("GET", "a, websocket", "keep-alive, Upgrade", sampleKey, "13", `permessage-deflate; server_max_window_bits="15", foo`, ",")
	f.Add("PUT", "", "", "x", "8", `;"\`, "a b")
	f.Fuzz(func(t *testing.T, method, upgrade, connection, key, version, extensions, protocol string) {
		r := &http.Request{Method: method, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "example.com", Header: http.Header{
			"Upgrade": {upgrade}, "Connection": {connection}, "Sec-Websocket-Key": {key}, "Sec-Websocket-Version": {version}, "Sec-Websocket-Extensions": {extensions},
			"Sec-Websocket-Protocol": {protocol},
		}}
		a, err := ws.Upgrade(r)
		if err != nil {
			var he *ws.HandshakeError
			if !errors.As(err, &he) || he.Status < 400 || he.Message == "" {
				t.Fatalf("got %#v", err)
			}
			return
		}
		if got := response(t, a, nil).Header; got.Get("Sec-WebSocket-Accept") != ws.AcceptKey(key) || (got["Sec-Websocket-Extensions"] != nil) != a.Deflate {
			t.Fatalf("got %v", got)
		}
		if got := response(t, a, nil).Header.Get("Sec-WebSocket-Protocol"); got != a.Protocol || !strings.Contains(protocol, got) {
			t.Fatalf("subprotocol %q of %q", got, protocol)
		}
		if a.Deflate && !strings.Contains(extensions, "permessage-deflate") {
			t.Fatalf("agreed on an extension that was not offered: %q", extensions)
		}
	})
}
