package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth"
)

// from returns a copy of the rig that dials from the given address of this machine.
func (r *rig) from(addr string) *rig {
	from := *r
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}
	from.dial = func() (net.Conn, error) { return d.Dial("tcp", r.addr) }
	return &from
}

// silent opens a WebSocket and sends nothing. The connection stays open until the server closes it
// and the test ends.
func (r *rig) silent() net.Conn {
	r.t.Helper()
	conn, in := r.tcp()
	_, err := io.WriteString(conn, handshake)
	must(r.t, err)
	if head := readHead(r.t, in); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		r.t.Fatalf("handshake answered with %s, want 101", head)
	}
	return conn
}

// forTwoAddresses is forTransports for tests that need several client addresses. It skips the test
// where the machine has only one.
func forTwoAddresses(t *testing.T, f func(t *testing.T, transport hearth.Transport)) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip(err)
	}
	ln.Close()
	forTransports(t, f)
}

// TestEvictedSocketsAreBounded checks that evicted clients that keep their sockets open hold at
// most a few sockets more than the limit, and do not exclude other addresses.
func TestEvictedSocketsAreBounded(t *testing.T) {
	t.Parallel()
	forTwoAddresses(t, func(t *testing.T, transport hearth.Transport) {
		const perAddr, most = 20, 20 + 20/4 + 16
		r := start(t, config{
			Transport: transport, Timeouts: hearth.Timeouts{Close: time.Hour},
			Limits: hearth.Limits{MaxUnauthenticatedPerAddr: perAddr, MaxConnections: 100},
		})
		for range 300 {
			r.silent()
		}
		for r.Stats().Connections > most { // the last ones are closed soon
			runtime.Gosched()
		}
		r.from("127.0.0.2").member("u").say("heartbeat", "1")
		if s := r.Stats(); s.HandshakesRejected != 0 || s.Evicted != 300-perAddr {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestSilentClientsMakeRoom checks that clients that have not authenticated are evicted when all
// connections are in use.
func TestSilentClientsMakeRoom(t *testing.T) {
	t.Parallel()
	forTwoAddresses(t, func(t *testing.T, transport hearth.Transport) {
		const limit = 50
		r := start(t, config{
			Transport: transport, Timeouts: hearth.Timeouts{Close: time.Hour},
			Limits: hearth.Limits{MaxConnections: limit, MaxUnauthenticatedPerAddr: hearth.Unlimited},
		})
		for range 3 * limit {
			r.silent()
		}
		other := r.from("127.0.0.2")
		for i := range limit {
			other.member(fmt.Sprint("u", i))
		}
		if s := r.Stats(); s.HandshakesRejected != 0 || s.Clients != limit {
			t.Errorf("stats %+v", s)
		}
		for r.Stats().Connections > limit+1 { // one may be closing
			runtime.Gosched()
		}
		// When all clients have authenticated, no client is evicted.
		for r.Stats().Connections > limit {
			conn, _ := r.tcp()
			_, _ = io.WriteString(conn, handshake)
		}
		if resp := r.tryHandshake("/ws", nil); resp.StatusCode != 503 {
			t.Errorf("connection above the limit: %s, want 503", resp.Status)
		}
	})
}

// TestSilentClientsEvictedFirst checks that silent clients do not evict a client of the same
// address whose Authenticate is running.
func TestSilentClientsEvictedFirst(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		asked, release := make(chan struct{}), make(chan struct{})
		r := start(t, config{
			Transport: transport, Limits: hearth.Limits{MaxUnauthenticatedPerAddr: 4},
			Authenticate: func(ctx context.Context, a hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
				close(asked)
				<-release
				return accept(ctx, a)
			},
		})
		p := r.peer()
		p.say("authenticate", `{"as":"u"}`)
		<-asked
		for range 20 {
			r.silent()
		}
		close(release)
		p.welcome()
	})
}

// TestServeIdleConnections checks that connections that wait for a request, or for the rest of one,
// are bounded for each address: the oldest is closed, and other addresses are served.
func TestServeIdleConnections(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"silent":     "",
		"half":       "GET / HTTP/1.1\r\nHost: x\r\n",
		"large half": "GET / HTTP/1.1\r\nHost: x\r\nX: " + repeat("x", 16<<10),
		"keep-alive": "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forTwoAddresses(t, func(t *testing.T, transport hearth.Transport) {
				const perAddr, all, most = 10, 100, 10 + 16
				r := serve(t, config{Transport: transport, Limits: hearth.Limits{MaxUnauthenticatedPerAddr: perAddr}}, hello)
				var conns []net.Conn
				for range all {
					conn, in := r.tcp()
					_, err := io.WriteString(conn, request)
					must(t, err)
					if strings.HasSuffix(request, "\r\n\r\n") {
						resp, err := http.ReadResponse(in, nil)
						must(t, err)
						_, err = io.Copy(io.Discard, resp.Body)
						must(t, err)
					}
					conns = append(conns, conn)
				}
				other := r.from("127.0.0.2")
				conn, in := other.tcp()
				ask(t, conn, in, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 200)
				// The server may have seen the connections in another order than they were opened
				// in.
				open := all
				for deadline := time.Now().Add(answer); open > most && time.Now().Before(deadline); {
					open = 0
					for _, c := range conns {
						must(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
						if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
							open++
						}
					}
				}
				if open > most || open < perAddr {
					t.Fatalf("%d connections are open, want %d to %d", open, perAddr, most)
				}
			})
		})
	}
}

// TestServeUnreadBody checks that an unread request body that never arrives does not keep the
// connection open.
func TestServeUnreadBody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, config{})
		ln := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- r.Serve(ln, nil) }() // ends with Shutdown
		conn, err := ln.dial()
		must(t, err)
		defer conn.Close()
		began := time.Now()
		_, err = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
		must(t, err)
		answered, err := io.ReadAll(conn)
		must(t, err)
		if took := time.Since(began); !strings.HasPrefix(string(answered), "HTTP/1.1 404 ") || took > time.Minute {
			t.Errorf("after %v: %s", took, answered)
		}
		must(t, r.Shutdown(t.Context()))
		if err := <-served; !errors.Is(err, hearth.ErrServerClosed) {
			t.Error(err)
		}
	})
}
