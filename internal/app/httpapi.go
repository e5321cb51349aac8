package app

import (
	"fmt"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/emitter"
	"github.com/hearthws/hearth/internal/app/api"
	"github.com/hearthws/hearth/internal/app/metrics"
)

const groupAPI = "HTTP API"

func apiOptions() []Option {
	keys := text("api-keys", groupAPI, "name=key", "", "keys for the HTTP API, separated by commas or, in a file, by line breaks; NAME=KEY may do everything, "+
		"NAME:SCOPE+SCOPE=KEY what its scopes allow: publish, read, manage",
		func(c *Config) *string { return &c.Side.APIKeys }, parseAPIKeys)
	keys.Secret = true
	return []Option{
		text("api", groupAPI, "host:port", "", "address of the HTTP API, as in localhost:8081 (default: none)",
			func(c *Config) *string { return &c.Side.API }, parseAdmin),
		keys,
	}
}

func parseAPIKeys(s string) (string, error) {
	_, err := api.ParseKeys(s)
	return s, err
}

// checkAPI reports options of the HTTP API that cannot work together.
func checkAPI(c Config, wrong func(option, format string, args ...any)) {
	keys, err := api.ParseKeys(c.Side.APIKeys)
	switch {
	case err != nil: // reported by parseAPIKeys
	case c.Side.API != "" && keys.Len() == 0:
		wrong("api", "it needs a key: write NAME=KEY into a file, with a key as printed by openssl rand -hex 32, and set --api-keys-file")
	case c.Side.API == "" && keys.Len() > 0:
		wrong("api-keys", "has no effect without api: set it, as in --api localhost:8081, or remove this option")
	}
}

// newAPI makes the listener for applications, if it is configured.
func (s *Server) newAPI() error {
	if s.cfg.Side.API == "" {
		return nil
	}
	e, err := emitter.New(s.broker) // never closed: the engine closes the broker
	if err != nil {
		return fmt.Errorf("configure the API: %w", err)
	}
	keys, err := api.ParseKeys(s.cfg.Side.APIKeys)
	if err != nil {
		return fmt.Errorf("configure the API: %w", err)
	}
	s.apiKeys.Store(keys)
	s.requests = metrics.NewRequests()
	c := api.Config{
		Server: s.hearth, Emitter: e, HasHistory: s.hasHistory, Members: s.members, Keys: s.apiKeys.Load, Log: s.limited, Observe: s.requests.Observe,
	}
	if s.redis != nil {
		c.Broker = "Redis"
	}
	s.api = newSideListener("api", s.cfg.Side.API, api.New(c), s.log)
	return nil
}

// hasHistory reports whether a room has history.
func (s *Server) hasHistory(room string) bool {
	h, ok := s.broker.(broker.History)
	return ok && h.HasHistory(room)
}

// APIURL returns the address of the HTTP API, or "" if there is none. Call it after Listen.
func (s *Server) APIURL() string {
	if s.api == nil {
		return ""
	}
	return s.api.url()
}
