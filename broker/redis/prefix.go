package redis

import (
	"fmt"
	"strings"
)

// maxPrefix is how many bytes Config.Prefix may have.
const maxPrefix = 64

// CheckPrefix reports why prefix cannot be Config.Prefix; nil if it can, as the empty one can.
func CheckPrefix(prefix string) error {
	if len(prefix) > maxPrefix {
		return fmt.Errorf("it is longer than %d bytes", maxPrefix)
	}
	for i := range len(prefix) {
		c := prefix[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && strings.IndexByte(":._-/", c) < 0 { // the others may mean something in a pattern or a command line
			return fmt.Errorf("it has %q; it takes letters, digits and : . _ - /", prefix[i:i+1])
		}
	}
	for _, p := range patterns {
		if strings.Contains(prefix, strings.TrimSuffix(p, "*")) {
			return fmt.Errorf("it has %q in it, so its channels could be those of a room, client or user of others", strings.TrimSuffix(p, "*"))
		}
	}
	for _, own := range []string{"ws:", "hearth:"} {
		if strings.HasPrefix(prefix, own) {
			return fmt.Errorf("it starts with %q, as the channels without a prefix do: the ACL for those would cover it", own)
		}
	}
	return nil
}

// channel is the name that Redis has for a channel.
func (c *Config) channel(name string) string {
	if c.Prefix == "" {
		return name
	}
	return c.Prefix + name
}

// channels are the names that Redis has for channels.
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
