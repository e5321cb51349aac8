package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// stable is how long a connection must last to count as a success. The time between attempts grows
// otherwise, so that a server that closes its clients at once is not flooded.
const stable = 5 * time.Second

// run connects again and again, until Close or until the client gives up.
func (c *Client) run() {
	attempts := 0 // since the last stable connection
	for {
		c.calls.wait()
		c.set(State{Phase: Connecting})
		n, resumed, err := c.connect(c.ctx)
		if err == nil {
			began := time.Now()
			c.connected(n, resumed)
			err = n.serve()
			if time.Since(began) >= stable {
				attempts = 0
			}
		}
		if c.ctx.Err() != nil {
			return
		}
		if terminal(err) {
			c.log.Warn("the client has given up", "err", err)
			c.shut(err)
			return
		}
		delay := c.cfg.delay(err, attempts)
		attempts++
		c.log.Info("not connected, connecting again", "err", err, "after", delay)
		c.disconnected(State{Phase: Waiting, Err: err, Retry: delay})
		select {
		case <-time.After(delay):
		case <-c.ctx.Done():
			return
		}
	}
}

// delay returns how long to wait after err before the next attempt, of which there were some since
// the last stable connection.
func (c *Config) delay(err error, attempts int) time.Duration {
	if e, ok := errors.AsType[*CloseError](err); ok && attempts == 0 {
		switch e.Code {
		case protocol.CloseServiceRestart, protocol.CloseExpired:
			return 0
		}
	}
	limit := c.RetryMin
	for range attempts {
		if limit *= 2; limit >= c.RetryMax {
			limit = c.RetryMax
			break
		}
	}
	return rand.N(limit) + 1 // at least a nanosecond
}

// terminal reports whether the client must not connect again after err.
func terminal(err error) bool {
	if errors.Is(err, ErrStop) || errors.Is(err, ErrNotEncrypted) || errors.Is(err, errCredentials) {
		return true
	}
	if e, ok := errors.AsType[*HandshakeError](err); ok {
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	}
	e, ok := errors.AsType[*CloseError](err)
	if !ok {
		return false
	}
	switch e.Code {
	case protocol.CloseAuthTimeout, protocol.CloseHeartbeatTimeout, protocol.CloseExpired, protocol.CloseResumed:
		return false
	case protocol.CloseAuthFailed:
		// The application may have failed instead, which is not about the credentials.
		own, ok := errors.AsType[*Error](err)
		return !ok || own.Message != protocol.ErrAuthError.Message
	case closeNormal:
		return true
	}
	return e.Code >= 3000 // 4004, and the codes of applications
}

const closeNormal = 1000

// HandshakeError is an answer of the server to the opening handshake that does not accept it.
type HandshakeError struct {
	Status int // of HTTP, such as 503
}

// Error returns the status and its text.
func (e *HandshakeError) Error() string {
	return fmt.Sprintf("the server answers %d %s", e.Status, http.StatusText(e.Status))
}

// set changes the state, unless the client is closed.
func (c *Client) set(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Phase != Closed {
		c.setLocked(s)
	}
}

// disconnected ends what belongs to the connection.
func (c *Client) disconnected(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
	c.failLocked(ErrDisconnected)
	if c.state.Phase == Closed {
		return
	}
	if e, ok := errors.AsType[*CloseError](s.Err); ok && (e.Code == protocol.CloseResumed || e.Code == protocol.CloseExpired) {
		c.ticket = ""
	}
	c.setLocked(s)
	c.disconnectedLocked()
}

// connect connects and authenticates. resumed is nil if the session is new.
func (c *Client) connect(ctx context.Context) (n *conn, resumed *joinAnswer, err error) {
	a := authentication{c: c}
	if err := a.prepare(ctx); err != nil {
		return nil, nil, err
	}
	limited, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	ws, resp, err := websocket.Dial(limited, c.cfg.URL, &websocket.DialOptions{HTTPClient: c.cfg.HTTPClient, HTTPHeader: c.cfg.Header})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			err = &HandshakeError{Status: resp.StatusCode}
			// The next attempt must not use the same connection: behind one address there may be
			// another server, which accepts clients.
			c.cfg.HTTPClient.CloseIdleConnections()
		}
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	ws.SetReadLimit(c.cfg.MaxMessage)
	n = &conn{c: c, ws: ws}
	if resumed, err = a.run(limited, n); err != nil {
		_ = ws.CloseNow() // an error means that it has ended
		if limited.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("no answer within %v: %w", c.cfg.ConnectTimeout, err)
		}
		return nil, nil, fmt.Errorf("authenticate: %w", err)
	}
	n.ctx, n.cancel = context.WithCancelCause(ctx)
	n.reading, n.abort = context.WithCancel(context.Background())
	return n, resumed, nil
}

// authentication is one authentication of a new connection.
type authentication struct {
	c           *Client
	ticket      string          // to resume the session; empty: authenticate with credentials
	credentials json.RawMessage // nil: none, or not known yet
	known       bool            // credentials are set
	key         *seal.PrivateKey
	lastError   *Error // that the server has sent
}

// maxResume is the largest message with a ticket: the default limit of servers for messages before
// authentication. With more positions the client authenticates.
const maxResume = 16 << 10

// prepare takes the ticket, or gets the credentials.
func (a *authentication) prepare(ctx context.Context) (err error) {
	a.c.mu.Lock()
	a.ticket = a.c.ticket
	a.c.mu.Unlock()
	if a.c.cfg.Encryption {
		if a.key, err = seal.GenerateKey(); err != nil {
			return fmt.Errorf("make a key: %w", err)
		}
	}
	if a.ticket != "" {
		return nil
	}
	return a.getCredentials(ctx)
}

func (a *authentication) getCredentials(ctx context.Context) (err error) {
	a.credentials, err = a.c.credentials(ctx)
	a.known = err == nil
	return err
}

// credentials returns the credentials as JSON; nil for none.
func (c *Client) credentials(ctx context.Context) (json.RawMessage, error) {
	value := c.cfg.Credentials
	if f := c.cfg.CredentialsFunc; f != nil {
		select {
		case c.asking <- struct{}{}:
			defer func() { <-c.asking }()
		case <-ctx.Done():
			return nil, fmt.Errorf("get credentials: %w", ctx.Err())
		}
		var err error
		if value, err = f(ctx); err != nil {
			return nil, fmt.Errorf("get credentials: %w", err)
		}
	}
	if value == nil {
		return nil, nil
	}
	raw, err := protocol.EncodeData(value)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCredentials, err)
	}
	return raw, nil
}

var errCredentials = errors.New("the credentials cannot be sent")

// request is the extension that the client requests.
type extensionRequest struct {
	Version   int                 `json:"version"`
	Features  []string            `json:"features"`
	Ticket    string              `json:"ticket,omitempty"`
	Positions map[string]position `json:"positions,omitempty"`
}

// message returns the `authenticate`.
func (a *authentication) message() ([]byte, error) {
	m := struct {
		Event  string           `json:"event"`
		Data   json.RawMessage  `json:"data,omitempty"`
		Hearth extensionRequest `json:"hearth"`
	}{protocol.EventAuthenticate, a.credentials, extensionRequest{
		Version: protocol.ExtensionVersion, Features: []string{protocol.FeatureRecovery, protocol.FeatureResume, protocol.FeatureAsk},
	}}
	if a.ticket != "" {
		m.Hearth.Ticket, m.Hearth.Positions, m.Data = a.ticket, a.c.positions(), nil
	}
	if a.key != nil {
		members := map[string]json.RawMessage{}
		if m.Data != nil {
			if err := json.Unmarshal(m.Data, &members); err != nil || members == nil {
				return nil, fmt.Errorf("%w: with encryption they must be a JSON object", errCredentials)
			}
		}
		members["publicKey"] = json.RawMessage(`"` + a.key.PublicKey().String() + `"`)
		raw, err := json.Marshal(members)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errCredentials, err)
		}
		m.Data = raw
	}
	return json.Marshal(m)
}

// forgetTicket makes the client authenticate on the next connection.
func (c *Client) forgetTicket() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ticket = ""
}

// positions returns the positions of the rooms.
func (c *Client) positions() map[string]position {
	c.mu.Lock()
	defer c.mu.Unlock()
	positions := map[string]position{}
	for name, r := range c.rooms {
		if (r.status.Position != position{}) {
			positions[name] = r.status.Position
		}
	}
	return positions
}

// run authenticates on n, and records the features that the server grants.
func (a *authentication) run(ctx context.Context, n *conn) (resumed *joinAnswer, err error) {
	if err := a.send(ctx, n); err != nil {
		return nil, err
	}
	for {
		text, err := n.next(ctx)
		if err != nil {
			if websocket.CloseStatus(err) >= 0 {
				a.c.forgetTicket() // the server may have closed because of it
			}
			err = closeError(err)
			if a.lastError != nil {
				err = fmt.Errorf("%w: %w", err, a.lastError)
			}
			return nil, err
		}
		var m serverMessage
		if err := json.Unmarshal(text, &m); err != nil {
			return nil, fmt.Errorf("read a message: %w", err)
		}
		switch m.Event {
		case protocol.EventConnected:
			a.c.forgetTicket() // it works once
			return a.granted(n, &m)
		case protocol.EventError:
			if a.lastError = m.error(); a.lastError.Code == protocol.CodeTicketRejected && a.ticket != "" {
				a.ticket, a.lastError = "", nil
				a.c.forgetTicket()
				if err := a.send(ctx, n); err != nil {
					return nil, err
				}
			}
		}
	}
}

// send sends the `authenticate`.
func (a *authentication) send(ctx context.Context, n *conn) error {
	text, err := a.message()
	if err == nil && a.ticket != "" && len(text) > maxResume {
		a.ticket = ""
		text = nil
	}
	if a.ticket == "" && !a.known {
		if err := a.getCredentials(ctx); err != nil {
			return err
		}
		text = nil
	}
	if err == nil && text == nil {
		text, err = a.message()
	}
	if err != nil {
		return err
	}
	if err := n.ws.Write(ctx, websocket.MessageText, text); err != nil {
		return closeError(err)
	}
	return nil
}

// granted sets up n from `connected`.
func (a *authentication) granted(n *conn, m *serverMessage) (resumed *joinAnswer, err error) {
	var data struct{ ID, UserID, ServerPublicKey, Salt string }
	if err := json.Unmarshal(orNull(m.Data), &data); err != nil {
		return nil, fmt.Errorf("read connected: %w", err)
	}
	n.state = State{Phase: Connected, ID: data.ID, UserID: data.UserID, Encrypted: a.key != nil}
	if a.key != nil {
		if n.cipher, err = derive(a.key, data.ServerPublicKey, data.Salt); err != nil {
			return nil, err
		}
	}
	n.interval, n.timeout = defaultInterval, defaultTimeout
	if m.Hearth == nil {
		return nil, nil
	}
	var g struct {
		Version   int
		Features  []string
		Heartbeat struct{ Interval, Timeout int64 }
		Limits    struct{ Message int }
		Expires   time.Time
		Resumed   *joinAnswer
	}
	if err := json.Unmarshal(m.Hearth, &g); err != nil {
		return nil, fmt.Errorf("read connected: %w", err)
	}
	if g.Version < 1 {
		return nil, nil
	}
	n.state.Extension, n.state.Expires, n.state.Resumed = true, g.Expires, g.Resumed != nil
	n.limit = g.Limits.Message
	for _, feature := range g.Features {
		n.state.Recovery = n.state.Recovery || feature == protocol.FeatureRecovery
	}
	n.interval = milliseconds(g.Heartbeat.Interval, defaultInterval)
	n.timeout = milliseconds(g.Heartbeat.Timeout, defaultTimeout)
	return g.Resumed, nil
}

// The times for heartbeats of servers that do not grant any.
const (
	defaultInterval = 25 * time.Second
	defaultTimeout  = 10 * time.Second
)

// milliseconds returns n ms, or otherwise if that is not reasonable.
func milliseconds(n int64, otherwise time.Duration) time.Duration {
	if n < 1 || n > int64(time.Hour/time.Millisecond) {
		return otherwise
	}
	return time.Duration(n) * time.Millisecond
}

// derive returns the cipher of the connection.
func derive(key *seal.PrivateKey, serverKey, salt string) (*seal.Cipher, error) {
	if serverKey == "" {
		return nil, ErrNotEncrypted
	}
	public, err := seal.ParsePublicKey(serverKey)
	if err != nil {
		return nil, fmt.Errorf("the key of the server: %w", err)
	}
	s, err := seal.ParseSalt(salt)
	if err != nil {
		return nil, fmt.Errorf("the salt of the server: %w", err)
	}
	cipher, err := key.Derive(public, s)
	if err != nil {
		return nil, fmt.Errorf("agree on a key: %w", err)
	}
	return cipher, nil
}
