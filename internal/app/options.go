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

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/origin"
)

// An Option is one configuration option. It has one name: the flag --max-payload, the variable
// HEARTH_MAX_PAYLOAD and the key max-payload in a file set the same option.
type Option struct {
	Name    string
	Group   string // the heading in the help text
	Hint    string // the kind of value: "duration", "size"
	Usage   string // what it does, in one line
	Default string // in the format of the option
	List    bool   // takes several values
	Switch  bool   // takes true or false
	Secret  bool   // may hold a secret: printed only without it
	URL     bool   // a URL of which only the password is secret
	Live    bool   // a change takes effect when the configuration is loaded again
	File    string // the name of the secret option whose value is in the file that this one names

	set    func(c *Config, values []string) error
	schema map[string]any // the JSON Schema of a value in a file; nil: any text
}

// maxNumber is the largest count or size that package hearth accepts.
const maxNumber = 1 << 30

// The headings of Options, in order.
const (
	groupListen  = "Listening"
	groupAuth    = "Users and rooms"
	groupNodes   = "Several servers"
	groupResume  = "Clients that reconnect"
	groupTime    = "Timeouts"
	groupLimits  = "Limits"
	groupEngine  = "Engine"
	groupLogging = "Logging and control"
)

// Options returns all options in the order of their groups.
func Options() []Option {
	all := slices.Concat(
		listenOptions(), authOptions(), jwtOptions(), webhookOptions(), ruleOptions(), apiOptions(), nodeOptions(), resumeOptions(), timeOptions(), limitOptions(), engineOptions(), logOptions(),
	)
	var with []Option
	for _, o := range all {
		o.Live = o.Group == groupJWT || o.Group == groupWebhook || o.Group == groupRules || o.Name == "origins" || o.Name == "api-keys" || o.Name == "log-level"
		file := fileOption(o)
		if with = append(with, o); o.Secret && !slices.ContainsFunc(all, func(p Option) bool { return p.Name == file.Name }) {
			with = append(with, file)
		}
	}
	return with
}

// fileOption returns the option that names a file with the value of a secret option.
func fileOption(o Option) Option {
	return Option{
		Name: o.Name + "-file", Group: o.Group, Hint: "file", Usage: "file with the value of " + o.Name, File: o.Name, Live: o.Live,
		set: func(*Config, []string) error { return nil },
	}
}

func listenOptions() []Option {
	return []Option{
		text("listen", groupListen, "host:port", "localhost:8080", "address to listen on; port 0 means any free port",
			func(c *Config) *string { return &c.Listen }, parseListen),
		text("path", groupListen, "path", "/ws", "URL path for WebSocket clients",
			func(c *Config) *string { return &c.Path }, parsePath),
		list("origins", groupListen, "origin", "", "allow pages of these other origins to connect, as in https://example.com or https://*.example.com; \"*\" allows any (default: none)",
			func(c *Config, v []string) { c.Origins = v }, parseOrigins),
		text("tls-cert", groupListen, "file", "", "certificate chain (PEM) for https and wss; loaded again when the file changes",
			func(c *Config) *string { return &c.TLSCert }, anyText),
		text("tls-key", groupListen, "file", "", "private key of tls-cert (PEM)",
			func(c *Config) *string { return &c.TLSKey }, anyText),
		text("admin", groupListen, "host:port", "", "address of a second listener for metrics, health checks and live figures, as in localhost:9090; it needs no password, "+
			"so other machines should not reach it (default: none)",
			func(c *Config) *string { return &c.Side.Admin }, parseAdmin),
		list("trusted-proxies", groupListen, "network", "", "addresses of proxies; their X-Forwarded-For header gives the client's address",
			func(c *Config, v []netip.Prefix) { c.TrustedProxies = v }, each(parsePrefix)),
	}
}

func authOptions() []Option {
	return []Option{
		choice("auth", groupAuth, AuthDevelopment, "how clients authenticate; development: with any name, on this machine only; anonymous: not at all; jwt: with a token; webhook: as a backend decides",
			func(c *Config) *string { return &c.Auth }, AuthDevelopment, AuthAnonymous, AuthJWT, AuthWebhook),
		list("default-rooms", groupAuth, "room", "ws-default,ws-notification", "rooms that every client joins when it connects; [] means none",
			func(c *Config, v []string) { c.DefaultRooms = v }, parseRooms),
		list("history", groupAuth, "rooms=size/age", "", "keep the last messages of these rooms for clients that were away, as in chat:*=100/5m; the first that "+
			"matches a room applies; all servers and emitters need the same (default: none)",
			func(c *Config, v []broker.HistoryRule) { c.History = v }, each(broker.ParseHistoryRule)),
	}
}

func nodeOptions() []Option {
	redis := text("redis", groupNodes, "url", "", "URL of the Redis that connects the servers, as in redis://:password@host:6379; use HEARTH_REDIS "+
		"if other users could read the command line (default: none, a single server)",
		func(c *Config) *string { return &c.Redis }, parseRedis)
	redis.Secret, redis.URL = true, true
	wait := duration("redis-timeout", "30s", "stop if Redis cannot be reached within this time at the start",
		func(c *Config) *time.Duration { return &c.RedisTimeout }, false)
	wait.Group = groupNodes
	return []Option{
		redis,
		wait,
		text("redis-prefix", groupNodes, "prefix", "", "prefix for the names of all channels in Redis, as in shop: for applications that share "+
			"a Redis; all servers and emitters of an application need the same (default: none)",
			func(c *Config) *string { return &c.RedisPrefix }, parseRedisPrefix),
		boolean("redis-patterns", groupNodes, "subscribe to all rooms, clients and users, not only to those on this server",
			func(c *Config) *bool { return &c.RedisPatterns }),
		boolean("resync", groupNodes, "send clients the event resync when messages from other servers may be missing",
			func(c *Config) *bool { return &c.Resync }),
	}
}

func resumeOptions() []Option {
	key := text("resume-key", groupResume, "base64", "", "secret for the tickets, the same for all servers: 32 random bytes or more in base64; use HEARTH_RESUME_KEY "+
		"or resume-key-file if other users could read the command line (default: random)",
		func(c *Config) *string { return &c.ResumeKey }, parseResumeKey)
	key.Secret = true
	lifetime := duration("resume-lifetime", "2m", "how long a ticket is valid, 1s to 24h",
		func(c *Config) *time.Duration { return &c.ResumeLifetime }, false)
	lifetime.Group = groupResume
	return []Option{
		boolean("resume", groupResume, "give clients tickets, with which they resume their sessions without authenticating again",
			func(c *Config) *bool { return &c.Resume }),
		key,
		text("resume-key-file", groupResume, "file", "", "file with a resume-key in each line; the first is used for new tickets, all are accepted",
			func(c *Config) *string { return &c.ResumeKeyFile }, anyText),
		lifetime,
	}
}

func timeOptions() []Option {
	return []Option{
		duration("auth-timeout", "5s", "close with 4001 if a client does not authenticate within this time",
			func(c *Config) *time.Duration { return &c.AuthTimeout }, false),
		duration("heartbeat-interval", "30s", "how often to check for heartbeat-timeout; 0 disables the check",
			func(c *Config) *time.Duration { return &c.HeartbeatInterval }, true),
		duration("heartbeat-timeout", "90s", "close with 4002 if a client sends no message for this long",
			func(c *Config) *time.Duration { return &c.HeartbeatTimeout }, false),
		duration("idle-timeout", "60s", "disconnect a client that sends nothing for this long, not even a pong; 0 disables this",
			func(c *Config) *time.Duration { return &c.IdleTimeout }, true),
		duration("close-timeout", "5s", "how long to wait for the answer to a close frame",
			func(c *Config) *time.Duration { return &c.CloseTimeout }, false),
		duration("drain-delay", "0s", "after a signal, keep serving for this long while /healthz answers 503",
			func(c *Config) *time.Duration { return &c.DrainDelay }, true),
		duration("drain", "20s", "when shutting down, spread closing the clients over this time, at 100 per second or more",
			func(c *Config) *time.Duration { return &c.Drain }, true),
		duration("shutdown-timeout", "25s", "disconnect the remaining clients if a shutdown takes longer than this, drain included",
			func(c *Config) *time.Duration { return &c.ShutdownTimeout }, false),
	}
}

func limitOptions() []Option {
	return []Option{
		size("max-payload", "128KiB", 1, "largest message from a client; close with 1009 if one is larger",
			func(c *Config) *int { return &c.MaxPayload }),
		size("backpressure-limit", "1MiB", 1024, "bytes of messages to queue for a client that reads slowly",
			func(c *Config) *int { return &c.BackpressureLimit }),
		boolean("close-on-backpressure", groupLimits, "at that limit, close with 1013 instead of dropping messages",
			func(c *Config) *bool { return &c.CloseOnBackpressure }),
		number("max-connections", groupLimits, 100_000, "limit of open connections; beyond it a new connection replaces an unauthenticated client or gets 503; 0: no limit",
			func(c *Config) *int { return &c.MaxConnections }, 0, maxNumber),
		number("max-unauthenticated", groupLimits, 10_000, "limit of unauthenticated clients; 0: no limit",
			func(c *Config) *int { return &c.MaxUnauthenticated }, 0, maxNumber),
		number("max-unauthenticated-per-address", groupLimits, 256, "limit of unauthenticated clients from one address (one /64 for IPv6); 0: no limit",
			func(c *Config) *int { return &c.MaxUnauthenticatedPerAddr }, 0, maxNumber),
		number("unauthenticated-messages", groupLimits, 16, "messages that a client may send before it has authenticated",
			func(c *Config) *int { return &c.UnauthenticatedMessages }, 1, maxNumber),
		size("unauthenticated-payload", "16KiB", 1, "largest message from a client before it has authenticated",
			func(c *Config) *int { return &c.UnauthenticatedPayload }),
		number("max-rooms", groupLimits, 1024, "rooms that a client may join, not counting its own; 0: no limit",
			func(c *Config) *int { return &c.MaxRooms }, 0, maxNumber),
		size("room-names", "64KiB", 0, "total bytes of the names of these rooms; 0: no limit",
			func(c *Config) *int { return &c.RoomNames }),
		size("client-queue", "256KiB", 1024, "stop reading from a client while this much of its input waits for a handler",
			func(c *Config) *int { return &c.ClientQueue }),
		number("message-rate", groupLimits, 0, "messages per second from a client, with a burst of ten seconds' worth; close with 1008 beyond that; 0: no limit",
			func(c *Config) *int { return &c.MessageRate }, 0, maxNumber),
		size("byte-rate", "0", 0, "uncompressed bytes per second from a client, with the same burst; 0: no limit",
			func(c *Config) *int { return &c.ByteRate }),
		size("send-queue", "64MiB", 64<<10, "bytes to queue for an event loop; sends fail beyond that",
			func(c *Config) *int { return &c.SendQueue }),
	}
}

func engineOptions() []Option {
	return []Option{
		choice("transport", groupEngine, "auto", "auto uses epoll on Linux without TLS, and netconn otherwise",
			func(c *Config) *string { return &c.Transport }, "auto", "epoll", "netconn"),
		number("loops", groupEngine, 1, "number of event loops; use more only on a machine with many cores",
			func(c *Config) *int { return &c.Loops }, 1, 256),
		boolean("compression", groupEngine, "offer permessage-deflate: uses less network, and more CPU and memory",
			func(c *Config) *bool { return &c.Compression }),
		choice("encryption", groupEngine, "off", "encrypt the messages of clients that send a public key; required: close the others with 4004",
			func(c *Config) *string { return &c.Encryption }, "off", "optional", "required"),
	}
}

func logOptions() []Option {
	return []Option{
		text("name", groupLogging, "text", "hearth", "name of this server in logs",
			func(c *Config) *string { return &c.Name }, anyText),
		text("pid-file", groupLogging, "file", "", "write the number of the process to this file, for hearth reload",
			func(c *Config) *string { return &c.PIDFile }, anyText),
		choice("log-format", groupLogging, "auto", "auto: text on a terminal, JSON otherwise",
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

// Nearest returns the option whose name resembles name most, or "" if none does.
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

// editDistance returns the number of letters to insert, remove or replace.
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
	o := Option{Name: name, Group: group, Hint: strings.Join(allowed, "|"), Usage: usage, Default: def, schema: map[string]any{"enum": allowed}}
	return one(o, field, func(s string) (string, error) {
		for _, a := range allowed {
			if s == a {
				return s, nil
			}
		}
		return "", fmt.Errorf("takes one of %s", strings.Join(allowed, ", "))
	})
}

// duration returns an option for a duration of at least a millisecond. zero allows 0 as well.
func duration(name, def, usage string, field func(*Config) *time.Duration, zero bool) Option {
	o := Option{Name: name, Group: groupTime, Hint: "duration", Usage: usage, Default: def, schema: durationSchema(zero)}
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
	o := Option{Name: name, Group: groupLimits, Hint: "size", Usage: usage, Default: def, schema: sizeSchema(least)}
	return one(o, field, func(s string) (int, error) {
		n, err := parseSize(s)
		if err == nil && (n < least || n > maxNumber) {
			return 0, fmt.Errorf("takes at least %d and at most 1GiB, in bytes", least)
		}
		return n, err
	})
}

func number(name, group string, def int, usage string, field func(*Config) *int, least, most int) Option {
	o := Option{
		Name: name, Group: group, Hint: "number", Usage: usage, Default: strconv.Itoa(def),
		schema: map[string]any{"type": "integer", "minimum": least, "maximum": most},
	}
	return one(o, field, func(s string) (int, error) {
		n, err := parseCount(s)
		if err == nil && (n < least || n > most) {
			return 0, fmt.Errorf("takes %d to %d", least, most)
		}
		return n, err
	})
}

func boolean(name, group, usage string, field func(*Config) *bool) Option {
	return one(Option{Name: name, Group: group, Usage: usage, Default: "false", Switch: true, schema: map[string]any{"type": "boolean"}}, field, parseSwitch)
}

func logLevel() Option {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	o := Option{Name: "log-level", Group: groupLogging, Hint: "debug|info|warn|error", Usage: "lowest level to log", Default: "info"}
	o.schema = map[string]any{"enum": []string{"debug", "info", "warn", "error"}}
	return one(o, func(c *Config) *slog.Level { return &c.LogLevel }, func(s string) (slog.Level, error) {
		level, ok := levels[strings.ToLower(s)]
		if !ok {
			return 0, errors.New("takes one of debug, info, warn, error")
		}
		return level, nil
	})
}

// one returns an option with a single value.
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

// list returns an option with several values.
func list[T any](name, group, hint, def, usage string, assign func(*Config, []T), parse func([]string) ([]T, error)) Option {
	set := func(c *Config, values []string) error {
		vs, err := parse(values)
		if err == nil {
			assign(c, vs)
		}
		return err
	}
	return Option{Name: name, Group: group, Hint: hint, Usage: usage, Default: def, List: true, set: set, schema: listSchema()}
}

// each returns a function that parses every element by itself. Its result is never nil.
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

// parseOrigins returns nil for an empty list.
func parseOrigins(values []string) ([]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	_, err := origin.New(values)
	return values, err
}

// yamlValue formats a value so that YAML reads it back as the same text.
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

// yamlText quotes a text unless it is a word, number, size or address that YAML reads as the same
// text.
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

// printableOr returns a mapping that replaces characters that are not printable.
func printableOr(replacement rune) func(rune) rune {
	return func(r rune) rune {
		if !unicode.IsPrint(r) {
			return replacement
		}
		return r
	}
}
