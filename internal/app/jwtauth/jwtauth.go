// Package jwtauth verifies the JSON Web Tokens by which clients of the server binary authenticate,
// and converts their claims to an identity. The keys are secrets, public keys, or a key set that is
// loaded from a URL.
package jwtauth

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"

	"github.com/hearthws/hearth/internal/app/identity"
)

// MaxToken is the largest size of a token, in bytes.
const MaxToken = 8 << 10

// Config configures a Verifier. Exactly one of Secrets, PublicKeys and JWKS is required.
type Config struct {
	// Secrets are the keys for HMAC. During a rotation there are two. A secret has at least as many
	// bytes as the hash: 32 for HS256.
	Secrets [][]byte

	// PublicKeys are the keys for signatures: *rsa.PublicKey, *ecdsa.PublicKey or
	// ed25519.PublicKey. See ParsePublicKeys.
	PublicKeys []crypto.PublicKey

	// JWKS is the URL of a JSON Web Key Set. See CheckURL.
	JWKS string

	// Algorithms are the algorithms that are accepted, as in the header `alg`. Default HS256 for
	// Secrets, and otherwise RS256, ES256 and EdDSA.
	Algorithms []string

	// Audiences are the accepted values of the claim `aud`. One must be in the token. Default: not
	// checked.
	Audiences []string

	// Issuer is the required value of the claim `iss`. Default: not checked.
	Issuer string

	// Leeway is the difference between the clocks of the issuer and of this server that is
	// tolerated. Default 0.
	Leeway time.Duration

	// UserClaim is the name of the claim with the user id. Default "sub".
	UserClaim string

	// MetadataClaim is the name of the claim with the metadata, any JSON. Default "metadata".
	MetadataClaim string

	// RoomsClaim is the name of the claim with the rooms to join, a list of strings. Default
	// "rooms".
	RoomsClaim string

	// Keep are the names of further claims, for Identity.Claims.
	Keep []string

	// Transport makes the requests to JWKS. Default http.DefaultTransport.
	Transport http.RoundTripper

	// Logger receives problems with JWKS. Default slog.Default().
	Logger *slog.Logger
}

// A Verifier verifies tokens. Its methods are safe for concurrent use.
type Verifier struct {
	// Set by New, then read-only.
	cfg    Config
	parser *jwt.Parser
	keys   jwt.Keyfunc // nil with a key set
	set    *keySet     // nil without JWKS
	chosen keyfunc.Keyfunc
}

// New returns a Verifier. With JWKS, call Start, and Close at the end. The error says what is wrong
// with the Config.
func New(cfg Config) (*Verifier, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(cfg.Algorithms), jwt.WithExpirationRequired(), jwt.WithLeeway(cfg.Leeway), jwt.WithStrictDecoding(),
	}
	if len(cfg.Audiences) > 0 {
		options = append(options, jwt.WithAudience(cfg.Audiences...))
	}
	if cfg.Issuer != "" {
		options = append(options, jwt.WithIssuer(cfg.Issuer))
	}
	v := &Verifier{cfg: cfg, parser: jwt.NewParser(options...)}
	if cfg.JWKS == "" {
		keys := cfg.verificationKeys()
		v.keys = func(*jwt.Token) (any, error) { return keys, nil }
		return v, nil
	}
	v.set = newKeySet(cfg)
	chosen, err := keyfunc.New(keyfunc.Options{Storage: v.set})
	if err != nil {
		return nil, fmt.Errorf("make the key set: %w", err)
	}
	v.chosen = chosen
	return v, nil
}

// Start begins to load the key set, and returns at once. Until it is loaded, tokens are rejected
// with Unavailable.
func (v *Verifier) Start() {
	if v.set != nil {
		v.set.start()
	}
}

// Ready waits until the key set is loaded. It returns an error if ctx ends before. It returns nil at
// once if there is no key set to load.
func (v *Verifier) Ready(ctx context.Context) error {
	if v.set == nil {
		return nil
	}
	return v.set.ready(ctx)
}

// Close stops loading the key set, and waits for a request in progress, which it cancels.
func (v *Verifier) Close() {
	if v.set != nil {
		v.set.close()
	}
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *string
		value string
	}{{&c.UserClaim, "sub"}, {&c.MetadataClaim, "metadata"}, {&c.RoomsClaim, "rooms"}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{"RS256", "ES256", "EdDSA"}
		if len(c.Secrets) > 0 {
			c.Algorithms = []string{"HS256"}
		}
	}
	if c.Transport == nil {
		c.Transport = http.DefaultTransport
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Verify returns the identity of a token. It expires with the claim exp, plus Config.Leeway. Any
// error is an *Error.
//
// It may wait for the key set, for at most 5 s and until ctx is done, if the token names an unknown
// key.
func (v *Verifier) Verify(ctx context.Context, token string) (identity.Identity, error) {
	id, err := v.verify(ctx, token)
	if err != nil {
		return identity.Identity{}, &Error{Reason: reasonOf(err), err: err}
	}
	return id, nil
}

func (v *Verifier) verify(ctx context.Context, token string) (identity.Identity, error) {
	if len(token) > MaxToken {
		return identity.Identity{}, errTooLarge
	}
	keys := v.keys
	if v.set != nil {
		keys = v.chosen.KeyfuncCtx(ctx)
	}
	var c claims
	parsed, err := v.parser.ParseWithClaims(token, &c, keys)
	if parsed != nil && parsed.Method != nil && !slices.Contains(v.cfg.Algorithms, parsed.Method.Alg()) {
		return identity.Identity{}, errAlgorithm
	}
	if err != nil {
		return identity.Identity{}, err
	}
	return c.identity(v.cfg)
}

// verificationKeys returns the configured keys. A signature is valid if it is valid for one of
// them.
func (c Config) verificationKeys() jwt.VerificationKeySet {
	var set jwt.VerificationKeySet
	for _, s := range c.Secrets {
		set.Keys = append(set.Keys, slices.Clone(s))
	}
	for _, k := range c.PublicKeys {
		set.Keys = append(set.Keys, k)
	}
	return set
}

// check returns an error for the first setting that is invalid.
func (c Config) check() error {
	sources := 0
	for _, given := range []bool{len(c.Secrets) > 0, len(c.PublicKeys) > 0, c.JWKS != ""} {
		if given {
			sources++
		}
	}
	if sources != 1 {
		return errors.New("takes keys of one kind: a secret, public keys or the URL of a key set")
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(Algorithms(), a) {
			return fmt.Errorf("%q is not an algorithm that can be used; take some of %v", a, Algorithms())
		}
		if hmac := a[0] == 'H'; hmac != (len(c.Secrets) > 0) {
			return fmt.Errorf("the algorithm %s does not fit the keys: HS256, HS384 and HS512 need a secret, and the others public keys", a)
		}
	}
	if c.JWKS != "" {
		return CheckURL(c.JWKS)
	}
	return c.checkKeys()
}
