package app

import (
	"fmt"

	"github.com/hearthws/hearth/internal/app/jwtauth"
	"github.com/hearthws/hearth/internal/app/rules"
)

// groupRules is the heading of the options for what clients may do in rooms.
const groupRules = "Room rules (not with auth development)"

// RoomRules is the configuration of what clients may do in rooms. Each field has an option.
type RoomRules struct {
	Join     rules.Rules
	Publish  rules.Rules
	History  rules.Rules
	Presence rules.Rules

	GrantSecret         string `json:"-"`
	PreviousGrantSecret string `json:"-"`
}

func ruleOptions() []Option {
	rule := func(name, usage string, field func(*Config) *rules.Rules) Option {
		return list(name, groupRules, "pattern", "", usage, func(c *Config, v []rules.Rules) { *field(c) = v[0] },
			func(values []string) ([]rules.Rules, error) {
				r, err := rules.Parse(values)
				return []rules.Rules{r}, err
			})
	}
	return []Option{
		rule("allow-join", "rooms that clients may join, as in chat:*,user:{user},team:{claim:team} (default: those of their tokens only)",
			func(c *Config) *rules.Rules { return &c.Rules.Join }),
		rule("allow-publish", "rooms to which clients may publish messages (default: none)",
			func(c *Config) *rules.Rules { return &c.Rules.Publish }),
		rule("allow-history", "rooms of which clients may read the history without joining (default: none)",
			func(c *Config) *rules.Rules { return &c.Rules.History }),
		rule("allow-presence", "rooms of which clients may see the number of members (default: none)",
			func(c *Config) *rules.Rules { return &c.Rules.Presence }),
		secret("grant-secret", groupRules, "secret for grants, which allow a client to join one room; at least 32 bytes",
			func(c *Config) *string { return &c.Rules.GrantSecret }),
		secret("grant-previous-secret", groupRules, "another secret that is accepted, while grant-secret is replaced",
			func(c *Config) *string { return &c.Rules.PreviousGrantSecret }),
	}
}

// grantSecrets returns the secrets for grants.
func (r RoomRules) grantSecrets() [][]byte {
	var secrets [][]byte
	for _, s := range []string{r.GrantSecret, r.PreviousGrantSecret} {
		if s != "" {
			secrets = append(secrets, []byte(s))
		}
	}
	return secrets
}

// claims returns the names of the claims that the rules use.
func (r RoomRules) claims() []string {
	var names []string
	for _, of := range []rules.Rules{r.Join, r.Publish, r.History, r.Presence} {
		names = append(names, of.Claims()...)
	}
	return names
}

// checkRules reports combinations of the options for rooms that cannot work.
func checkRules(c Config, settings []Setting, wrong func(option, format string, args ...any)) {
	for _, s := range settings {
		if given := s.secret != nil || len(s.Values) > 0 && s.Values[0] != ""; c.Auth == AuthDevelopment && s.Option.Group == groupRules && given && s.Option.File == "" {
			wrong(s.Option.Name, "has no effect with auth %q, where clients may do everything: choose another auth, or remove this option", c.Auth)
		}
	}
	secrets := c.Rules.grantSecrets()
	if len(secrets) == 0 {
		return
	}
	if c.Rules.GrantSecret == "" {
		wrong("grant-previous-secret", "has no effect without grant-secret: remove this option")
	}
	if _, err := jwtauth.NewGrants(secrets, 0); err != nil {
		wrong("grant-secret", "%w", err)
	}
	for _, s := range secrets {
		if string(s) == c.JWT.Secret || string(s) == c.JWT.PreviousSecret {
			wrong("grant-secret", "is a secret for tokens, too: use another one, or a grant could be taken for a token")
		}
	}
}

// newGrants returns what verifies grants, or nil if they are not configured.
func newGrants(c Config) (*jwtauth.Grants, error) {
	secrets := c.Rules.grantSecrets()
	if len(secrets) == 0 {
		return nil, nil
	}
	g, err := jwtauth.NewGrants(secrets, c.JWT.Leeway)
	if err != nil {
		return nil, fmt.Errorf("configure grants: %w", err)
	}
	return g, nil
}
