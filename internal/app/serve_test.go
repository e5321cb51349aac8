package app_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/hearthws/hearth/internal/app"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds every wait in these tests.
const limit = time.Minute

// A server is a server that runs during a test.
type server struct {
	t    *testing.T
	srv  *app.Server
	url  string
	stop func() error // drains, once

	admin string // the address of the listener for operators, empty if there is none
	api   string // the address of the HTTP API, empty if there is none
}

// serve starts a server with the defaults and these options. It stops at the end of the test.
func serve(t *testing.T, options map[string]string) *server {
	t.Helper()
	return serveTo(t, options, slog.New(slog.DiscardHandler))
}

func serveTo(t *testing.T, options map[string]string, log *slog.Logger) *server {
	t.Helper()
	flags := map[string][]string{"listen": {"localhost:0"}}
	for k, v := range options {
		flags[k] = []string{v}
	}
	cfg, _, err := app.Load(app.Sources{Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := app.New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }() // ends after cancel; stop waits for it
	s := &server{t: t, srv: srv, url: srv.URL(), admin: srv.AdminURL(), api: srv.APIURL()}
	s.stop = func() error {
		cancel()
		err := <-ended
		ended <- nil
		return err
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s
}

func (s *server) ws() string { return strings.Replace(s.url, "http", "ws", 1) + "ws" }

// get returns a response and its body.
func (s *server) get(client *http.Client, method, path string, header http.Header) (*http.Response, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(s.url, "/")+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(b)
}

func plainClient(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := serve(t, map[string]string{"path": "/live"})
	client := plainClient(t)
	for _, tt := range []struct {
		method, path string
		code         int
		contentType  string
		body         string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8", `name="hearth-path" content="/live"`},
		{"HEAD", "/", 200, "text/html; charset=utf-8", ""},
		{"POST", "/", 405, "", ""},
		{"GET", "/assets/app.js", 200, "text/javascript; charset=utf-8", "import"},
		{"GET", "/assets/style.css", 200, "text/css; charset=utf-8", "color-scheme"},
		{"GET", "/assets/hearth.svg", 200, "image/svg+xml", "<svg"},
		{"GET", "/assets/", 404, "", ""},
		{"GET", "/assets/index.html", 404, "", ""},
		{"GET", "/assets/../serve.go", 404, "", ""},
		{"GET", "/healthz", 200, "text/plain; charset=utf-8", "ok"},
		{"GET", "/readyz", 200, "text/plain; charset=utf-8", "ok"},
		{"GET", "/nothing", 404, "", ""},
		{"GET", "/ws", 404, "", ""},
	} {
		resp, body := s.get(client, tt.method, tt.path, nil)
		if resp.StatusCode != tt.code || !strings.Contains(body, tt.body) {
			t.Errorf("%s %s: %d %.100s", tt.method, tt.path, resp.StatusCode, body)
		}
		if tt.contentType != "" && resp.Header.Get("Content-Type") != tt.contentType {
			t.Errorf("%s: %s", tt.path, resp.Header.Get("Content-Type"))
		}
		if tt.code == 200 && !strings.HasSuffix(tt.path, "z") && !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: no content security policy", tt.path)
		}
	}
}

func TestPageIsNotSentTwice(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	client := plainClient(t)
	resp, _ := s.get(client, "GET", "/assets/app.js", nil)
	resp, body := s.get(client, "GET", "/assets/app.js", http.Header{"If-None-Match": {resp.Header.Get("ETag")}})
	if resp.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("status %d, %d bytes", resp.StatusCode, len(body))
	}
}

// A client is an authenticated connection.
type client struct {
	t  *testing.T
	c  *websocket.Conn
	id string
}

type envelope struct {
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

func (s *server) dial(name string) *client {
	s.t.Helper()
	return dialWith(s.t, s.ws(), name, nil)
}

// dialExtension connects a client that requests the extension of the protocol, with recovery.
func (s *server) dialExtension(name string) *client {
	s.t.Helper()
	return dialMore(s.t, s.ws(), name, `,"hearth":{"version":1,"features":["recovery"]}`, nil)
}

func dialWith(t *testing.T, url, name string, opts *websocket.DialOptions) *client {
	t.Helper()
	return dialMore(t, url, name, "", opts)
}

// dialMore connects and authenticates. more are further members of authenticate.
func dialMore(t *testing.T, url, name, more string, opts *websocket.DialOptions) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	c := &client{t: t, c: ws}
	credentials, _ := json.Marshal(map[string]string{"name": name})
	c.send(`{"event":"authenticate","data":` + string(credentials) + more + `}`)
	var connected struct{ ID, UserID string }
	c.want("connected", &connected)
	if connected.UserID != name {
		t.Errorf("connected as %q, not %q", connected.UserID, name)
	}
	c.id = connected.ID
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := c.c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// next returns the next message that is not presence, which arrives at any time.
func (c *client) next() (envelope, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		_, b, err := c.c.Read(ctx)
		if err != nil {
			return envelope{}, err
		}
		var e envelope
		if err := json.Unmarshal(b, &e); err != nil {
			return envelope{}, err
		}
		if e.Event != "presence" {
			return e, nil
		}
	}
}

// want decodes the data of the next message into v. It fails if the message has another event.
func (c *client) want(event string, v any) {
	c.t.Helper()
	e, err := c.next()
	if err != nil {
		c.t.Fatalf("waiting for %q: %v", event, err)
	}
	if e.Event != event {
		c.t.Fatalf("waiting for %q: got %s %s", event, e.Event, e.Data)
	}
	if v != nil {
		if err := json.Unmarshal(e.Data, v); err != nil {
			c.t.Fatal(err)
		}
	}
}

func TestServeTLS(t *testing.T) {
	t.Parallel()
	cert, key, pool := certificate(t)
	s := serve(t, map[string]string{"tls-cert": cert, "tls-key": key})
	if !strings.HasPrefix(s.url, "https://localhost:") {
		t.Fatalf("url %s", s.url)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(tr.CloseIdleConnections)
	secure := &http.Client{Transport: tr}
	if resp, _ := s.get(secure, "GET", "/", nil); resp.StatusCode != 200 {
		t.Errorf("page: %d", resp.StatusCode)
	}
	c := dialWith(t, s.ws(), "ada", &websocket.DialOptions{HTTPClient: secure})
	c.send(`{"event":"shout","id":"1","data":{"text":"hello"}}`)
	c.want("shout", nil)
}

// TestServeTLSRenewed checks that clients get the renewed certificate from the first handshake on,
// without a restart.
func TestServeTLSRenewed(t *testing.T) {
	t.Parallel()
	cert, key, _ := certificateUntil(t, time.Now().Add(-time.Minute))
	s := serve(t, map[string]string{"tls-cert": cert, "tls-key": key})
	newCert, newKey, pool := certificate(t)
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(tr.CloseIdleConnections)
	if resp, _ := s.get(&http.Client{Transport: tr}, "GET", "/", nil); resp.StatusCode != 200 {
		t.Errorf("page: %d", resp.StatusCode)
	}
}

// certificate returns a self-signed certificate for localhost.
func certificate(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	return certificateUntil(t, time.Now().Add(time.Hour))
}

func certificateUntil(t *testing.T, until time.Time) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: until, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return writeFile(t, "cert.pem", string(certPEM)),
		writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))), pool
}

// TestServeOrigins checks that pages of other sites cannot connect, not even if their name resolves
// to this machine.
func TestServeOrigins(t *testing.T) {
	t.Parallel()
	open := serve(t, map[string]string{"origins": "https://app.example"})
	anyone := serve(t, map[string]string{"origins": "*"})
	closed := serve(t, nil)
	for _, tt := range []struct {
		s            *server
		origin, host string
		ok           bool
	}{
		{closed, "", "", true},
		{closed, "self", "", true},
		{closed, "https://app.example", "", false},
		{closed, "http://rebound.example", "rebound.example", false},
		{open, "https://app.example", "", true},
		{open, "HTTPS://APP.example", "", true},
		{open, "https://other.example", "", false},
		{open, "self", "", true}, // its own page still works
		{anyone, "https://other.example", "", true},
	} {
		opts := &websocket.DialOptions{Host: tt.host, HTTPHeader: http.Header{}}
		if tt.origin == "self" {
			tt.origin = strings.TrimSuffix(tt.s.url, "/")
		}
		if tt.origin != "" {
			opts.HTTPHeader.Set("Origin", tt.origin)
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		c, _, err := websocket.Dial(ctx, tt.s.ws(), opts)
		if tt.ok != (err == nil) {
			t.Errorf("origin %q, host %q: %v", tt.origin, tt.host, err)
		}
		if c != nil {
			c.CloseNow()
		}
		cancel()
	}
}

func TestRunDrains(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]map[string]string{"epoll": nil, "netconn": {"transport": "netconn"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, options)
			c := s.dial("ada")
			stopped := make(chan error, 1)
			go func() { stopped <- s.stop() }() // received below
			var err error
			for err == nil {
				_, err = c.next()
			}
			var closed websocket.CloseError
			if !errors.As(err, &closed) || closed.Code != 1001 || closed.Reason != "Server shutting down" {
				t.Errorf("the client saw %v", err)
			}
			if err := <-stopped; err != nil {
				t.Error(err)
			}
			if conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(s.url, "http://"), "/")); err == nil {
				conn.Close()
				t.Error("the port is still open")
			}
		})
	}
}
