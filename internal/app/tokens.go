package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hearthws/hearth/internal/app/jwtauth"
)

// TokenOptions returns the options that the commands for tokens share with hearth serve.
func TokenOptions() []Option {
	var some []Option
	for _, o := range Options() {
		if o.Group == groupJWT {
			some = append(some, o)
		}
	}
	return some
}

// LoadTokens merges the sources as Load does, and returns the configuration of tokens. It does not
// check the other options.
func LoadTokens(src Sources) (JWT, error) {
	settings, err := load(src)
	if err != nil {
		return JWT{}, err
	}
	var c Config
	errs := apply(&c, settings, func(o Option) bool { return o.Group == groupJWT })
	return c.JWT, errors.Join(errs...)
}

// GrantOptions returns the options that the command for grants shares with hearth serve.
func GrantOptions() []Option {
	return slices.DeleteFunc(Options(), func(o Option) bool { return o.Name != "grant-secret" && o.File != "grant-secret" })
}

// CreateGrant returns a grant for a room, signed with grant-secret of the sources. It is for one
// user if user is not empty.
func CreateGrant(src Sources, room, user string, lifetime time.Duration) (string, error) {
	settings, err := load(src)
	if err != nil {
		return "", err
	}
	var c Config
	errs := apply(&c, settings, func(o Option) bool { return o.Group == groupRules })
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	if c.Rules.GrantSecret == "" {
		return "", errors.New("there is no key to sign with: set grant-secret or grant-secret-file")
	}
	return jwtauth.CreateGrant([]byte(c.Rules.GrantSecret), room, user, lifetime)
}

// TokenSpec describes a token for development.
type TokenSpec struct {
	User       string
	Rooms      []string
	Metadata   string        // JSON; empty for none
	Claims     []string      // NAME=VALUE, where VALUE is JSON or else a text
	Lifetime   time.Duration // until the token expires
	PrivateKey string        // a file; empty to sign with the secret
	KeyID      string        // empty for none
}

// CreateToken returns a token.
func CreateToken(c JWT, spec TokenSpec) (string, error) {
	jc, err := jwtConfig(c)
	if err != nil {
		return "", err
	}
	t := jwtauth.Template{User: spec.User, Rooms: spec.Rooms, Lifetime: spec.Lifetime, KeyID: spec.KeyID, Claims: map[string]json.RawMessage{}}
	if spec.Metadata != "" {
		if !json.Valid([]byte(spec.Metadata)) {
			return "", errors.New(`the metadata is not JSON, as in '{"name":"Ada"}'`)
		}
		t.Metadata = json.RawMessage(spec.Metadata)
	}
	for _, claim := range spec.Claims {
		name, value, ok := strings.Cut(claim, "=")
		if !ok || name == "" {
			return "", fmt.Errorf("%q is not a claim: give NAME=VALUE, as in team=red", claim)
		}
		if !json.Valid([]byte(value)) {
			text, err := json.Marshal(value)
			if err != nil {
				return "", fmt.Errorf("encode the claim %s: %w", name, err)
			}
			value = string(text)
		}
		t.Claims[name] = json.RawMessage(value)
	}
	if spec.PrivateKey != "" {
		text, err := os.ReadFile(spec.PrivateKey)
		if err != nil {
			return "", fmt.Errorf("read the private key: %w", err)
		}
		if t.PrivateKey, err = jwtauth.ParsePrivateKey(text); err != nil {
			return "", fmt.Errorf("read the private key from %s: %w", spec.PrivateKey, err)
		}
	}
	return jc.Create(t)
}

// ErrTokenRejected is returned by InspectToken for a token that a server would not accept.
var ErrTokenRejected = errors.New("a server with these options rejects the token")

// InspectToken writes the header and the claims of a token to w, and whether a server with these
// options accepts it. It waits for a key set, if one is configured, until ctx is done.
func InspectToken(ctx context.Context, w io.Writer, c JWT, token string) error {
	header, claims, dates, err := jwtauth.Decode(token)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		json json.RawMessage
	}{{"header", header}, {"claims", claims}} {
		var b bytes.Buffer
		if err := json.Indent(&b, part.json, "", "  "); err != nil {
			return fmt.Errorf("format the %s: %w", part.name, err)
		}
		fmt.Fprintf(w, "%s: %s\n", part.name, strings.Map(printableOrBreak, b.String()))
	}
	io.WriteString(w, dates)
	jc, err := jwtConfig(c)
	if err != nil {
		return err
	}
	if len(jc.Secrets) == 0 && len(jc.PublicKeys) == 0 && jc.JWKS == "" {
		fmt.Fprintln(w, "not verified: set jwt-secret, jwt-public-key or jwt-jwks-url")
		return nil
	}
	v, err := jwtauth.New(jc)
	if err != nil {
		return err
	}
	v.Start()
	defer v.Close()
	if _, err := v.Verify(ctx, token); err != nil {
		return fmt.Errorf("%w: %w", ErrTokenRejected, err)
	}
	fmt.Fprintln(w, "accepted")
	return nil
}

// printableOrBreak replaces characters that are neither printable nor white space.
func printableOrBreak(r rune) rune {
	if r == '\n' || r == '\t' {
		return r
	}
	return printableOr('\uFFFD')(r)
}
