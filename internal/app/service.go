package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/internal/app/identity"
	"github.com/hearthws/hearth/internal/app/jwtauth"
	"github.com/hearthws/hearth/internal/app/webhook"
	"github.com/hearthws/hearth/protocol"
)

// A service has the callbacks of a server outside development mode. Clients authenticate as the
// option auth says, and may join the rooms of their credentials.
type service struct {
	// Set before the server starts, then read-only.
	log     *slog.Logger // for problems of the server itself
	limited *slog.Logger // for lines that clients can cause
	srv     *hearth.Server[json.RawMessage, *state]
	special []string      // Config.DefaultRooms: not subject to permissions
	queries chan struct{} // holds an element for each query in progress
	counts  counts

	access atomic.Pointer[access] // replaced by reload
}

// An access is what decides about clients. It is read-only.
type access struct {
	keys   jwtauth.Config
	tokens *jwtauth.Verifier // nil unless auth is jwt

	hook    webhook.Config
	backend *webhook.Client // nil unless auth is webhook
	headers []string        // of the opening handshake, for the webhook

	rules  RoomRules
	grants *jwtauth.Grants // nil if grants are not configured
}

// A state is the metadata of a client. It is safe for concurrent use.
type state struct {
	// The identity by the newest credentials, and by the ones before. New credentials can be
	// verified while other callbacks of the client run. previous is nil until then, and is set
	// first.
	identity, previous atomic.Pointer[identity.Identity]
}

// MarshalJSON encodes the identity, for the tickets of clients that resume.
func (st *state) MarshalJSON() ([]byte, error) { return json.Marshal(st.identity.Load()) }

// UnmarshalJSON decodes what MarshalJSON has encoded.
func (st *state) UnmarshalJSON(b []byte) error {
	var id identity.Identity
	if err := json.Unmarshal(b, &id); err != nil {
		return fmt.Errorf("decode the identity: %w", err)
	}
	st.identity.Store(&id)
	return nil
}

type connection = hearth.Client[*state]

// newService makes the service. log receives problems of the server itself, limited the lines that
// clients can cause.
func newService(c Config, log, limited *slog.Logger) (*service, error) {
	s := &service{log: log, limited: limited, special: c.DefaultRooms, queries: make(chan struct{}, maxQueries), counts: newCounts()}
	a, err := s.newAccess(c, nil)
	if err != nil {
		return nil, err
	}
	s.access.Store(a)
	return s, nil
}

// newAccess returns the access by a configuration. It shares with old, unless that is nil, what has
// not changed.
func (s *service) newAccess(c Config, old *access) (*access, error) {
	a := &access{rules: c.Rules}
	var err error
	if a.grants, err = newGrants(c); err != nil {
		return nil, err
	}
	switch c.Auth {
	case AuthJWT:
		err = a.useTokens(c, old, s.log)
	case AuthWebhook:
		err = a.useWebhook(c, old)
	}
	if err != nil {
		return nil, fmt.Errorf("configure auth %s: %w", c.Auth, err)
	}
	return a, nil
}

// useTokens sets what verifies tokens.
func (a *access) useTokens(c Config, old *access, log *slog.Logger) error {
	var err error
	if a.keys, err = jwtConfig(c.JWT); err != nil {
		return err
	}
	a.keys.Keep = c.Rules.claims()
	if old != nil && reflect.DeepEqual(old.keys, a.keys) {
		a.tokens = old.tokens // and the key set that it has loaded
		return nil
	}
	withLog := a.keys
	withLog.Logger = log
	a.tokens, err = jwtauth.New(withLog)
	return err
}

// useWebhook sets what asks the backend.
func (a *access) useWebhook(c Config, old *access) error {
	var err error
	if a.hook, err = webhookConfig(c.Webhook); err != nil {
		return err
	}
	a.headers = c.Webhook.Headers
	if old != nil && reflect.DeepEqual(old.hook, a.hook) {
		a.backend = old.backend
		return nil
	}
	a.backend = webhook.New(a.hook)
	return nil
}

// start begins the work that authentication needs, and returns at once. close ends it.
func (s *service) start() {
	if a := s.access.Load(); a.tokens != nil {
		a.tokens.Start()
	}
}

func (s *service) close() {
	a := s.access.Load()
	if a.tokens != nil {
		a.tokens.Close()
	}
	if a.backend != nil {
		a.backend.Close()
	}
}

// reload replaces the access. A new key set must have been loaded before. newKeys says that tokens
// are verified with other keys.
func (s *service) reload(ctx context.Context, c Config) (newKeys bool, err error) {
	old := s.access.Load()
	a, err := s.newAccess(c, old)
	if err != nil {
		return false, err
	}
	if a.tokens == old.tokens {
		s.access.Store(a)
		if old.backend != nil && a.backend != old.backend {
			old.backend.Close()
		}
		return false, nil
	}
	a.tokens.Start()
	if err := a.tokens.Ready(ctx); err != nil {
		a.tokens.Close()
		return false, err
	}
	s.access.Store(a)
	old.tokens.Close() // clients that wait for its key set may try again
	return true, nil
}

func (s *service) callbacks(hc *hearth.Config[json.RawMessage, *state]) {
	hc.Authenticate, hc.ValidateRooms = s.authenticate, s.validateRooms
	hc.Connected, hc.Joined, hc.Disconnected = s.connected, s.joined, s.disconnected
	if s.access.Load().backend != nil {
		hc.Upgrade.FromRequest = func(r *http.Request) (any, error) { return forwarded(r, s.access.Load().headers), nil }
	}
}

func (s *service) authenticate(ctx context.Context, req hearth.AuthRequest[json.RawMessage]) (hearth.Identity[*state], error) {
	id, err := s.identify(ctx, req)
	if err != nil {
		return hearth.Identity[*state]{}, err
	}
	result := hearth.Identity[*state]{UserID: id.User, ExpiresAt: id.Expires}
	if req.Again && id.User == req.UserID {
		if c, ok := s.srv.Local().Client(req.ClientID); ok {
			result.Metadata = c.Metadata()
			s.replace(ctx, c, &id)
			return result, nil
		}
	}
	result.Metadata = &state{}
	result.Metadata.identity.Store(&id)
	return result, nil
}

// identify returns the identity by the client's credentials.
func (s *service) identify(ctx context.Context, req hearth.AuthRequest[json.RawMessage]) (identity.Identity, error) {
	switch a := s.access.Load(); {
	case a.tokens != nil:
		return s.verify(ctx, a.tokens, req)
	case a.backend != nil:
		return s.ask(ctx, a.backend, req)
	}
	return identity.Identity{}, nil // anonymous
}

// ask asks the backend about a client.
func (s *service) ask(ctx context.Context, backend *webhook.Client, req hearth.AuthRequest[json.RawMessage]) (identity.Identity, error) {
	header, _ := req.FromRequest.(http.Header) // nil for new credentials
	id, err := backend.Authenticate(ctx, webhook.Request{
		Client: req.ClientID, Address: req.RemoteAddr.Addr().String(), Credentials: req.Raw, Again: req.Again, User: req.UserID, Header: header,
	})
	result := webhook.ResultOf(err)
	s.counts.webhook.WithLabelValues(result.String()).Inc()
	if result == webhook.Rejected {
		s.limited.Info("the webhook rejected a client", "client", req.ClientID, "address", req.RemoteAddr)
		return identity.Identity{}, fmt.Errorf("%w: %w", hearth.ErrRejected, err)
	}
	return id, err
}

// verify verifies the token of a client.
func (s *service) verify(ctx context.Context, tokens *jwtauth.Verifier, req hearth.AuthRequest[json.RawMessage]) (identity.Identity, error) {
	var data struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(req.Credentials, &data); err != nil || data.Token == "" {
		s.limited.Info("rejected a client without a token: it sends {\"token\": …} in the data of authenticate", "client", req.ClientID, "address", req.RemoteAddr)
		return identity.Identity{}, fmt.Errorf("%w: no token", hearth.ErrRejected)
	}
	id, err := tokens.Verify(ctx, data.Token)
	reason := jwtauth.ReasonOf(err)
	s.counts.tokens.WithLabelValues(reason.String()).Inc()
	if err != nil && reason != jwtauth.Unavailable {
		s.limited.Info("rejected a token", "reason", reason.String(), "error", err, "client", req.ClientID, "address", req.RemoteAddr)
		return identity.Identity{}, fmt.Errorf("%w: %w", hearth.ErrRejected, err)
	}
	return id, err
}

// replace replaces the identity of a client, and makes it leave and join rooms as the new one says.
func (s *service) replace(ctx context.Context, c *connection, id *identity.Identity) {
	st := c.Metadata()
	st.previous.Store(st.identity.Load())
	st.identity.Store(id)
	var lost []string
	for _, room := range c.Rooms() {
		if s.lost(c, room) {
			lost = append(lost, room)
		}
	}
	c.Leave(lost...)
	s.join(ctx, c)
}

// lost reports whether the client was allowed to join the room by its previous credentials, and is
// not by its new ones.
func (s *service) lost(c *connection, room string) bool {
	st := c.Metadata()
	now, before := st.identity.Load(), st.previous.Load()
	return before != nil && !slices.Contains(s.special, room) && s.mayJoin(before, room) && !s.mayJoin(now, room)
}

// mayJoin reports whether an identity may join a room.
func (s *service) mayJoin(id *identity.Identity, room string) bool {
	return slices.Contains(id.Rooms, room) || s.access.Load().rules.Join.Allow(id, room)
}

// join makes the client join the rooms of its credentials.
func (s *service) join(ctx context.Context, c *connection) {
	id := c.Metadata().identity.Load()
	if len(id.Rooms) == 0 {
		return
	}
	if err := c.Join(ctx, id.Rooms...); err != nil && !errors.Is(err, hearth.ErrNotConnected) {
		s.limited.Warn("a client could not join the rooms of its credentials", "user", c.UserID(), "client", c.ID(), "error", err)
	}
}

func (s *service) validateRooms(_ context.Context, c *connection, rooms []string) ([]string, error) {
	id := c.Metadata().identity.Load()
	return slices.DeleteFunc(slices.Clone(rooms), func(room string) bool { return !s.mayJoin(id, room) }), nil
}

func (s *service) connected(ctx context.Context, c *connection) {
	s.limited.Debug("client connected", "user", c.UserID(), "client", c.ID(), "address", c.RemoteAddr())
	if !c.Resumed() { // otherwise it is in the rooms that it was in
		s.join(ctx, c)
	}
}

// joined makes the client leave a room that it has joined by its previous credentials, while the
// new ones were being verified.
func (s *service) joined(_ context.Context, c *connection, room string) {
	if c.State() != protocol.StateDisconnected && s.lost(c, room) {
		c.Leave(room)
	}
}

func (s *service) disconnected(_ context.Context, c *connection, code int, reason string) {
	s.limited.Debug("client disconnected", "user", c.UserID(), "client", c.ID(), "code", code, "reason", reason)
}
