package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

// Config configures a Client. Only URL is required; the zero value of every other field selects its
// default.
type Config struct {
	// URL is the address of the server, such as wss://example.com/ws. The schemes are ws, wss, http
	// and https. Required.
	URL string

	// Credentials are the data of `authenticate`, encoded as JSON for each connection. With
	// Encryption they must encode to an object. Default: none.
	Credentials any

	// CredentialsFunc returns the credentials instead. The client calls it before it connects, and
	// when the server announces that they expire. It may block until ctx is done. If it fails, the
	// client tries again later; if the error wraps ErrStop, the client gives up. At most one call
	// is in progress, on a goroutine of the client. Default: none.
	CredentialsFunc func(ctx context.Context) (any, error)

	// Encryption encrypts the messages in both directions, inside TLS (docs/security.md). The
	// client gives up with ErrNotEncrypted if the server does not encrypt. Default off.
	Encryption bool

	// OnState is called when the state changes. See the package comment for callbacks. Default:
	// none.
	OnState func(State)

	// QueueMessages is how many messages may wait to be sent, while the client is not connected or
	// the connection is slow. Default 256.
	QueueMessages int

	// QueueFull is what Send and Request do if so many messages wait. Default Wait.
	QueueFull Overflow

	// Buffer is how many bytes of received messages may wait for callbacks. Default 4 MiB.
	Buffer int

	// MaxMessage is the size of the largest message that the client accepts, in bytes. A larger one
	// ends the connection. Default 16 MiB.
	MaxMessage int64

	// RetryMin and RetryMax bound the time between attempts to connect. It is random, from 0 to a
	// limit that begins with RetryMin, doubles with each attempt and ends with RetryMax. Default
	// 500 ms.
	RetryMin time.Duration

	// RetryMax is the largest limit; see RetryMin. Default 30 s.
	RetryMax time.Duration

	// ConnectTimeout is how long an attempt to connect and to authenticate may take, without
	// CredentialsFunc. Default 20 s.
	ConnectTimeout time.Duration

	// HTTPClient makes the opening handshake: for proxies, TLS certificates, tests. It must not have
	// a Timeout shorter than ConnectTimeout. When a server rejects the handshake, the client closes
	// the idle connections of HTTPClient, to reach another server behind the same address. Default:
	// a client like http.DefaultClient, with connections of its own.
	HTTPClient *http.Client

	// Header is sent with the opening handshake. Default: none.
	Header http.Header

	// Logger receives lost connections and messages that cannot be handled. Default: no log.
	Logger *slog.Logger
}

// Overflow is what happens to a message if the queue is full.
type Overflow int

const (
	// Wait makes the caller wait until there is space, its context is done, or the client is
	// closed.
	Wait Overflow = iota

	// Reject returns ErrQueueFull.
	Reject

	// DropOldest drops the oldest message that waits, and counts it (Client.Dropped). If that is a
	// request, it ends with ErrQueueFull.
	DropOldest
)

const (
	defaultQueueMessages  = 256
	defaultBuffer         = 4 << 20
	defaultMaxMessage     = 16 << 20
	defaultRetryMin       = 500 * time.Millisecond
	defaultRetryMax       = 30 * time.Second
	defaultConnectTimeout = 20 * time.Second
)

// complete sets the defaults and checks the rest.
func (c *Config) complete() error {
	def(&c.QueueMessages, defaultQueueMessages)
	def(&c.Buffer, defaultBuffer)
	def(&c.MaxMessage, defaultMaxMessage)
	def(&c.RetryMin, defaultRetryMin)
	def(&c.RetryMax, max(defaultRetryMax, c.RetryMin))
	def(&c.ConnectTimeout, defaultConnectTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Header = c.Header.Clone()
	if c.HTTPClient == nil {
		c.HTTPClient = newHTTPClient()
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return fmt.Errorf("Config.URL: %w", err)
	}
	switch {
	case u.Scheme != "ws" && u.Scheme != "wss" && u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("Config.URL is %q; it must be the address of a server, such as wss://example.com/ws", u.Redacted())
	case c.Credentials != nil && c.CredentialsFunc != nil:
		return errors.New("Config.Credentials and Config.CredentialsFunc are both set; set one of them")
	case c.QueueMessages < 1:
		return fmt.Errorf("Config.QueueMessages is %d; it must be positive", c.QueueMessages)
	case c.QueueFull < Wait || c.QueueFull > DropOldest:
		return fmt.Errorf("Config.QueueFull is %d; it can be Wait, Reject or DropOldest", c.QueueFull)
	case c.Buffer < 1:
		return fmt.Errorf("Config.Buffer is %d; it must be positive", c.Buffer)
	case c.MaxMessage < 1:
		return fmt.Errorf("Config.MaxMessage is %d; it must be positive", c.MaxMessage)
	case c.RetryMin < time.Millisecond || c.RetryMax < c.RetryMin:
		return fmt.Errorf("Config.RetryMin is %v and RetryMax is %v; they must be at least 1ms, and in order", c.RetryMin, c.RetryMax)
	case c.ConnectTimeout < time.Millisecond:
		return fmt.Errorf("Config.ConnectTimeout is %v; it must be at least 1ms", c.ConnectTimeout)
	}
	return nil
}

// newHTTPClient returns an HTTP client with the settings of http.DefaultClient that uses each
// connection once.
func newHTTPClient() *http.Client {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok { // the program has replaced it
		return &http.Client{}
	}
	t = t.Clone()
	t.DisableKeepAlives = true
	return &http.Client{Transport: t}
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
