// Package webhook asks the backend of an application about clients of the server binary, by HTTP.
// Requests are signed as the Standard Webhooks specification says, so that the backend knows that
// they are from the server.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hearthws/hearth/internal/app/fetch"
	"github.com/hearthws/hearth/internal/app/identity"
)

const (
	maxAnswer   = 64 << 10 // bytes of an answer
	maxRequests = 256      // requests at a time

	secretPrefix = "whsec_"
	minSecret    = 24 // bytes
	maxSecret    = 64
)

// Config configures a Client.
type Config struct {
	// URL is where requests go. See fetch.CheckURL. Required.
	URL string

	// Secrets sign the requests; see ParseSecret. With two, a request has two signatures, so that
	// the backend can accept either of them during a rotation. Required.
	Secrets [][]byte

	// Timeout is for one request and its answer, and for the time that it waits for its turn.
	// Required.
	Timeout time.Duration

	// Transport makes the requests. Default: one of its own, with connections for all requests that
	// can run at a time.
	Transport http.RoundTripper
}

// A Client makes requests. Its methods are safe for concurrent use.
type Client struct {
	cfg   Config // read-only
	http  *http.Client
	slots chan struct{} // holds an element for each request in progress
}

// New returns a Client. Close it at the end.
func New(cfg Config) *Client {
	if cfg.Transport == nil {
		t := &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: maxRequests, IdleConnTimeout: time.Minute,
			TLSHandshakeTimeout: cfg.Timeout, MaxResponseHeaderBytes: maxAnswer,
		}
		cfg.Transport = t
	}
	return &Client{cfg: cfg, http: fetch.NewClient(cfg.Transport, cfg.Timeout), slots: make(chan struct{}, maxRequests)}
}

// Close closes the idle connections. Requests in progress end with their contexts.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ParseSecret decodes a secret: 24 to 64 bytes in base64, with the prefix whsec_ or without. The
// error does not have a part of the secret.
func ParseSecret(s string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, secretPrefix))
	if err != nil || len(key) < minSecret || len(key) > maxSecret {
		return nil, fmt.Errorf("takes %d to %d random bytes in base64, as printed by: openssl rand -base64 32", minSecret, maxSecret)
	}
	return key, nil
}

// A Request describes a client that wants to authenticate.
type Request struct {
	Client      string          `json:"client"`         // its id
	Address     string          `json:"address"`        // its IP address
	Credentials json.RawMessage `json:"credentials"`    // the data of authenticate
	Again       bool            `json:"again"`          // it is authenticated, and sends new credentials
	User        string          `json:"user,omitempty"` // its user id, if Again

	// Header has headers of the client's opening handshake. They become headers of the request.
	Header http.Header `json:"-"`
}

// An answer is the body of a response with the status 200.
type answer struct {
	User     *string           `json:"user"`
	Metadata json.RawMessage   `json:"metadata"`
	Rooms    []string          `json:"rooms"`
	Claims   map[string]string `json:"claims"`
	Expires  *time.Time        `json:"expires"`
}

// Authenticate asks the backend about a client. Any error is an *Error. It blocks for at most
// Config.Timeout, and until ctx is done.
func (c *Client) Authenticate(ctx context.Context, r Request) (identity.Identity, error) {
	id, err := c.authenticate(ctx, r)
	if err != nil {
		return identity.Identity{}, &Error{Result: resultOf(err), err: err}
	}
	return id, nil
}

func (c *Client) authenticate(ctx context.Context, r Request) (identity.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return identity.Identity{}, fmt.Errorf("%w: %d requests are in progress", errBusy, maxRequests)
	}
	body, err := c.post(ctx, "authenticate", r, r.Header)
	if err != nil {
		return identity.Identity{}, err
	}
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return identity.Identity{}, fmt.Errorf("%w: decode it: %w", errAnswer, err)
	}
	if a.User == nil {
		return identity.Identity{}, fmt.Errorf("%w: it has no member \"user\", which is empty for a client without a user id", errAnswer)
	}
	id := identity.Identity{User: *a.User, Rooms: a.Rooms, Claims: a.Claims}
	if string(a.Metadata) != "null" {
		id.Metadata = a.Metadata
	}
	if a.Expires != nil {
		id.Expires = *a.Expires
	}
	if err := id.Check(); err != nil {
		return identity.Identity{}, fmt.Errorf("%w: %w", errAnswer, err)
	}
	return id, nil
}

// post sends an event and returns the body of the answer, whose status was 200.
func (c *Client) post(ctx context.Context, kind string, data any, header http.Header) ([]byte, error) {
	now := time.Now()
	body, err := json.Marshal(map[string]any{"type": kind, "timestamp": now.UTC().Format(time.RFC3339Nano), "data": data})
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	for name, values := range header {
		if CheckHeader(name) == nil {
			req.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "hearth")
	sign(req.Header, c.cfg.Secrets, newID(), now, body)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", c.cfg.URL, errors.Join(errUnreachable, err))
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("%w with the status %d", errRejected, resp.StatusCode)
	default:
		return nil, fmt.Errorf("%w: the status is %d; it can be 200, 401 or 403", errAnswer, resp.StatusCode)
	}
	b, err := fetch.ReadBody(resp, maxAnswer)
	if errors.Is(err, fetch.ErrTooLarge) {
		return nil, fmt.Errorf("%w: %w", errAnswer, err)
	}
	return b, err
}

// newID returns the id of a request. Receivers can use it to recognise a repetition.
func newID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return "msg_" + hex.EncodeToString(b)
}

// sign adds the headers of the Standard Webhooks specification.
func sign(h http.Header, secrets [][]byte, id string, now time.Time, body []byte) {
	timestamp := strconv.FormatInt(now.Unix(), 10)
	var signatures []string
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", timestamp)
	h.Set("webhook-signature", strings.Join(signatures, " "))
}

// CheckHeader returns an error for a header that cannot be forwarded: one that belongs to the
// connection, or that the Client sets itself.
func CheckHeader(name string) error {
	lower := strings.ToLower(name)
	if lower == "" || strings.ContainsFunc(lower, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}) {
		return fmt.Errorf("%.64q is not the name of a header, as in cookie", name)
	}
	switch lower {
	case "host", "connection", "upgrade", "te", "trailer", "transfer-encoding", "keep-alive", "accept", "user-agent", "expect":
		return fmt.Errorf("the header %s cannot be forwarded", lower)
	}
	for _, prefix := range []string{"content-", "accept-encoding", "proxy-", "sec-websocket-", "webhook-"} {
		if strings.HasPrefix(lower, prefix) {
			return fmt.Errorf("the header %s cannot be forwarded", lower)
		}
	}
	return nil
}
