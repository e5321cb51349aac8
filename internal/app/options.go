package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/hearthws/hearth/internal/origin"
)

// An Option is one thing that can be configured. Its name is the same everywhere: the flag --max-payload, the variable
// HEARTH_MAX_PAYLOAD and the file's key max-payload are one.
type Option struct {
	Name    string
	Group   string // the heading that it stands under
	Hint    string // what kind of value it takes: "duration", "size"
	Usage   string // what it does, in one line
	Default string // as it would be written
	List    bool   // takes several values
	Switch  bool   // takes true or false
	Secret  bool   // may hold a password: never printed as it is

	set func(c *Config, values []string) error
}

// maxNumber is the largest count or size that package hearth takes.
const maxNumber = 1 << 30

// The headings of Options, in their order.
const (
	groupListen  = "Listening"
	groupAuth    = "Users and rooms"
	groupNodes   = "Several servers"
	groupTime    = "Timeouts"
	groupLimits  = "Limits"
	groupEngine  = "Engine"
	groupLogging = "Logging"
)

// Options lists every option, grouped.
func Options() []Option {
	return slices.Concat(listenOptions(), authOptions(), nodeOptions(), timeOptions(), limitOptions(), engineOptions(), logOptions())
}

func listenOptions() []Option {
	return []Option{
		text("listen", groupListen, "host:port", "localhost:8080", "address to serve on; port 0 takes any free one",
			func(c *Config) *string { return &c.Listen }, parseListen),
		text("path", groupListen, "path", "/ws", "where WebSocket clients connect",
			func(c *Config) *string { return &c.Path }, parsePath),
		list("origins", groupListen, "origin", "", "pages of which other origins may connect, as https://example.com or https://*.example.com; \"*\" for any (default: none)",
			func(c *Config, v []string) { c.Origins = v }, parseOrigins),
		text("tls-cert", groupListen, "file", "", "certificate chain in PEM; serves https and wss; read again when the file changes",
			func(c *Config) *string { return &c.TLSCert }, anyText),
		text("tls-key", groupListen, "file", "", "private key of tls-cert in PEM",
			func(c *Config) *string { return &c.TLSKey }, anyText),
		list("trusted-proxies", groupListen, "network", "", "proxies whose X-Forwarded-For tells the client's address",
			func(c *Config, v []netip.Prefix) { c.TrustedProxies = v }, each(parsePrefix)),
	}
}

func authOptions() []Option {
	return []Option{
		choice("auth", groupAuth, AuthDevelopment, "how clients prove who they are; development: any name is a user",
			func(c *Config) *string { return &c.Auth }, AuthDevelopment),
		list("default-rooms", groupAuth, "room", "ws-default,ws-notification", "rooms that every client is in from the start; [] for none",
			func(c *Config, v []string) { c.DefaultRooms = v }, parseRooms),
	}
}

func nodeOptions() []Option {
	redis := text("redis", groupNodes, "url", "", "Redis through which servers share their clients, as redis://:password@host:6379; set HEARTH_REDIS "+
		"where others could read the command line (default: none, this process only)",
		func(c *Config) *string { return &c.Redis }, parseRedis)
	redis.Secret = true
	wait := duration("redis-timeout", "30s", "how long to wait for Redis at the start; then give up",
		func(c *Config) *time.Duration { return &c.RedisTimeout }, false)
	wait.Group = groupNodes
	return []Option{
		redis,
		wait,
		text("redis-prefix", groupNodes, "prefix", "", "what the names of all channels in Redis begin with, as in shop: so that applications can "+
			"share a Redis; the same for all servers and emitters of one (default: none)",
			func(c *Config) *string { return &c.RedisPrefix }, parseRedisPrefix),
		boolean("redis-patterns", groupNodes, "subscribe to all rooms, clients and users rather than to those that are here",
			func(c *Config) *bool { return &c.RedisPatterns }),
		boolean("resync", groupNodes, "tell clients by the event resync when messages of other servers may be missing",
			func(c *Config) *bool { return &c.Resync }),
	}
}

func timeOptions() []Option {
	return []Option{
		duration("auth-timeout", "5s", "how long a client may take to authenticate; then close 4001",
			func(c *Config) *time.Duration { return &c.AuthTimeout }, false),
		duration("heartbeat-interval", "30s", "time between two looks for clients that went silent; 0 for none",
			func(c *Config) *time.Duration { return &c.HeartbeatInterval }, true),
		duration("heartbeat-timeout", "90s", "how long a client may send no message; then close 4002",
			func(c *Config) *time.Duration { return &c.HeartbeatTimeout }, false),
		duration("idle-timeout", "60s", "how long nothing at all may come from a client, not even the answer to a ping, before it is cut off; 0: for ever",
			func(c *Config) *time.Duration { return &c.IdleTimeout }, true),
		duration("close-timeout", "5s", "how long a client may take to answer a close",
			func(c *Config) *time.Duration { return &c.CloseTimeout }, false),
		duration("drain-delay", "0s", "on a signal, go on serving for so long while /healthz answers 503",
			func(c *Config) *time.Duration { return &c.DrainDelay }, true),
		duration("shutdown-timeout", "10s", "how long a shutdown may take before it is cut short",
			func(c *Config) *time.Duration { return &c.ShutdownTimeout }, false),
	}
}

func limitOptions() []Option {
	return []Option{
		size("max-payload", "128KiB", 1, "largest message from a client; a larger one is close 1009",
			func(c *Config) *int { return &c.MaxPayload }),
		size("backpressure-limit", "1MiB", 1024, "how much may wait for one client that reads slowly",
			func(c *Config) *int { return &c.BackpressureLimit }),
		boolean("close-on-backpressure", groupLimits, "past that limit, close with 1013 rather than drop messages",
			func(c *Config) *bool { return &c.CloseOnBackpressure }),
		number("max-connections", groupLimits, 100_000, "open connections; further ones take the place of unauthenticated clients or get 503; 0: any number",
			func(c *Config) *int { return &c.MaxConnections }, 0, maxNumber),
		number("max-unauthenticated", groupLimits, 10_000, "of those, how many may not have authenticated yet; 0: any number",
			func(c *Config) *int { return &c.MaxUnauthenticated }, 0, maxNumber),
		number("max-unauthenticated-per-address", groupLimits, 256, "the same, from one address (of IPv6, from one /64)",
			func(c *Config) *int { return &c.MaxUnauthenticatedPerAddr }, 0, maxNumber),
		number("unauthenticated-messages", groupLimits, 16, "messages that a client may send before it is authenticated",
			func(c *Config) *int { return &c.UnauthenticatedMessages }, 1, maxNumber),
		size("unauthenticated-payload", "16KiB", 1, "largest message before that",
			func(c *Config) *int { return &c.UnauthenticatedPayload }),
		number("max-rooms", groupLimits, 1024, "rooms that one client may be in, besides its own; 0: any number",
			func(c *Config) *int { return &c.MaxRooms }, 0, maxNumber),
		size("room-names", "64KiB", 0, "bytes of the names of these rooms in all; 0: any number",
			func(c *Config) *int { return &c.RoomNames }),
		size("client-queue", "256KiB", 1024, "how much of one client's input may wait to be handled before it is read no further",
			func(c *Config) *int { return &c.ClientQueue }),
		number("message-rate", groupLimits, 0, "messages that a client may send in a second, ten seconds' worth at once; more is close 1008; 0: any number",
			func(c *Config) *int { return &c.MessageRate }, 0, maxNumber),
		size("byte-rate", "0", 0, "the same for bytes, inflated; 0: any number",
			func(c *Config) *int { return &c.ByteRate }),
		size("send-queue", "64MiB", 64<<10, "how much may wait for an event loop before sends fail",
			func(c *Config) *int { return &c.SendQueue }),
	}
}

func engineOptions() []Option {
	return []Option{
		choice("transport", groupEngine, "auto", "auto takes epoll where it can: Linux, plain TCP",
			func(c *Config) *string { return &c.Transport }, "auto", "epoll", "netconn"),
		number("loops", groupEngine, 1, "event loops; more only where cores are plenty",
			func(c *Config) *int { return &c.Loops }, 1, 256),
		boolean("compression", groupEngine, "offer permessage-deflate: less network for more CPU and memory",
			func(c *Config) *bool { return &c.Compression }),
		choice("encryption", groupEngine, "off", "encrypt the messages of clients that send a key; required: and close those that don't, 4004",
			func(c *Config) *string { return &c.Encryption }, "off", "optional", "required"),
	}
}

func logOptions() []Option {
	return []Option{
		text("name", groupLogging, "text", "hearth", "name of this server in its logs",
			func(c *Config) *string { return &c.Name }, anyText),
		choice("log-format", groupLogging, "auto", "auto: text for a terminal, JSON for all else",
			func(c *Config) *string { return &c.LogFormat }, "auto", "text", "json"),
		logLevel(),
	}
}

func lookup(name string) (Option, bool) {
	for _, o := range Options() {
		if o.Name == name {
			return o, true
		}
	}
	return Option{}, false
}

// Nearest returns the option whose name is most like name, or "" when none is like it.
func Nearest(name string) string {
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	best, distance := "", len(name)/3+2
	for _, o := range Options() {
		if d := editDistance(name, o.Name); d < distance {
			best, distance = o.Name, d
		}
	}
	return best
}

// editDistance counts the letters to insert, remove or replace.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func didYouMean(near, otherwise string) string {
	if near == "" {
		return otherwise
	}
	return fmt.Sprintf(": did you mean %q?", near)
}

func anyText(s string) (string, error) { return s, nil }

func text(name, group, hint, def, usage string, field func(*Config) *string, parse func(string) (string, error)) Option {
	return one(Option{Name: name, Group: group, Hint: hint, Usage: usage, Default: def}, field, parse)
}

func choice(name, group, def, usage string, field func(*Config) *string, allowed ...string) Option {
	o := Option{Name: name, Group: group, Hint: strings.Join(allowed, "|"), Usage: usage, Default: def}
	return one(o, field, func(s string) (string, error) {
		for _, a := range allowed {
			if s == a {
				return s, nil
			}
		}
		if len(allowed) == 1 {
			return "", fmt.Errorf("there is only %s so far", allowed[0])
		}
		return "", fmt.Errorf("takes one of %s", strings.Join(allowed, ", "))
	})
}

// duration makes an option of a length of time, at least a millisecond; zero says that 0 may be given as well.
func duration(name, def, usage string, field func(*Config) *time.Duration, zero bool) Option {
	o := Option{Name: name, Group: groupTime, Hint: "duration", Usage: usage, Default: def}
	return one(o, field, func(s string) (time.Duration, error) {
		d, err := parseDuration(s)
		switch {
		case err != nil || d >= time.Millisecond || d == 0 && zero:
			return d, err
		case zero:
			return 0, errors.New("takes 0, or at least 1ms")
		default:
			return 0, errors.New("takes at least 1ms")
		}
	})
}

func size(name, def string, least int, usage string, field func(*Config) *int) Option {
	o := Option{Name: name, Group: groupLimits, Hint: "size", Usage: usage, Default: def}
	return one(o, field, func(s string) (int, error) {
		n, err := parseSize(s)
		if err == nil && (n < least || n > maxNumber) {
			return 0, fmt.Errorf("takes at least %d and at most 1GiB, in bytes", least)
		}
		return n, err
	})
}

func number(name, group string, def int, usage string, field func(*Config) *int, least, most int) Option {
	o := Option{Name: name, Group: group, Hint: "number", Usage: usage, Default: strconv.Itoa(def)}
	return one(o, field, func(s string) (int, error) {
		n, err := parseCount(s)
		if err == nil && (n < least || n > most) {
			return 0, fmt.Errorf("takes %d to %d", least, most)
		}
		return n, err
	})
}

func boolean(name, group, usage string, field func(*Config) *bool) Option {
	return one(Option{Name: name, Group: group, Usage: usage, Default: "false", Switch: true}, field, parseSwitch)
}

func logLevel() Option {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	o := Option{Name: "log-level", Group: groupLogging, Hint: "debug|info|warn|error", Usage: "what to log, and all above it", Default: "info"}
	return one(o, func(c *Config) *slog.Level { return &c.LogLevel }, func(s string) (slog.Level, error) {
		level, ok := levels[strings.ToLower(s)]
		if !ok {
			return 0, errors.New("takes one of debug, info, warn, error")
		}
		return level, nil
	})
}

// one makes an option of a single value.
func one[T any](o Option, field func(*Config) *T, parse func(string) (T, error)) Option {
	o.set = func(c *Config, values []string) error {
		v, err := parse(values[0])
		if err == nil {
			*field(c) = v
		}
		return err
	}
	return o
}

// list makes an option of several values.
func list[T any](name, group, hint, def, usage string, assign func(*Config, []T), parse func([]string) ([]T, error)) Option {
	set := func(c *Config, values []string) error {
		vs, err := parse(values)
		if err == nil {
			assign(c, vs)
		}
		return err
	}
	return Option{Name: name, Group: group, Hint: hint, Usage: usage, Default: def, List: true, set: set}
}

// each parses every element by itself. The result is never nil.
func each[T any](parse func(string) (T, error)) func([]string) ([]T, error) {
	return func(values []string) ([]T, error) {
		out := make([]T, 0, len(values))
		for _, s := range values {
			v, err := parse(s)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", s, err)
			}
			out = append(out, v)
		}
		return out, nil
	}
}

// parseOrigins makes the empty list nil.
func parseOrigins(values []string) ([]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	_, err := origin.New(values)
	return values, err
}

// yamlValue writes a setting's value so that YAML reads it back as the same text.
func yamlValue(s Setting) string {
	if !s.Option.List {
		return yamlText(s.Option.redacted(s.Values[0]))
	}
	quoted := make([]string, len(s.Values))
	for i, v := range s.Values {
		quoted[i] = strconv.Quote(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// yamlText leaves words, numbers, sizes and addresses bare, and quotes everything that might be read as something else.
func yamlText(s string) string {
	bare := s != "" && !strings.EqualFold(s, "null") && !strings.HasSuffix(s, ":")
	for _, r := range s {
		bare = bare && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("/.:-_", r))
	}
	if bare && !unicode.IsLetter([]rune(s)[0]) && s[0] != '/' {
		_, sizeErr := parseSize(s)
		_, durationErr := parseDuration(s)
		bare = (sizeErr == nil || durationErr == nil) && (s[0] != '0' || len(s) < 3)
	}
	if !bare {
		return strconv.Quote(s)
	}
	return s
}

// printableOr replaces what would not show as itself.
func printableOr(replacement rune) func(rune) rune {
	return func(r rune) rune {
		if !unicode.IsPrint(r) {
			return replacement
		}
		return r
	}
}
