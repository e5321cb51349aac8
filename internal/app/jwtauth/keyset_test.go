package jwtauth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/hearthws/hearth/internal/app/jwtauth"
)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// jwk returns a public key as a member of a key set.
func jwk(t *testing.T, kid string, key *ecdsa.PrivateKey) map[string]any {
	t.Helper()
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	n := (len(point) - 1) / 2
	text := base64.RawURLEncoding.EncodeToString
	return map[string]any{"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256", "x": text(point[1 : 1+n]), "y": text(point[1+n:])}
}

func keySet(t *testing.T, keys ...map[string]any) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// An issuer serves key sets from memory: it is the Transport of a Verifier, so that tests can run
// with a fake clock.
type issuer struct {
	mu       sync.Mutex // guards the fields below
	status   int
	body     string
	hang     bool
	requests int
}

func (i *issuer) set(status int, body string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.status, i.body = status, body
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.requests
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.requests++
	status, body, hang := i.status, i.body, i.hang
	i.mu.Unlock()
	if hang {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func startVerifier(t *testing.T, transport http.RoundTripper, url string) *jwtauth.Verifier {
	t.Helper()
	v := verifier(t, jwtauth.Config{JWKS: url, Transport: transport, Logger: slog.New(slog.DiscardHandler)})
	v.Start()
	t.Cleanup(v.Close)
	return v
}

func TestKeySetRotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		first, second := newKey(t), newKey(t)
		i := &issuer{status: 200, body: keySet(t, jwk(t, "1", first))}
		v := startVerifier(t, i, "https://issuer.example/jwks")
		verify := func(what, kid string, key *ecdsa.PrivateKey, want jwtauth.Reason) {
			t.Helper()
			_, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodES256, key, kid, nil))
			checkReason(t, what, err, want)
		}
		verify("first key", "1", first, jwtauth.Accepted)
		verify("without a key id", "", first, jwtauth.Accepted)
		verify("foreign key with a known id", "1", second, jwtauth.Signature)
		i.set(200, keySet(t, jwk(t, "1", first), jwk(t, "2", second)))

		verify("new key right after a request", "2", second, jwtauth.UnknownKey)
		time.Sleep(11 * time.Second)
		verify("new key", "2", second, jwtauth.Accepted)
		if n := i.count(); n != 2 {
			t.Errorf("%d requests", n)
		}
		for n := range 1000 {
			verify("unknown key", fmt.Sprint("x", n), second, jwtauth.UnknownKey)
		}
		if n := i.count(); n != 2 {
			t.Errorf("%d requests because of unknown keys", n)
		}

		// A set that cannot be loaded does not remove keys.
		for _, bad := range []string{"", "<html>", "{}", `{"keys":[]}`, `{"keys":[{"kty":"oct","kid":"3","k":"AAAA"}]}`, strings.Repeat(" ", 10<<20)} {
			i.set(200, bad)
			time.Sleep(6 * time.Minute)
			verify("key after a bad answer", "1", first, jwtauth.Accepted)
			verify("unknown key after a bad answer", "x", second, jwtauth.Unavailable)
		}
		i.set(500, keySet(t))
		time.Sleep(6 * time.Minute)
		verify("key after status 500", "2", second, jwtauth.Accepted)

		// A key that is removed from the set is not accepted any more.
		i.set(200, keySet(t, jwk(t, "2", second)))
		time.Sleep(6 * time.Minute)
		verify("removed key", "1", first, jwtauth.UnknownKey)
		verify("the other key", "2", second, jwtauth.Accepted)
	})
}

// TestKeySetHangs checks that clients wait for a key set no longer than the request takes, that all
// share one request, and that it is repeated.
func TestKeySetHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		key := newKey(t)
		i := &issuer{status: 200, body: keySet(t, jwk(t, "1", key)), hang: true}
		v := startVerifier(t, i, "https://issuer.example/jwks")
		token := sign(t, jwt.SigningMethodES256, key, "1", nil)
		var waiting sync.WaitGroup
		began := time.Now()
		for range 100 {
			waiting.Go(func() {
				_, err := v.Verify(t.Context(), token)
				checkReason(t, "while the issuer hangs", err, jwtauth.Unavailable)
			})
		}
		waiting.Wait()
		if took := time.Since(began); took > 5*time.Second || i.count() != 1 {
			t.Errorf("waited %v for %d requests", took, i.count())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := v.Verify(ctx, token)
		checkReason(t, "with a context that ends", err, jwtauth.Unavailable)

		i.mu.Lock()
		i.hang = false
		i.mu.Unlock()
		time.Sleep(10 * time.Second)
		_, err = v.Verify(t.Context(), token)
		checkReason(t, "when the issuer works again", err, jwtauth.Accepted)
	})
}

// TestKeySetServer uses real HTTP servers.
func TestKeySetServer(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	set := keySet(t, jwk(t, "1", key))
	token := sign(t, jwt.SigningMethodES256, key, "1", nil)
	var foreign atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		foreign.Add(1)
		io.WriteString(w, set)
	}))
	t.Cleanup(elsewhere.Close)
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		want    jwtauth.Reason
	}{
		{"works", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, set) }, jwtauth.Accepted},
		{"redirects", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, jwtauth.Unavailable},
		{"10 MB", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 10<<20)) }, jwtauth.Unavailable},
		{"ends early", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000000")
			io.WriteString(w, set)
		}, jwtauth.Unavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(tt.handler)
			t.Cleanup(server.Close)
			transport := &http.Transport{DialContext: (&net.Dialer{}).DialContext}
			t.Cleanup(transport.CloseIdleConnections)
			v := startVerifier(t, transport, server.URL)
			_, err := v.Verify(t.Context(), token)
			checkReason(t, tt.name, err, tt.want)
		})
	}
	if n := foreign.Load(); n != 0 {
		t.Errorf("followed %d redirects", n)
	}
}
