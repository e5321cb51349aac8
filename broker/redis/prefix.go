package redis

import (
	"fmt"
	"strings"
)

// maxPrefix is the largest length of Config.Prefix in bytes.
const maxPrefix = 64

// CheckPrefix returns an error if prefix cannot be Config.Prefix. The empty prefix can.
func CheckPrefix(prefix string) error {
	if len(prefix) > maxPrefix {
		return fmt.Errorf("it is longer than %d bytes", maxPrefix)
	}
	for i := range len(prefix) {
		c := prefix[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		// Other characters may have a meaning in a pattern or a command line.
		if !letter && strings.IndexByte(":._-/", c) < 0 {
			return fmt.Errorf("it contains %q, but may consist only of letters, digits and : . _ - /", prefix[i:i+1])
		}
	}
	for _, p := range patterns {
		if strings.Contains(prefix, strings.TrimSuffix(p, "*")) {
			return fmt.Errorf("it contains %q, so its channels could be those of a room, client or user of another application", strings.TrimSuffix(p, "*"))
		}
	}
	for _, own := range []string{"ws:", "hearth:"} {
		if strings.HasPrefix(prefix, own) {
			return fmt.Errorf("it starts with %q like the channels without a prefix, so an ACL for those would include it", own)
		}
	}
	return nil
}

// channel returns the name of a channel in Redis.
func (c *Config) channel(name string) string {
	if c.Prefix == "" {
		return name
	}
	return c.Prefix + name
}

// channels returns the names of channels in Redis.
func (c *Config) channels(names ...string) []string {
	if c.Prefix == "" {
		return names
	}
	prefixed := make([]string, len(names))
	for i, name := range names {
		prefixed[i] = c.Prefix + name
	}
	return prefixed
}
