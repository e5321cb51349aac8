package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hearthws/hearth/internal/app/api"
)

// reloadTimeout is how long Reload waits for a new key set.
const reloadTimeout = 10 * time.Second

// A Reloaded is the result of a reload.
type Reloaded struct {
	Config   Config    // what is in effect now
	Settings []Setting // the same, for the next reload
	Applied  []string  // the options that have changed
	Restart  []string  // the options that have changed, and take effect after a restart
}

// Reload applies changes of the configuration while the server runs: those of the options with
// Option.Live, together with the contents of the files that they name. All of them take effect at
// once, for requests and messages that come later. If anything fails, nothing has changed. current
// are the settings in effect, next those that Load has returned now.
//
// It may wait 10 s for a new key set, and for ctx. Only one call may run at a time.
func (s *Server) Reload(ctx context.Context, current, next []Setting) (Reloaded, error) {
	r := Reloaded{Settings: slices.Clone(current)}
	for i, old := range current {
		at := slices.IndexFunc(next, func(n Setting) bool { return n.Option.Name == old.Option.Name })
		if at < 0 || !next[at].differs(old) {
			continue
		}
		if !old.Option.Live {
			r.Restart = append(r.Restart, old.Option.Name)
			continue
		}
		r.Applied = append(r.Applied, old.Option.Name)
		r.Settings[i] = next[at]
	}
	errs := apply(&r.Config, r.Settings, func(Option) bool { return true })
	if len(errs) == 0 {
		errs = check(r.Config, r.Settings)
	}
	if len(errs) > 0 {
		return r, errors.Join(errs...)
	}
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	newKeys, err := s.applyLive(ctx, r.Config)
	const file = "jwt-public-key"
	if newKeys && r.Config.JWT.PublicKey != "" && !slices.Contains(r.Applied, file) {
		r.Applied = append(r.Applied, file) // the contents of the file
	}
	return r, err
}

// differs reports whether an option has another value.
func (s Setting) differs(old Setting) bool {
	if !slices.Equal(s.Values, old.Values) || (s.secret == nil) != (old.secret == nil) {
		return true
	}
	return s.secret != nil && *s.secret != *old.secret
}

// applyLive prepares all parts of the configuration that can change, and then replaces them.
// newKeys says that the keys of tokens are others.
func (s *Server) applyLive(ctx context.Context, c Config) (newKeys bool, err error) {
	origins, err := checkOrigin(c, s.limited)
	if err != nil {
		return false, fmt.Errorf("configure the origins: %w", err)
	}
	keys, err := api.ParseKeys(c.Side.APIKeys)
	if err != nil {
		return false, fmt.Errorf("configure the API: %w", err)
	}
	if s.service != nil {
		if newKeys, err = s.service.reload(ctx, c); err != nil {
			return false, err
		}
	}
	s.origins.Store(&origins)
	if s.api != nil {
		s.apiKeys.Store(keys)
	}
	return newKeys, nil
}
