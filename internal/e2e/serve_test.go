package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth"
)

// serve is start with the server's own listener.
func serve(t testing.TB, cfg config, h http.Handler) *rig {
	t.Helper()
	if cfg.Authenticate == nil {
		cfg.Authenticate = accept
	}
	srv, err := hearth.New(unhurried(cfg))
	must(t, err)
	must(t, srv.Start(t.Context()))
	r := &rig{server: srv, t: t}
	served := r.listen(h)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), answer)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil && !errors.Is(err, hearth.ErrNotRunning) {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, hearth.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return r
}

// listen serves on a new port and makes the rig dial it.
func (r *rig) listen(h http.Handler) (served chan error) {
	r.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(r.t, err)
	r.addr = ln.Addr().String()
	addr := r.addr
	r.dial = func() (net.Conn, error) { return net.Dial("tcp", addr) }
	served = make(chan error, 1)
	go func() { served <- r.Serve(ln, h) }() // ends with Shutdown
	return served
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, body)
})

// ask sends a request on conn and returns the body of the answer, which must have the given status.
func ask(t testing.TB, conn net.Conn, in *bufio.Reader, request string, status int) string {
	t.Helper()
	_, err := io.WriteString(conn, request)
	must(t, err)
	resp, err := http.ReadResponse(in, nil)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != status {
		t.Errorf("%.60q answered with %s %s, want %d", request, resp.Status, body, status)
	}
	return string(body)
}

func (r *rig) tcp() (net.Conn, *bufio.Reader) {
	r.t.Helper()
	conn, err := r.dial()
	must(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	return conn, bufio.NewReader(conn)
}

// TestServeClients checks that sessions behave the same through the server's own listener.
func TestServeClients(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := serve(t, config{Transport: transport, Loops: 3, Message: func(_ context.Context, c *client, m hearth.Message) error {
			return c.Send(m.Event, m.Data)
		}}, nil)
		var all []*peer
		for i := range 20 {
			p := r.member(fmt.Sprint("u", i))
			if got, want := r.client(p).RemoteAddr().String(), p.wire.(*rawWire).conn.LocalAddr().String(); got != want {
				t.Errorf("address %s, want %s", got, want)
			}
			all = append(all, p)
		}
		for _, p := range all {
			p.say("echo", `"x"`)
			p.wants(`{"event":"echo","data":"x"}`)
		}
		must(t, r.Local().Send(t.Context(), hearth.ToAll(), "all", 1))
		for _, p := range all {
			p.wants(`{"event":"all","data":1}`)
		}
		all[0].bye(1000, "")
		all[0].wantsClose(1000, "")
	})
}

// TestServeHandshake sends the handshake in pieces of several sizes, with frames after it.
func TestServeHandshake(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := serve(t, config{Transport: transport}, nil)
		login := frameOf(0x80|opText, []byte(`{"event":"authenticate","data":{"as":"u"}}`))
		for _, size := range []int{1, 2, 3, 7, 50, 1000} {
			conn, in := r.tcp()
			for rest := append([]byte(handshake), login...); len(rest) > 0; {
				n := min(size, len(rest))
				_, err := conn.Write(rest[:n])
				must(t, err)
				rest = rest[n:]
			}
			resp, err := http.ReadResponse(in, nil)
			must(t, err)
			if resp.StatusCode != 101 {
				t.Fatalf("pieces of %d: %s", size, resp.Status)
			}
			newPeer(t, &rawWire{conn: conn, in: in}).welcome()
		}
		// as lenient as net/http
		conn, in := r.tcp()
		_, err := io.WriteString(conn, strings.ReplaceAll(handshake, "\r\n", "\n")+string(login))
		must(t, err)
		resp, err := http.ReadResponse(in, nil)
		must(t, err)
		if resp.StatusCode != 101 {
			t.Fatalf("lines without CR: %s", resp.Status)
		}
		newPeer(t, &rawWire{conn: conn, in: in}).welcome()
	})
}

// TestServeRejections checks that requests are answered as net/http answers them.
func TestServeRejections(t *testing.T) {
	t.Parallel()
	own, through := serve(t, config{}, nil), start(t, config{Transport: hearth.TransportEpoll})
	head := func(change ...string) string {
		return strings.NewReplacer(change...).Replace(handshake)
	}
	for _, request := range []string{
		handshake,
		head("/ws", "/ws?x=1"),
		head("/ws", "http://hearth.test/ws"),
		head("/ws", "/%77s"),
		head("/ws", "/ws/"),
		head("/ws", "//ws"),
		head("/ws", "*"),
		head("/ws", "/ws\x01"),
		head("/ws", "/ws#x"),
		head("GET", "POST"),
		head("GET", "G\x00T"),
		head("HTTP/1.1", "HTTP/1.0"),
		head("HTTP/1.1", "HTTP/2.0"),
		head("HTTP/1.1", "FTP/1.1"),
		head("Host: hearth.test\r\n", ""),
		head("Host: hearth.test\r\n", "Host:\r\n"),
		head("Host: hearth.test", "Host: a\r\nHost: b"),
		head("Host: hearth.test", "Host: a b"),
		head("Host: hearth.test", "Host: a\x00b"),
		head("Host: hearth.test", "Host: hearth.test/ws"),
		head("Host: hearth.test", "Host: hearth.test\r\nX Y: z"),
		head("Host: hearth.test", "Host: hearth.test\r\nX\x7f: z"),
		head("Host: hearth.test", "Host: hearth.test\r\nX : z"),
		head("Host: hearth.test", "Host: hearth.test\r\nX: a\x01b"),
		head("Host: hearth.test", "Host: hearth.test\r\nX: a\rb"),
		head("Host: hearth.test", "Host: hearth.test\r\nno colon"),
		head("Host: hearth.test", "Host: hearth.test\r\n folded: x"),
		head("Host: hearth.test", "Host: hearth.test\r\nContent-Length: 5"),
		head("Host: hearth.test", "Host: hearth.test\r\nContent-Length: 0"),
		head("Host: hearth.test", "Host: hearth.test\r\nContent-Length: -1"),
		head("Host: hearth.test", "Host: hearth.test\r\nContent-Length: 1\r\nContent-Length: 2"),
		head("Host: hearth.test", "Host: hearth.test\r\nTransfer-Encoding: chunked"),
		head("Host: hearth.test", "Host: hearth.test\r\nTransfer-Encoding: gzip"),
		head("Host: hearth.test", "Host: hearth.test\r\nOrigin: https://evil.test"),
		head("Host: hearth.test", "Host: hearth.test\r\nOrigin: http://hearth.test"),
		head("Host: hearth.test", "Host: hearth.test\r\nX: "+repeat("x", 12<<10)),
		head("Host: hearth.test", "Host: hearth.test\r\nX: "+repeat("x", 64<<10)),
		head("Host: hearth.test", "Host: hearth.test\r\nX: "+repeat("x", 2<<20)),
		head("Version: 13", "Version: 8"),
		head("Upgrade: websocket", "Upgrade: h2c"),
		head("Connection: Upgrade", "Connection: close"),
		head("Key: dGhl", "Key: x"),
		head("Key:", "Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key:"),
		"\r\n" + handshake,
		"\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"\x16\x03\x01\x00\r\n\r\n",
		"GET /ws\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /other HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		if len(request) > 32<<10 { // the limits differ: the default of net/http is 1 MiB
			if status, _ := answerTo(own, request); status != 431 {
				t.Errorf("a head of %d bytes: %d, want 431", len(request), status)
			}
			continue
		}
		status, body := answerTo(own, request)
		wantStatus, wantBody := answerTo(through, request)
		if strings.Contains(request, "/other") {
			wantBody = "404 page not found\n"
		}
		if status != wantStatus || (body != wantBody && status != 404) {
			t.Errorf("%.300q:\n%d %s, want %d %s", request, status, body, wantStatus, wantBody)
		}
	}
}

// answerTo returns the status and body of the answer to a request, or 0 if the server closes the
// connection without one. It tries again after a reset: net/http resets a connection from which it
// has not read everything after half a second, which a slow machine sees before the answer.
func answerTo(r *rig, request string) (status int, body string) {
	r.t.Helper()
	var err error
	for range 20 {
		if status, body, err = tryAnswer(r, request); !errors.Is(err, syscall.ECONNRESET) {
			return status, body
		}
	}
	r.t.Errorf("%.300q: every answer ends with: %v", request, err)
	return status, body
}

// tryAnswer is answerTo without the retry. It also returns the error that ended reading the answer.
func tryAnswer(r *rig, request string) (status int, body string, err error) {
	r.t.Helper()
	conn, in := r.tcp()
	defer conn.Close()
	must(r.t, conn.SetDeadline(time.Now().Add(answer)))
	sent := make(chan struct{})
	go func() { // ends when all is sent, or the server has closed the connection
		defer close(sent)
		_, _ = io.WriteString(conn, request)
	}()
	resp, err := http.ReadResponse(in, nil)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r.t.Errorf("%.300q: no answer", request)
	}
	if err == nil {
		status = resp.StatusCode
		if status != 101 {
			var b []byte
			b, err = io.ReadAll(resp.Body)
			body = string(b)
		}
		resp.Body.Close()
	}
	conn.Close()
	<-sent
	return status, body, err
}

// TestServeHTTP checks that net/http handles every other request, on the same connection, for as
// long as both sides keep it open.
func TestServeHTTP(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := serve(t, config{Transport: transport}, hello)
		conn, in := r.tcp()
		for range 3 {
			if body := ask(t, conn, in, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody", 200); body != "POST /a body" {
				t.Errorf("body %q", body)
			}
		}
		// several requests at once; the last is split within its body
		_, err := io.WriteString(conn, "GET /b HTTP/1.1\r\nHost: x\r\n\r\nPOST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n"+repeat("x", 5000))
		must(t, err)
		if body := ask(t, conn, in, repeat("x", 15000), 200); body != "GET /b " {
			t.Errorf("body %q", body)
		}
		if body := ask(t, conn, in, "", 200); body != "POST /c "+repeat("x", 20000) {
			t.Errorf("body of %d bytes", len(body))
		}
		ask(t, conn, in, strings.Replace(handshake, "Version: 13", "Version: 12", 1), 426)
		// then a handshake after all, with a frame after it
		_, err = io.WriteString(conn, handshake+string(frameOf(0x80|opText, []byte(`{"event":"authenticate"}`))))
		must(t, err)
		resp, err := http.ReadResponse(in, nil)
		must(t, err)
		if resp.StatusCode != 101 {
			t.Fatal(resp.Status)
		}
		newPeer(t, &rawWire{conn: conn, in: in}).welcome()
	})
}

// TestServeLifecycle serves before Start, on two ports, and after Shutdown.
func TestServeLifecycle(t *testing.T) {
	t.Parallel()
	srv, err := hearth.New(config{Authenticate: accept})
	must(t, err)
	r := &rig{server: srv, t: t}
	first := r.listen(nil)
	if resp := r.tryHandshake("/ws", nil); resp.StatusCode != 503 {
		t.Errorf("before Start: %s", resp.Status)
	}
	must(t, srv.Start(t.Context()))
	early := r.member("early")
	second := r.listen(hello)
	late := r.member("late")
	must(t, srv.Local().Send(t.Context(), hearth.ToAll(), "x", 1))
	early.wants(`{"event":"x","data":1}`)
	late.wants(`{"event":"x","data":1}`)
	must(t, srv.Shutdown(context.Background()))
	for _, served := range []chan error{first, second, r.listen(nil)} {
		if err := <-served; !errors.Is(err, hearth.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	}
	early.wantsClose(1001, "Server shutting down")
	if conn, err := r.dial(); err == nil {
		conn.Close()
		t.Error("the port is open after Shutdown")
	}
}

// TestServeShutdownRequests checks that a shutdown answers running requests and does not leave
// clients hanging that connect meanwhile.
func TestServeShutdownRequests(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		in, out := make(chan struct{}), make(chan struct{})
		r := serve(t, config{Transport: transport}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(in)
			<-out
			fmt.Fprint(w, "done")
		}))
		conn, br := r.tcp()
		_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		must(t, err)
		<-in
		p := r.member("u")
		ended := make(chan error, 1)
		go func() { ended <- r.Shutdown(context.Background()) }()
		p.wantsClose(1001, "Server shutting down")
		close(out)
		if body := ask(t, conn, br, "", 200); body != "done" {
			t.Errorf("body %q", body)
		}
		must(t, <-ended)
	})
}

// TestServeShutdownUnderLoad checks that clients that connect during a shutdown get an answer or a
// closed connection, and that no connection is left.
func TestServeShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := serve(t, config{Transport: transport, Loops: 2}, hello)
		ctx, stop := context.WithCancel(t.Context())
		var storm sync.WaitGroup
		var through atomic.Int32
		for i := range 8 {
			storm.Go(func() { // ends with stop
				for ctx.Err() == nil {
					conn, err := r.dial()
					if err != nil {
						runtime.Gosched()
						continue
					}
					request := handshake
					if i%2 == 0 {
						request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
					}
					_, _ = io.WriteString(conn, request)
					if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
						through.Add(1)
					}
					conn.Close()
				}
			})
		}
		for through.Load() < 200 {
			runtime.Gosched()
		}
		must(t, r.Shutdown(context.Background()))
		stop()
		storm.Wait()
		if n := r.Stats().Connections; n != 0 {
			t.Errorf("%d connections after Shutdown", n)
		}
	})
}

// TestServeCallbacks checks that the upgrade callbacks may block, fail, and call the server.
func TestServeCallbacks(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		var srv atomic.Pointer[server]
		blocked, release := make(chan struct{}), make(chan struct{})
		r := serve(t, config{
			Transport: transport,
			Upgrade: hearth.Upgrade{CheckOrigin: func(req *http.Request) bool {
				switch req.Header.Get("Origin") {
				case "block":
					close(blocked)
					<-release
				case "panic":
					panic("origin")
				case "exit":
					runtime.Goexit()
				case "no":
					return false
				}
				return true
			}, ClientAddr: func(req *http.Request) netip.Addr {
				// Start takes the lock that handshakes hold
				_ = srv.Load().Start(context.Background())
				switch req.Header.Get("Origin") {
				case "panic late":
					panic("address")
				case "exit late":
					runtime.Goexit()
				}
				return netip.MustParseAddr("10.1.2.3")
			}},
		}, nil)
		srv.Store(r.server)
		from := func(origin string) string {
			return strings.Replace(handshake, "Host:", "Origin: "+origin+"\r\nHost:", 1)
		}
		waits, in := r.tcp()
		_, err := io.WriteString(waits, from("block")+string(frameOf(0x80|opText, []byte(`{"event":"authenticate"}`))))
		must(t, err)
		<-blocked
		for _, origin := range []string{"panic", "exit", "panic late", "exit late"} {
			if status, _ := answerTo(r, from(origin)); status != 0 && status != 500 {
				t.Errorf("origin %s: answered with %d", origin, status)
			}
		}
		if status, _ := answerTo(r, from("no")); status != 403 {
			t.Errorf("rejected: %d", status)
		}
		p := r.member("u")
		if addr := r.client(p).RemoteAddr().String(); addr != "10.1.2.3:0" {
			t.Errorf("address %s", addr)
		}
		close(release)
		resp, err := http.ReadResponse(in, nil)
		must(t, err)
		if resp.StatusCode != 101 {
			t.Fatal(resp.Status)
		}
		newPeer(t, &rawWire{conn: waits, in: in}).welcome()
	})
}

// TestServeCallbackOutlived checks that a client that disconnects during an upgrade callback leaves
// nothing behind.
func TestServeCallbackOutlived(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		asked, release := make(chan struct{}, 64), make(chan struct{})
		r := serve(t, config{Transport: transport, Loops: 2, Timeouts: hearth.Timeouts{Close: 100 * time.Millisecond}, Upgrade: hearth.Upgrade{CheckOrigin: func(*http.Request) bool {
			asked <- struct{}{}
			<-release
			return true
		}}}, nil)
		for range 10 {
			conn, _ := r.tcp()
			_, err := io.WriteString(conn, handshake)
			must(t, err)
			<-asked
			must(t, conn.(*net.TCPConn).SetLinger(0))
			conn.Close()
		}
		conn, _ := r.tcp()
		_, err := io.WriteString(conn, handshake)
		must(t, err)
		<-asked
		close(release)
		r.member("u")
		must(t, r.Shutdown(context.Background()))
		if n := r.Stats().Connections; n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// TestMaxConnectionsExact checks the limit with simultaneous handshakes when authenticated clients
// use all other connections.
func TestMaxConnectionsExact(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		for _, own := range []bool{false, true} {
			const limit, knocks = 10, 100
			cfg := config{Transport: transport, Loops: 4, Limits: hearth.Limits{MaxConnections: limit}}
			var r *rig
			if own {
				r = serve(t, cfg, nil)
			} else {
				r = start(t, cfg)
			}
			for range limit {
				r.member("u")
			}
			if in, rejected, cut := r.tryHandshakes(knocks); in != 0 || rejected != knocks || cut != 0 {
				t.Errorf("own listener %v: %d accepted, %d rejected, %d cut", own, in, rejected, cut)
			}
			if s := r.Stats(); s.Connections != limit || s.HandshakesRejected != knocks {
				t.Errorf("stats %+v", s)
			}
		}
	})
}

// tryHandshakes sends n handshakes at the same time and counts the kinds of answers.
func (r *rig) tryHandshakes(n int) (in, rejected, cut int32) {
	r.t.Helper()
	var status [3]atomic.Int32
	var all sync.WaitGroup
	for range n {
		conn, br := r.tcp()
		all.Go(func() { // ends with the answer
			_, _ = io.WriteString(conn, handshake)
			resp, err := http.ReadResponse(br, nil)
			switch {
			case err != nil:
				status[2].Add(1)
			case resp.StatusCode == 101:
				status[0].Add(1)
			case resp.StatusCode == 503:
				status[1].Add(1)
			}
		})
	}
	all.Wait()
	return status[0].Load(), status[1].Load(), status[2].Load()
}

// TestServeShutdownHalf checks that a shutdown does not wait for an incomplete request.
func TestServeShutdownHalf(t *testing.T) {
	t.Parallel()
	r := serve(t, config{}, nil)
	conn, _ := r.tcp()
	_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHo")
	must(t, err)
	r.member("later") // the request has been accepted by now
	must(t, r.Shutdown(context.Background()))
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes in answer to an incomplete request", n)
	}
}

// TestServeHandlerPanic checks that a panic of the application's HTTP handler is logged as an
// error, with its stack.
func TestServeHandlerPanic(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		book := newLogbook()
		r := serve(t, config{Transport: transport, Logger: slog.New(book)}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/abort" {
				panic(http.ErrAbortHandler)
			}
			panic("broken: handler\nsecond line")
		}))
		for _, path := range []string{"/abort", "/panic"} {
			if status, _ := answerTo(r, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); status != 0 {
				t.Errorf("%s: answered with %d", path, status)
			}
		}
		const message = "HTTP handler panicked"
		if lines, _ := book.count(""); lines != 1 || book.attr(message, "error") != "panic: broken: handler" {
			t.Errorf("logged: %v", book.last)
		}
		if stack := book.attr(message, "stack"); !strings.Contains(stack, "serve_test.go") {
			t.Errorf("stack %s", stack)
		}
	})
}

// TestServeHijack checks that a connection hijacked by the application's HTTP handler has no
// deadline for the body of its request, during the handler and afterwards.
func TestServeHijack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv, err := hearth.New(config{Authenticate: accept, Transport: hearth.TransportNetConn})
		must(t, err)
		must(t, srv.Start(t.Context()))
		read := make(chan string, 1)
		ln := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		served := make(chan error, 1)
		go func() { // ends with Shutdown
			served <- srv.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				go func() { // ends with the line that the client sends
					defer conn.Close()
					line, err := rw.ReadString('\n')
					read <- fmt.Sprint(line, err)
				}()
			}))
		}()
		conn, err := ln.dial()
		must(t, err)
		_, err = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n")
		must(t, err)
		time.Sleep(time.Minute)
		_, _ = io.WriteString(conn, "hello\n")
		if got := <-read; got != "hello\n<nil>" {
			t.Errorf("the handler has read %q", got)
		}
		conn.Close()
		must(t, srv.Shutdown(t.Context()))
		if err := <-served; !errors.Is(err, hearth.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
}
