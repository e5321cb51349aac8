package jwtauth

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/hearthws/hearth/internal/app/identity"
)

// maxDate is the largest date in seconds: the end of the year 9999.
const maxDate = 253402300799

// claims are the claims of a token, by name. Each is decoded when it is needed. It implements
// jwt.Claims.
type claims struct{ byName map[string]json.RawMessage }

// UnmarshalJSON decodes the payload of a token.
func (c *claims) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &c.byName) }

// A claimError is an error in the value of a claim, or its absence.
type claimError struct{ name, problem string }

func (e *claimError) Error() string { return fmt.Sprintf("the claim %q %s", e.name, e.problem) }

// date decodes a date. It returns nil if the claim is absent.
func (c *claims) date(name string) (*jwt.NumericDate, error) {
	raw, ok := c.byName[name]
	if !ok {
		return nil, nil
	}
	var seconds float64
	if err := json.Unmarshal(raw, &seconds); err != nil || string(raw) == "null" || seconds < 0 || seconds > maxDate {
		return nil, &claimError{name, "is not a date in seconds"}
	}
	return &jwt.NumericDate{Time: time.Unix(int64(seconds), 0)}, nil
}

// text decodes a string. ok is false if the claim is absent.
func (c *claims) text(name string) (s string, ok bool, err error) {
	raw, ok := c.byName[name]
	if !ok {
		return "", false, nil
	}
	if err := json.Unmarshal(raw, &s); err != nil || raw[0] != '"' {
		return "", true, &claimError{name, "is not a string"}
	}
	return s, true, nil
}

// texts decodes a list of strings, or one string as a list.
func (c *claims) texts(name string) ([]string, error) {
	raw, ok := c.byName[name]
	if !ok || string(raw) == "null" {
		return nil, nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, nil
	}
	var list []*string
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, &claimError{name, "is not a list of strings"}
	}
	all := make([]string, 0, len(list))
	for _, s := range list {
		if s == nil {
			return nil, &claimError{name, "is not a list of strings"}
		}
		all = append(all, *s)
	}
	return all, nil
}

// scalar returns the text of a string or of a whole number. ok is false if the claim is absent.
func (c *claims) scalar(name string) (s string, ok bool, err error) {
	raw, ok := c.byName[name]
	if !ok {
		return "", false, nil
	}
	var n json.Number
	if raw[0] != '"' && json.Unmarshal(raw, &n) == nil {
		if i, err := strconv.ParseInt(n.String(), 10, 64); err == nil {
			return strconv.FormatInt(i, 10), true, nil
		}
		return "", true, &claimError{name, "is neither a string nor a whole number"}
	}
	if s, _, err = c.text(name); err != nil {
		return "", true, &claimError{name, "is neither a string nor a whole number"}
	}
	return s, true, nil
}

// GetExpirationTime returns the claim exp, or nil if it is absent.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.date("exp") }

// GetIssuedAt returns the claim iat, or nil if it is absent.
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error) { return c.date("iat") }

// GetNotBefore returns the claim nbf, or nil if it is absent.
func (c *claims) GetNotBefore() (*jwt.NumericDate, error) { return c.date("nbf") }

// GetIssuer returns the claim iss, or "" if it is absent.
func (c *claims) GetIssuer() (string, error) {
	s, _, err := c.text("iss")
	return s, err
}

// GetSubject returns the claim sub, or "" if it is absent.
func (c *claims) GetSubject() (string, error) {
	s, _, err := c.text("sub")
	return s, err
}

// GetAudience returns the claim aud, one string or a list, or nil if it is absent.
func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return c.texts("aud") }

// identity converts the claims of a valid token.
func (c *claims) identity(cfg Config) (identity.Identity, error) {
	var id identity.Identity
	var err error
	if id.User, _, err = c.scalar(cfg.UserClaim); err != nil {
		return id, err
	}
	if id.User == "" {
		return id, &claimError{cfg.UserClaim, "with the user id is missing"}
	}
	if metadata := c.byName[cfg.MetadataClaim]; string(metadata) != "null" {
		id.Metadata = slices.Clone(metadata) // without the rest of the token
	}
	if id.Rooms, err = c.texts(cfg.RoomsClaim); err != nil {
		return id, err
	}
	for _, name := range cfg.Keep {
		// A claim of another type is as good as none: it matches nothing.
		if s, ok, err := c.scalar(name); ok && err == nil {
			if id.Claims == nil {
				id.Claims = make(map[string]string, len(cfg.Keep))
			}
			id.Claims[name] = s
		}
	}
	expires, err := c.date("exp")
	if err != nil || expires == nil {
		return id, &claimError{"exp", "is missing"}
	}
	id.Expires = expires.Add(cfg.Leeway)
	if err := id.Check(); err != nil {
		return id, fmt.Errorf("%w: %w", errClaims, err)
	}
	return id, nil
}
