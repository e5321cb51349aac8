package jwtauth

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A Template describes a token to create.
type Template struct {
	User     string
	Rooms    []string                   // nil for none
	Metadata json.RawMessage            // nil for none
	Claims   map[string]json.RawMessage // further claims; they replace those above
	Lifetime time.Duration              // until the token expires, at least a second

	// PrivateKey is the key of a signature; nil to sign with the first of Config.Secrets. See
	// ParsePrivateKey.
	PrivateKey crypto.Signer

	KeyID string // the header kid; empty for none
}

// Create returns a token that a Verifier with the Config accepts, if it has the key. The token has
// the first audience and the issuer of the Config.
func (c Config) Create(t Template) (string, error) {
	c = c.withDefaults()
	if t.Lifetime < time.Second {
		return "", fmt.Errorf("the lifetime is %v; it is at least 1s", t.Lifetime)
	}
	now := time.Now()
	all := jwt.MapClaims{c.UserClaim: t.User, "iat": jwt.NewNumericDate(now), "exp": jwt.NewNumericDate(now.Add(t.Lifetime))}
	if len(t.Rooms) > 0 {
		all[c.RoomsClaim] = t.Rooms
	}
	if t.Metadata != nil {
		all[c.MetadataClaim] = t.Metadata
	}
	if len(c.Audiences) > 0 {
		all["aud"] = c.Audiences[0]
	}
	if c.Issuer != "" {
		all["iss"] = c.Issuer
	}
	for name, value := range t.Claims {
		all[name] = value
	}
	method, key, err := c.signing(t)
	if err != nil {
		return "", err
	}
	token := jwt.NewWithClaims(method, all)
	if t.KeyID != "" {
		token.Header["kid"] = t.KeyID
	}
	text, err := token.SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign the token: %w", err)
	}
	if len(text) > MaxToken {
		return "", errTooLarge
	}
	return text, nil
}

// signing returns the algorithm and the key for a token.
func (c Config) signing(t Template) (jwt.SigningMethod, any, error) {
	if t.PrivateKey == nil {
		if len(c.Secrets) == 0 {
			return nil, nil, errors.New("there is no key to sign with: a secret, or the private key of the public key")
		}
		if err := c.checkKeys(); err != nil {
			return nil, nil, err
		}
		return jwt.GetSigningMethod(c.Algorithms[0]), c.Secrets[0], nil
	}
	fits, err := algorithmsOf(t.PrivateKey.Public())
	if err != nil {
		return nil, nil, err
	}
	name := fits[0]
	if i := slices.IndexFunc(c.Algorithms, func(a string) bool { return slices.Contains(fits, a) }); i >= 0 {
		name = c.Algorithms[i]
	}
	return jwt.GetSigningMethod(name), t.PrivateKey, nil
}

// ParsePrivateKey returns the private key of a PEM text, as openssl genpkey writes it.
func ParsePrivateKey(text []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one private key in PEM, as in -----BEGIN PRIVATE KEY-----")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("it has a block of type %.40q, which is not a private key", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("parse the private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, nil
}

// Decode returns the header and the claims of a token as JSON, without verifying anything. It
// writes dates in words beside the claims exp, nbf and iat.
func Decode(token string) (header, payload json.RawMessage, dates string, err error) {
	if len(token) > MaxToken {
		return nil, nil, "", errTooLarge
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, nil, "", fmt.Errorf("a token has three parts with dots between them, and this text has %d", len(parts))
	}
	parser := jwt.NewParser()
	for i, to := range []*json.RawMessage{&header, &payload} {
		text, err := parser.DecodeSegment(parts[i])
		if err != nil {
			return nil, nil, "", fmt.Errorf("decode part %d: %w", i+1, err)
		}
		if !json.Valid(text) {
			return nil, nil, "", fmt.Errorf("decode part %d: it is not JSON", i+1)
		}
		*to = text
	}
	var c claims
	if json.Unmarshal(payload, &c) == nil {
		dates = c.dates()
	}
	return header, payload, dates, nil
}

// dates returns the dates of a token, one per line.
func (c *claims) dates() string {
	meaning := map[string]string{"exp": "expires", "iat": "issued", "nbf": "not valid before"}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(meaning)) {
		if d, err := c.date(name); err == nil && d != nil {
			fmt.Fprintf(&b, "%s: %s %s\n", name, meaning[name], d.UTC().Format(time.RFC3339))
		}
	}
	return b.String()
}
