package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/hearthws/hearth/internal/app/identity"
	"github.com/hearthws/hearth/internal/app/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	secret = []byte("0123456789abcdef0123456789abcdef")
	other  = []byte("ffffffffffffffffffffffffffffffff")
)

// client returns a client of a server with this handler.
func client(t *testing.T, handler http.HandlerFunc) *webhook.Client {
	t.Helper()
	server := httptest.NewServer(handler)
	c := webhook.New(webhook.Config{URL: server.URL, Secrets: [][]byte{secret, other}, Timeout: 200 * time.Millisecond})
	t.Cleanup(func() { c.Close(); server.CloseClientConnections(); server.Close() })
	return c
}

func checkResult(t *testing.T, what string, err error, want webhook.Result) {
	t.Helper()
	got := webhook.Accepted
	if err != nil {
		e, ok := errors.AsType[*webhook.Error](err)
		if !ok {
			t.Fatalf("%s: the error is not an Error: %v", what, err)
		}
		got = e.Result
	}
	if got != want {
		t.Errorf("%s: %v (%v), want %v", what, got, err, want)
	}
}

// TestAuthenticate checks the request, as a backend would, and the identity.
func TestAuthenticate(t *testing.T) {
	t.Parallel()
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		id, timestamp := r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp")
		signatures := strings.Fields(r.Header.Get("webhook-signature"))
		for i, key := range [][]byte{secret, other} {
			mac := hmac.New(sha256.New, key)
			io.WriteString(mac, id+"."+timestamp+"."+string(body))
			if len(signatures) != 2 || signatures[i] != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
				t.Errorf("signatures %v", signatures)
			}
		}
		if seconds, err := strconv.ParseInt(timestamp, 10, 64); err != nil || time.Since(time.Unix(seconds, 0)).Abs() > time.Minute || len(id) < 20 {
			t.Errorf("id %q, timestamp %q", id, timestamp)
		}
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Cookie") != "s=1" || r.Header.Get("Webhook-Id") == "forged" || r.Host == "forged" {
			t.Errorf("%s %v", r.Method, r.Header)
		}
		var event struct {
			Type, Timestamp string
			Data            json.RawMessage
		}
		if err := json.Unmarshal(body, &event); err != nil || event.Type != "authenticate" || event.Timestamp == "" {
			t.Errorf("%s: %v", body, err)
		}
		if want := `{"client":"c1","address":"192.0.2.7","credentials":{"n":1.50},"again":true,"user":"ada"}`; string(event.Data) != want {
			t.Errorf("got %s, want %s", event.Data, want)
		}
		io.WriteString(w, `{"user":"ada","metadata":{"name":"Ada"},"rooms":["a"],"claims":{"team":"red"},"expires":"2030-01-02T03:04:05Z","later":"ignored"}`)
	})
	id, err := c.Authenticate(t.Context(), webhook.Request{
		Client: "c1", Address: "192.0.2.7", Credentials: json.RawMessage(`{"n":1.50}`), Again: true, User: "ada",
		Header: http.Header{"Cookie": {"s=1"}, "Webhook-Id": {"forged"}, "Host": {"forged"}, "Content-Length": {"5"}},
	})
	want := identity.Identity{
		User: "ada", Metadata: json.RawMessage(`{"name":"Ada"}`), Rooms: []string{"a"}, Claims: map[string]string{"team": "red"},
		Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	if d := cmp.Diff(want, id); err != nil || d != "" {
		t.Error(err, d)
	}
}

func TestAuthenticateFails(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	var followed atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		followed.Add(1)
		io.WriteString(w, `{"user":"eve"}`)
	}))
	t.Cleanup(elsewhere.Close)
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		want    webhook.Result
	}{
		{"anonymous", answer(200, `{"user":""}`), webhook.Accepted},
		{"401", answer(401, "who?"), webhook.Rejected},
		{"403", answer(403, ""), webhook.Rejected},
		{"404", answer(404, `{"user":"ada"}`), webhook.BadAnswer},
		{"204", answer(204, ""), webhook.BadAnswer},
		{"201", answer(201, `{"user":"ada"}`), webhook.BadAnswer},
		{"500", answer(500, ""), webhook.BadAnswer},
		{"no user", answer(200, `{}`), webhook.BadAnswer},
		{"user is null", answer(200, `{"user":null}`), webhook.BadAnswer},
		{"user is a number", answer(200, `{"user":7}`), webhook.BadAnswer},
		{"long user", answer(200, `{"user":"`+strings.Repeat("u", 257)+`"}`), webhook.BadAnswer},
		{"bad room", answer(200, `{"user":"ada","rooms":["ws:x"]}`), webhook.BadAnswer},
		{"many claims", answer(200, `{"user":"ada","claims":{"a":"`+strings.Repeat("x", 5000)+`"}}`), webhook.BadAnswer},
		{"bad date", answer(200, `{"user":"ada","expires":"soon"}`), webhook.BadAnswer},
		{"no JSON", answer(200, `<html>`), webhook.BadAnswer},
		{"two answers", answer(200, `{"user":"ada"}{"user":"bob"}`), webhook.BadAnswer},
		{"10 MB", answer(200, `{"user":"ada"}`+strings.Repeat(" ", 10<<20)), webhook.BadAnswer},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, webhook.BadAnswer},
		{"ends early", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"user":"ada"}`)
		}, webhook.Unreachable},
		{"breaks", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, webhook.Unreachable},
		{"hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, webhook.Timeout},
		{"hangs in the body", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"user":"ada"`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, webhook.Timeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := client(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // net/http notices only then that the client is gone
				tt.handler(w, r)
			})
			id, err := c.Authenticate(t.Context(), webhook.Request{Credentials: json.RawMessage(`{}`)})
			checkResult(t, tt.name, err, tt.want)
			if err != nil && !cmp.Equal(id, identity.Identity{}) {
				t.Errorf("an identity with an error: %+v", id)
			}
		})
	}
	if n := followed.Load(); n != 0 {
		t.Errorf("followed %d redirects", n)
	}
}

// hang is a backend that never answers.
type hang struct{ current, most atomic.Int32 }

func (h *hang) RoundTrip(r *http.Request) (*http.Response, error) {
	n := h.current.Add(1)
	defer h.current.Add(-1)
	for most := h.most.Load(); n > most && !h.most.CompareAndSwap(most, n); most = h.most.Load() {
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestBusy checks that a backend that hangs gets a bounded number of requests, and that all clients
// get their result in time.
func TestBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hang{}
		c := webhook.New(webhook.Config{URL: "https://backend.example", Secrets: [][]byte{secret}, Timeout: 5 * time.Second, Transport: h})
		defer c.Close()
		began := time.Now()
		var clients sync.WaitGroup
		var timeout, busy atomic.Int32
		for range 1000 {
			clients.Go(func() {
				_, err := c.Authenticate(context.Background(), webhook.Request{})
				switch webhook.ResultOf(err) {
				case webhook.Timeout:
					timeout.Add(1)
				case webhook.Busy:
					busy.Add(1)
				}
			})
		}
		clients.Wait()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
		if n := h.most.Load(); n != 256 || timeout.Load()+busy.Load() != 1000 || busy.Load() == 0 {
			t.Errorf("%d requests at a time, %d timed out, %d waited in vain", n, timeout.Load(), busy.Load())
		}
	})
}

func TestParseSecret(t *testing.T) {
	t.Parallel()
	encoded := base64.StdEncoding.EncodeToString(secret)
	for _, text := range []string{encoded, "whsec_" + encoded} {
		if got, err := webhook.ParseSecret(text); err != nil || !hmac.Equal(got, secret) {
			t.Errorf("%v %v", got, err)
		}
	}
	for _, text := range []string{"", "whsec_", "c2hvcnQ=", "not base64!" + encoded, base64.StdEncoding.EncodeToString(make([]byte, 65))} {
		if _, err := webhook.ParseSecret(text); err == nil || len(text) > 10 && strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCheckHeader(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"cookie": true, "Authorization": true, "x-forwarded-for": true, "": false, "a b": false, "a:b": false, "é": false,
		"Host": false, "content-length": false, "Webhook-Signature": false, "Sec-WebSocket-Key": false, "transfer-encoding": false,
	} {
		if err := webhook.CheckHeader(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
