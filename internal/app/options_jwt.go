package app

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hearthws/hearth/internal/app/jwtauth"
)

// groupJWT is the heading of the options for tokens.
const groupJWT = "Tokens (auth jwt)"

// JWT is the configuration of tokens. Each field has an option.
type JWT struct {
	Secret         string `json:"-"`
	PreviousSecret string `json:"-"`
	PublicKey      string // a file
	JWKS           string // a URL
	Algorithms     []string
	Audiences      []string
	Issuer         string
	Leeway         time.Duration
	UserClaim      string
	MetadataClaim  string
	RoomsClaim     string
}

func jwtOptions() []Option {
	claim := func(name, def, usage string, field func(*Config) *string) Option {
		return text(name, groupJWT, "claim", def, usage, field, parseClaim)
	}
	leeway := duration("jwt-leeway", "10s", "tolerated difference between the clocks of the issuer and of this server",
		func(c *Config) *time.Duration { return &c.JWT.Leeway }, true)
	leeway.Group = groupJWT
	return []Option{
		secret("jwt-secret", groupJWT, "secret for tokens with HMAC, at least 32 bytes; or use a public key, or a key set",
			func(c *Config) *string { return &c.JWT.Secret }),
		secret("jwt-previous-secret", groupJWT, "another secret that is accepted, while jwt-secret is replaced",
			func(c *Config) *string { return &c.JWT.PreviousSecret }),
		text("jwt-public-key", groupJWT, "file", "", "public keys for signed tokens (PEM), two or more while a key is replaced",
			func(c *Config) *string { return &c.JWT.PublicKey }, anyText),
		text("jwt-jwks-url", groupJWT, "url", "", "URL of the key set (JWKS) of the issuer of tokens; https, except on this machine",
			func(c *Config) *string { return &c.JWT.JWKS }, parseJWKS),
		list("jwt-algorithms", groupJWT, "name", "", "accepted algorithms (default: HS256 with a secret; RS256, ES256 and EdDSA with public keys)",
			func(c *Config, v []string) { c.JWT.Algorithms = v }, parseAlgorithms),
		list("jwt-audience", groupJWT, "text", "", "accepted values of the claim aud (default: not checked)",
			func(c *Config, v []string) { c.JWT.Audiences = v }, func(v []string) ([]string, error) { return v, nil }),
		text("jwt-issuer", groupJWT, "text", "", "required value of the claim iss (default: not checked)",
			func(c *Config) *string { return &c.JWT.Issuer }, anyText),
		leeway,
		claim("jwt-user-claim", "sub", "claim with the user id, a string or a whole number", func(c *Config) *string { return &c.JWT.UserClaim }),
		claim("jwt-metadata-claim", "metadata", "claim with data about the user, any JSON", func(c *Config) *string { return &c.JWT.MetadataClaim }),
		claim("jwt-rooms-claim", "rooms", "claim with the rooms that the client joins, a list of names", func(c *Config) *string { return &c.JWT.RoomsClaim }),
	}
}

// secret returns an option whose value is secret as a whole. Options adds an option for a file.
func secret(name, group, usage string, field func(*Config) *string) Option {
	o := text(name, group, "secret", "", usage, field, func(s string) (string, error) {
		if s == redactedMark {
			return "", fmt.Errorf("it is %s, which stands for a secret in output: give the secret itself", redactedMark)
		}
		return s, nil
	})
	o.Secret = true
	return o
}

func parseClaim(s string) (string, error) {
	if s == "" {
		return "", errors.New("takes the name of a claim, as in sub")
	}
	return s, nil
}

func parseJWKS(s string) (string, error) {
	if s == "" {
		return s, nil
	}
	return s, jwtauth.CheckURL(s)
}

func parseAlgorithms(values []string) ([]string, error) {
	for _, a := range values {
		if !slices.Contains(jwtauth.Algorithms(), a) {
			return nil, fmt.Errorf("%q: takes some of %s", a, strings.Join(jwtauth.Algorithms(), ", "))
		}
	}
	return values, nil
}

// jwtConfig translates the options to the configuration of package jwtauth. It reads the file with
// public keys.
func jwtConfig(c JWT) (jwtauth.Config, error) {
	jc := jwtauth.Config{
		JWKS: c.JWKS, Algorithms: c.Algorithms, Audiences: c.Audiences, Issuer: c.Issuer, Leeway: c.Leeway,
		UserClaim: c.UserClaim, MetadataClaim: c.MetadataClaim, RoomsClaim: c.RoomsClaim,
	}
	for _, s := range []string{c.Secret, c.PreviousSecret} {
		if s != "" {
			jc.Secrets = append(jc.Secrets, []byte(s))
		}
	}
	if c.PublicKey != "" {
		text, err := os.ReadFile(c.PublicKey)
		if err != nil {
			return jc, fmt.Errorf("read public keys: %w", err)
		}
		if jc.PublicKeys, err = jwtauth.ParsePublicKeys(text); err != nil {
			return jc, fmt.Errorf("read public keys from %s: %w", c.PublicKey, err)
		}
	}
	return jc, nil
}

// checkJWT reports combinations of the options for tokens that cannot work.
func checkJWT(c Config, wrong func(option, format string, args ...any)) {
	given := map[string]bool{
		"jwt-secret": c.JWT.Secret != "", "jwt-public-key": c.JWT.PublicKey != "", "jwt-jwks-url": c.JWT.JWKS != "",
	}
	var sources []string
	for _, name := range []string{"jwt-secret", "jwt-public-key", "jwt-jwks-url"} {
		if given[name] {
			sources = append(sources, name)
		}
	}
	switch {
	case c.Auth != AuthJWT:
		for _, name := range sources {
			wrong(name, "has no effect with auth %q: set --auth jwt, or remove this option", c.Auth)
		}
	case len(sources) == 0:
		wrong("auth", "tokens need a key: set jwt-secret (or jwt-secret-file), jwt-public-key or jwt-jwks-url")
	case len(sources) > 1:
		wrong(sources[1], "%s is set too: set only one of them", sources[0])
	case c.JWT.PreviousSecret != "" && c.JWT.Secret == "":
		wrong("jwt-previous-secret", "has no effect without jwt-secret: remove this option")
	default:
		jc, err := jwtConfig(c.JWT)
		if err == nil {
			_, err = jwtauth.New(jc)
		}
		if err != nil {
			wrong(sources[0], "%w", err)
		}
	}
}
