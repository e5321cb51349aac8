package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth"
)

// taken is what the application of these tests takes from a request.
type taken struct{ session, lang string }

// TestFromRequest checks that the result of FromRequest reaches Authenticate, with each way to
// serve.
func TestFromRequest(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{
			Transport: transport,
			Upgrade: hearth.Upgrade{FromRequest: func(r *http.Request) (any, error) {
				cookie, err := r.Cookie("session")
				if err != nil {
					return nil, hearth.ErrRejected
				}
				return taken{cookie.Value, r.URL.Query().Get("lang")}, nil
			}},
			Authenticate: func(_ context.Context, r hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
				v := r.FromRequest.(taken)
				return hearth.Identity[profile]{UserID: v.session, Metadata: profile{v.lang}}, nil
			},
		})
		if resp := r.tryHandshake("/ws", nil); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("without a cookie: %v", resp.Status)
		}
		if n := r.Stats().HandshakesRejected; n != 1 {
			t.Errorf("%d handshakes were rejected", n)
		}
		header := http.Header{"Cookie": {"session=ada"}}
		conn, _, err := websocket.Dial(t.Context(), "ws://"+r.addr+"/ws?lang=en", &websocket.DialOptions{HTTPHeader: header})
		must(t, err)
		defer conn.CloseNow()
		must(t, conn.Write(t.Context(), websocket.MessageText, []byte(`{"event":"authenticate"}`)))
		_, b, err := conn.Read(t.Context())
		must(t, err)
		if !strings.Contains(string(b), `"userId":"ada"`) {
			t.Errorf("got %s", b)
		}
		if c := r.Local().Clients(hearth.ToUser("ada")); len(c) != 1 || c[0].Metadata().Name != "en" {
			t.Errorf("clients %v", c)
		}
	})
}

// TestFromRequestFails checks that an error of FromRequest rejects the handshake and is counted.
func TestFromRequestFails(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport, Upgrade: hearth.Upgrade{FromRequest: func(*http.Request) (any, error) {
			return nil, errors.New("database is down")
		}}})
		if resp := r.tryHandshake("/ws", nil); resp.StatusCode != http.StatusInternalServerError {
			t.Errorf("got %v", resp.Status)
		}
		if n := r.Stats().CallbackErrors; n != 1 {
			t.Errorf("%d failures were counted", n)
		}
	})
}

// TestUpgradeCallbacksRunOnce checks that the callbacks of a rejected handshake run once, so a
// one-time ticket is used once. This includes a handshake for which the server has no free
// connection.
func TestUpgradeCallbacksRunOnce(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		var origins, addrs, subprotocols atomic.Int32
		var tickets sync.Map
		r := start(t, config{
			Transport: transport,
			Limits:    hearth.Limits{MaxConnections: 1},
			Upgrade: hearth.Upgrade{
				CheckOrigin: func(*http.Request) bool { origins.Add(1); return true },
				ClientAddr:  func(*http.Request) netip.Addr { addrs.Add(1); return netip.Addr{} },
				Subprotocol: func(_ *http.Request, offered []string) (string, bool) {
					subprotocols.Add(1)
					return offered[0], offered[0] != "no"
				},
				FromRequest: func(r *http.Request) (any, error) {
					ticket := r.URL.Query().Get("ticket")
					if ticket == "error" {
						return nil, errors.New("no")
					}
					if _, ok := tickets.LoadAndDelete(ticket); !ok {
						return nil, hearth.ErrRejected
					}
					return ticket, nil
				},
			},
		})
		tickets.Store("a", true)
		conn, in := r.tcp()
		ask := func(ticket, protocol string, want int) {
			t.Helper()
			origins.Store(0)
			addrs.Store(0)
			subprotocols.Store(0)
			head := strings.Replace(handshake, "/ws", "/ws?ticket="+ticket, 1)
			head = strings.Replace(head, "Host:", "Sec-WebSocket-Protocol: "+protocol+"\r\nHost:", 1)
			_, err := io.WriteString(conn, head)
			must(t, err)
			resp, err := http.ReadResponse(in, nil)
			must(t, err)
			_, _ = io.Copy(io.Discard, resp.Body)
			wantAddrs := int32(1)
			if protocol == "no" {
				wantAddrs = 0
			}
			if o, a, s := origins.Load(), addrs.Load(), subprotocols.Load(); resp.StatusCode != want || o != 1 || a != wantAddrs || s != 1 {
				t.Errorf("ticket %q: %s after %d, %d and %d calls, want %d", ticket, resp.Status, o, a, s, want)
			}
		}
		ask("a", "v1", 101)
		newPeer(t, &rawWire{conn: conn, in: in}).login("u")
		for _, tt := range []struct {
			ticket, protocol string
			valid            bool
			want             int
		}{
			{"b", "v1", true, 503},
			{"used", "v1", false, 401},
			{"error", "v1", false, 500},
			{"c", "no", true, 400},
		} {
			if tt.valid {
				tickets.Store(tt.ticket, true)
			}
			conn, in = r.tcp()
			ask(tt.ticket, tt.protocol, tt.want)
			// the decision is not used for the next request of the connection
			ask("second", "v1", 401)
		}
		if s := r.Stats(); s.CallbackErrors != 1 || s.HandshakesRejected != 8 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// TestUpgradeCallbacksPanic checks that a panic of a callback is answered with 500, counted, and
// logged with its stack.
func TestUpgradeCallbacksPanic(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		fail := func(name string, r *http.Request) {
			switch r.URL.Query().Get(name) {
			case "panic":
				panic("broken " + name)
			case "abort":
				panic(http.ErrAbortHandler)
			}
		}
		book := newLogbook()
		r := start(t, config{
			Transport: transport,
			Logger:    slog.New(book),
			Upgrade: hearth.Upgrade{
				CheckOrigin: func(r *http.Request) bool { fail("CheckOrigin", r); return true },
				ClientAddr:  func(r *http.Request) netip.Addr { fail("ClientAddr", r); return netip.Addr{} },
				Subprotocol: func(r *http.Request, offered []string) (string, bool) {
					fail("Subprotocol", r)
					return offered[0], true
				},
				FromRequest: func(r *http.Request) (any, error) { fail("FromRequest", r); return nil, nil },
			},
		})
		for i, name := range []string{"CheckOrigin", "ClientAddr", "Subprotocol", "FromRequest"} {
			head := strings.Replace(handshake, "Host:", "Sec-WebSocket-Protocol: v1\r\nHost:", 1)
			if status, body := answerTo(r, strings.Replace(head, "/ws", "/ws?"+name+"=panic", 1)); status != 500 {
				t.Errorf("%s: %d %s", name, status, body)
			}
			message := name + " callback failed"
			if got := book.attr(message, "error"); got != "panic: broken "+name {
				t.Errorf("logged %q for %s: %v", got, name, book.last)
			}
			if stack := book.attr(message, "stack"); !strings.Contains(stack, "request_test.go") {
				t.Errorf("%s: stack %s", name, stack)
			}
			if status, body := answerTo(r, strings.Replace(head, "/ws", "/ws?"+name+"=abort", 1)); status != 0 {
				t.Errorf("%s aborts: %d %s", name, status, body)
			}
			if s := r.Stats(); s.CallbackErrors != uint64(i+1) || s.HandshakesRejected != uint64(2*i+2) {
				t.Errorf("%s: stats: %+v", name, s)
			}
		}
	})
}

// TestUpgradeCallbacksBounded checks that running callbacks are bounded per address and in total,
// even if their clients have disconnected.
func TestUpgradeCallbacksBounded(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		const limit, total, perAddr = 40, 40 + 16, 40/2 + 16
		asked, release := make(chan struct{}, 2*total), make(chan struct{})
		book := newLogbook()
		r := start(t, config{
			Transport: transport,
			Logger:    slog.New(book),
			Limits:    hearth.Limits{MaxUnauthenticated: limit, MaxUnauthenticatedPerAddr: 1},
			Upgrade: hearth.Upgrade{FromRequest: func(*http.Request) (any, error) {
				asked <- struct{}{}
				<-release
				return nil, nil
			}},
		})
		var once sync.Once
		free := func() { once.Do(func() { close(release) }) }
		t.Cleanup(free) // before the rig shuts down
		from := func(host string) net.Conn {
			t.Helper()
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}
			conn, err := dialer.Dial("tcp", r.addr)
			must(t, err)
			t.Cleanup(func() { conn.Close() })
			must(t, conn.SetDeadline(time.Now().Add(answer)))
			_, err = io.WriteString(conn, handshake)
			must(t, err)
			return conn
		}
		accepted := func(host string, n int) (conns []net.Conn) {
			t.Helper()
			for range n {
				conns = append(conns, from(host))
				select {
				case <-asked:
				case <-time.After(answer):
					t.Fatalf("the callback was not called for %s", host)
				}
			}
			return conns
		}
		status := func(conn net.Conn) int {
			t.Helper()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return 0
			}
			resp.Body.Close()
			return resp.StatusCode
		}
		for _, conn := range accepted("127.0.0.1", perAddr) {
			must(t, conn.Close())
		}
		if got := status(from("127.0.0.1")); got != 503 {
			t.Errorf("too many of one address: %d", got)
		}
		accepted("127.0.0.2", total-perAddr)
		if got := status(from("127.0.0.3")); got != 503 {
			t.Errorf("too many in total: %d", got)
		}
		message := "handshake rejected: too many handshakes at the same time"
		if got := book.attr(message, "setting"); got != "Limits.MaxUnauthenticated" {
			t.Errorf("logged: %v", book.last)
		}
		if n := r.Stats().HandshakesRejected; n < 2 {
			t.Errorf("%d handshakes were rejected", n)
		}
		free()
		// The places are free again. This client may be rejected until the earlier clients have
		// been evicted.
		r.counts(func(hearth.Stats) bool { return status(from("127.0.0.1")) == 101 })
	})
}
