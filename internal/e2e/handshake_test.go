package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth"
)

// answerHead sends a handshake with further header lines and returns the header of the answer
// unchanged.
func (r *rig) answerHead(lines ...string) string {
	r.t.Helper()
	conn, in := r.tcp()
	more := ""
	for _, line := range lines {
		more += line + "\r\n"
	}
	_, err := io.WriteString(conn, strings.TrimSuffix(handshake, "\r\n")+more+"\r\n")
	must(r.t, err)
	return readHead(r.t, in)
}

func readHead(t testing.TB, in *bufio.Reader) string {
	t.Helper()
	head := ""
	for !strings.HasSuffix(head, "\r\n\r\n") {
		line, err := in.ReadString('\n')
		must(t, err)
		head += line
	}
	return head
}

// switching returns the expected answer to a handshake, with lines after the fixed ones.
func switching(lines string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" + lines + "\r\n"
}

// TestSubprotocol checks that the answer selects the first subprotocol on offer, byte for byte as
// the reference does.
func TestSubprotocol(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport})
		for offer, want := range map[string]string{
			"":                                "",
			"Sec-WebSocket-Protocol:":         "",
			"Sec-WebSocket-Protocol: chat.v1": "Sec-WebSocket-Protocol: chat.v1\r\n",
			"sec-websocket-protocol: chat.v2 , chat.v1":                               "Sec-WebSocket-Protocol: chat.v2\r\n",
			"Sec-WebSocket-Protocol: b\r\nSec-WebSocket-Protocol: a":                  "Sec-WebSocket-Protocol: b\r\n",
			"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Extensions: x-other; y=\"1\"": "Sec-WebSocket-Protocol: a\r\n",
		} {
			var lines []string
			if offer != "" {
				lines = []string{offer}
			}
			if got := r.answerHead(lines...); got != switching(want) {
				t.Errorf("%q: answered with\n%s", offer, got)
			}
		}
		for _, malformed := range []string{"a b", `"a"`, "a, b/c", "a\r\nSec-WebSocket-Protocol: {}"} {
			if got := r.answerHead("Sec-WebSocket-Protocol: " + malformed); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
				t.Errorf("%q: answered with\n%s", malformed, got)
			}
		}
		c, _, err := websocket.Dial(t.Context(), "ws://"+r.addr+"/ws", &websocket.DialOptions{Subprotocols: []string{"chat.v1", "chat.v0"}})
		must(t, err)
		defer c.CloseNow()
		if c.Subprotocol() != "chat.v1" {
			t.Errorf("the client sees %q", c.Subprotocol())
		}
	})
}

// TestSubprotocolSelected checks that the application can select or reject, and that Authenticate
// sees the result.
func TestSubprotocolSelected(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		keysFor := make(chan string, 1)
		book := newLogbook()
		r := start(t, config{
			Transport: transport,
			Logger:    slog.New(book),
			Upgrade: hearth.Upgrade{Subprotocol: func(r *http.Request, offered []string) (string, bool) {
				switch {
				case len(offered) == 0 || r.URL.Path != "/ws":
					t.Errorf("asked about %q on %s", offered, r.URL)
				case slices.Contains(offered, "v2"):
					return "v2", true
				case slices.Contains(offered, "any"):
					return "", true
				case slices.Contains(offered, "buggy"):
					return "v3", true
				}
				return "", false
			}},
			Authenticate: func(ctx context.Context, a hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
				keysFor <- a.Subprotocol
				return accept(ctx, a)
			},
		})
		for offer, want := range map[string]string{
			"v1, v2": switching("Sec-WebSocket-Protocol: v2\r\n"),
			"any":    switching(""),
			"v1":     "HTTP/1.1 400 ",
			"buggy":  "HTTP/1.1 500 ",
		} {
			if got := r.answerHead("Sec-WebSocket-Protocol: " + offer); !strings.HasPrefix(got, want) {
				t.Errorf("%q: answered with\n%s", offer, got)
			}
		}
		if selected := book.attr("Config.Upgrade.Subprotocol selected what the client did not offer", "selected"); selected != "v3" {
			t.Errorf("logged: %v", book.last)
		}
		if got := r.answerHead(); got != switching("") { // the callback is not called
			t.Errorf("no offer: answered with\n%s", got)
		}
		for offer, want := range map[string]string{"Sec-WebSocket-Protocol: v1,v2": "v2", "X: y": ""} {
			conn, in := r.tcp()
			_, err := io.WriteString(conn, strings.TrimSuffix(handshake, "\r\n")+offer+"\r\n\r\n")
			must(t, err)
			readHead(t, in)
			p := newPeer(t, &rawWire{conn: conn, in: in})
			p.login("u")
			if got := <-keysFor; got != want {
				t.Errorf("%s: Authenticate sees %q", offer, got)
			}
		}
	})
}

// TestResponseHeaders checks that headers set by middleware are sent with the answer, except those
// that would break the handshake.
func TestResponseHeaders(t *testing.T) {
	t.Parallel()
	for _, transport := range []hearth.Transport{hearth.TransportNetConn, hearth.TransportAuto} {
		srv, err := hearth.New(config{Authenticate: accept, Transport: transport})
		must(t, err)
		must(t, srv.Start(t.Context()))
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			http.SetCookie(w, &http.Cookie{Name: "node", Value: "3"})
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "x", HttpOnly: true})
			h.Set("X-Request-Id", "17\r\nInjected: 1")
			for _, own := range []string{
				"Connection", "Upgrade", "Sec-WebSocket-Accept", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol",
				"Content-Length", "Transfer-Encoding",
			} {
				h.Set(own, "1")
			}
			h["sec-websocket-protocol"] = []string{"2"}
			srv.ServeHTTP(w, r)
		})}
		served := make(chan error, 1)
		go func() { served <- web.Serve(ln) }() // ends with web.Close
		r := &rig{server: srv, t: t, addr: ln.Addr().String(), dial: func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) }}
		want := switching("Sec-WebSocket-Protocol: a\r\nSet-Cookie: node=3\r\nSet-Cookie: session=x; HttpOnly\r\nX-Request-Id: 17  Injected: 1\r\n")
		if got := r.answerHead("Sec-WebSocket-Protocol: a"); got != want {
			t.Errorf("%q: answered with\n%s", transport, got)
		}
		must(t, srv.Shutdown(t.Context()))
		web.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}
}

// TestDefaultPorts checks that the default port of a scheme may be given or omitted in origins and
// hosts.
func TestDefaultPorts(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport, Upgrade: hearth.Upgrade{Origins: []string{"https://app.test:443"}}})
		for _, c := range []struct {
			host, origin string
			status       int
		}{
			{"example.com:443", "https://example.com", 101},
			{"example.com:80", "http://example.com", 101},
			{"example.com", "https://app.test", 101},
			{"example.com:443", "http://example.com", 403},
			{"example.com:8443", "https://example.com", 403},
		} {
			if resp := r.tryHandshake("/ws", map[string]string{"Host": c.host, "Origin": c.origin}); resp.StatusCode != c.status {
				t.Errorf("host %s, origin %s: %s", c.host, c.origin, resp.Status)
			}
		}
	})
}

// TestRejectionsAreLogged checks that the log names the setting that would allow the handshake.
func TestRejectionsAreLogged(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		book := newLogbook()
		r := start(t, config{Transport: transport, Logger: slog.New(book), Limits: hearth.Limits{MaxConnections: 1}})
		r.tryHandshake("/ws", map[string]string{"Origin": "https://evil.test"})
		if got := book.attr("handshake rejected: origin not allowed", "setting"); got != "Config.Upgrade.Origins" {
			t.Errorf("origin: logged %v", book.last)
		}
		r.tryHandshake("/ws", map[string]string{"Upgrade": ""})
		if got := book.attr("handshake rejected", "status"); got != "426" {
			t.Errorf("no upgrade: logged %v", book.last)
		}
		r.member("u")
		r.tryHandshake("/ws", nil)
		if got := book.attr("handshake rejected: too many connections", "setting"); got != "Limits.MaxConnections" {
			t.Errorf("too many: logged %v", book.last)
		}
	})
}
