package app

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/hearthws/hearth/broker"
)

// The values of Config.Auth.
const (
	AuthDevelopment = "development" // any name is a user; only on this machine
	AuthAnonymous   = "anonymous"   // clients have no user ids
	AuthJWT         = "jwt"         // clients send a JSON Web Token
	AuthWebhook     = "webhook"     // a backend decides
)

// Config is the configuration of a server. Each field has an option (see Options) that documents
// its meaning, unit and default. The zero Config is not usable: use Load.
type Config struct {
	Name           string
	Listen         string
	Path           string
	TLSCert        string
	TLSKey         string
	Origins        []string // nil: same origin
	Side           Side     // further listeners
	TrustedProxies []netip.Prefix

	Access
	DefaultRooms []string // never nil
	History      broker.HistoryRules

	Redis         string `json:"-"` // a URL that may hold a password; empty: no Redis
	RedisTimeout  time.Duration
	RedisPrefix   string
	RedisPatterns bool
	Resync        bool

	Resume         bool
	ResumeKey      string `json:"-"` // a secret, in base64
	ResumeKeyFile  string
	ResumeLifetime time.Duration

	AuthTimeout       time.Duration
	HeartbeatInterval time.Duration
	HeartbeatTimeout  time.Duration
	IdleTimeout       time.Duration
	CloseTimeout      time.Duration
	DrainDelay        time.Duration
	Drain             time.Duration
	ShutdownTimeout   time.Duration

	MaxPayload                int
	BackpressureLimit         int
	CloseOnBackpressure       bool
	MaxConnections            int
	MaxUnauthenticated        int
	MaxUnauthenticatedPerAddr int
	UnauthenticatedMessages   int
	UnauthenticatedPayload    int
	MaxRooms                  int
	RoomNames                 int
	ClientQueue               int
	SendQueue                 int
	MessageRate               int
	ByteRate                  int

	Transport   string
	Loops       int
	Compression bool
	Encryption  string

	PIDFile   string
	LogFormat string
	LogLevel  slog.Level
}

// Access is the part of a Config that decides about clients.
type Access struct {
	Auth    string
	JWT     JWT
	Webhook Webhook
	Rules   RoomRules
}

// Side configures the listeners that are not for clients.
type Side struct {
	Admin   string // address of the one for operators; empty: none
	API     string // address of the HTTP API; empty: none
	APIKeys string `json:"-"` // in the form of api.ParseKeys
}

// Sources are the sources of a configuration. The zero value gives the defaults.
type Sources struct {
	Flags   map[string][]string // by option name; only those on the command line
	Environ []string            // in the format of os.Environ; only HEARTH_* is used
	File    *string             // a YAML file; empty: none; nil: HEARTH_CONFIG, if it is set
}

// A Setting is the effective value of an option and its source.
type Setting struct {
	Option Option
	Values []string // one element, unless Option.List
	Source string   // "default", "hearth.yaml:3" (a file and a line), "HEARTH_LISTEN" or "--listen"

	layer  int     // the index of the layer that Source belongs to
	secret *string // the value from a file, if an option with Option.File names one
}

// An OptionError says which option has an invalid value, and how to fix it. Retrying does not help:
// the program was started with wrong options.
type OptionError struct {
	Option string // name of the option; empty if the error concerns the whole file
	Source string // as in Setting
	Value  string // the given value
	Reason string // the problem and the fix
}

func (e *OptionError) Error() string {
	switch {
	case e.Option == "":
		return fmt.Sprintf("%s: %s", e.Source, e.Reason)
	case e.Source == "--"+e.Option || e.Source == envName(e.Option):
		return fmt.Sprintf("%s=%q: %s", e.Source, e.Value, e.Reason)
	default:
		return fmt.Sprintf("%s: %q (from %s): %s", e.Option, e.Value, e.Source, e.Reason)
	}
}

// Load merges the sources. Flags, even empty ones, override the environment, which overrides the
// file, which overrides the defaults. The error joins one *OptionError per problem. The settings
// are in the order of Options.
func Load(src Sources) (Config, []Setting, error) {
	settings, err := load(src)
	if err != nil {
		return Config{}, nil, err
	}
	var c Config
	errs := apply(&c, settings, func(Option) bool { return true })
	if len(errs) == 0 {
		errs = check(c, settings)
	}
	return c, settings, errors.Join(errs...)
}

// load merges the sources without parsing the values.
func load(src Sources) ([]Setting, error) {
	env := environment(src.Environ)
	path, namedBy := env["config"], envName("config")
	if src.File != nil {
		path, namedBy = *src.File, "--config"
	}
	file, lines, err := readFile(path, namedBy)
	if err != nil {
		return nil, err
	}
	return merge(layers(src.Flags, env, file, func(option string) string { return place(path, lines[option]) }))
}

// apply sets the fields of c by those settings that selected accepts.
func apply(c *Config, settings []Setting, selected func(Option) bool) []error {
	errs := readSecrets(settings, selected)
	for _, s := range settings {
		if !selected(s.Option) {
			continue
		}
		values := s.Values
		if s.secret != nil {
			values = []string{*s.secret}
		}
		if err := s.Option.set(c, values); err != nil {
			errs = append(errs, s.optionError(err))
		}
	}
	return errs
}

// maxSecret is the largest size of a file with a secret, in bytes.
const maxSecret = 64 << 10

// readSecrets reads the files with secrets. A secret in a higher layer than the name of its file
// overrides it; in the same layer, setting both is an error.
func readSecrets(settings []Setting, selected func(Option) bool) []error {
	var errs []error
	for _, s := range settings {
		if !selected(s.Option) || s.Option.File == "" || s.Values[0] == "" {
			continue
		}
		i := slices.IndexFunc(settings, func(t Setting) bool { return t.Option.Name == s.Option.File })
		of := &settings[i]
		if of.layer > s.layer {
			continue
		}
		if of.layer == s.layer && of.Values[0] != "" {
			errs = append(errs, s.optionError(fmt.Errorf("%s is set too: set only one of them", of.Option.Name)))
			continue
		}
		value, err := readSecret(s.Values[0])
		if err != nil {
			errs = append(errs, s.optionError(err))
			continue
		}
		of.secret = &value
		of.Values = []string{""} // the file overrides a value of a lower layer
	}
	return errs
}

// readSecret returns the contents of a file without the line break at its end.
func readSecret(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the secret: %w", err)
	case len(b) > maxSecret:
		return "", fmt.Errorf("the file is larger than %d KiB", maxSecret>>10)
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if value == "" {
		return "", errors.New("the file is empty")
	}
	return value, nil
}

func (s Setting) optionError(err error) *OptionError {
	return &OptionError{Option: s.Option.Name, Source: s.Source, Value: s.Option.redacted(strings.Join(s.Values, ",")), Reason: err.Error()}
}

// redacted returns a value without its secrets: a URL without passwords, or redactedMark for any
// other secret.
func (o Option) redacted(value string) string {
	if !o.Secret || value == "" {
		return value
	}
	if !o.URL {
		return redactedMark
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme == "" || u.Opaque != "" || strings.Contains(value, "#") || strings.Contains(u.Path+u.RawQuery, "@") {
		return redactedMark // it is not clear which part is the password
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), redactedMark)
	}
	query := u.Query()
	for name, values := range query {
		for i := range values {
			if strings.Contains(strings.ToLower(name), "pass") {
				values[i] = redactedMark
			}
		}
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// redactedMark replaces a secret in output.
const redactedMark = "HIDDEN"

// environment returns the HEARTH_* variables by option name. An empty variable counts as not set:
// compose files and unit files pass empty variables for missing values.
func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, kv := range environ {
		name, value, ok := strings.Cut(kv, "=")
		if name, found := strings.CutPrefix(name, "HEARTH_"); ok && found && value != "" {
			env[strings.ReplaceAll(strings.ToLower(name), "_", "-")] = value
		}
	}
	return env
}

func envName(option string) string {
	return "HEARTH_" + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// MisspelledVariables returns a warning for each HEARTH_* variable that resembles an option. Other
// variables are not an error: Kubernetes, for example, sets HEARTH_PORT for a service named hearth.
func MisspelledVariables(environ []string) []string {
	var remarks []string
	for _, name := range slices.Sorted(maps.Keys(environment(environ))) {
		if _, known := lookup(name); known || name == "config" {
			continue
		}
		if near := Nearest(name); near != "" {
			remarks = append(remarks, fmt.Sprintf("%s is not an option; did you mean %s?", envName(name), envName(near)))
		}
	}
	return remarks
}

// readFile returns the top level of the file, and the line of each key. Options are not nested, so
// a nested value is rejected later. namedBy is the flag or the variable that holds the path.
func readFile(path, namedBy string) (map[string]any, map[string]int, error) {
	if path == "" {
		return nil, nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, &OptionError{Option: "config", Source: namedBy, Value: path, Reason: fmt.Sprintf("read file: %v", err)}
	}
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(b), yaml.Parser()); err != nil {
		return nil, nil, &OptionError{Source: path, Reason: fmt.Sprintf("not valid YAML: %v", err)}
	}
	lines := keyLines(b)
	fail := func(key, format string, args ...any) error {
		return &OptionError{Source: place(path, lines[key]), Reason: fmt.Sprintf(format, args...)}
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(k.Raw())) {
		if _, known := lookup(key); !known {
			errs = append(errs, fail(key, "unknown option %q%s", key, didYouMean(Nearest(key), ": run hearth serve --help for a list of options")))
		} else if k.Raw()[key] == nil {
			errs = append(errs, fail(key, "%s has no value: set it, or remove the line", key))
		}
	}
	return k.Raw(), lines, errors.Join(errs...)
}

// place names a line of a file. A key that comes from an alias has no line.
func place(path string, line int) string {
	if line == 0 {
		return path
	}
	return fmt.Sprintf("%s:%d", path, line)
}

// keyLines returns the line of each key at the top level of a YAML text, from 1.
func keyLines(text []byte) map[string]int {
	var document yamlv3.Node
	lines := map[string]int{}
	if err := yamlv3.Unmarshal(text, &document); err != nil || len(document.Content) != 1 {
		return lines
	}
	pairs := document.Content[0].Content
	for i := 0; i+1 < len(pairs); i += 2 {
		lines[pairs[i].Value] = pairs[i].Line
	}
	return lines
}

// A layer holds the values of one source.
type layer struct {
	values map[string]any
	source func(option string) string
}

func layers(given map[string][]string, env map[string]string, file map[string]any, place func(option string) string) []layer {
	constant := func(s string) func(string) string { return func(string) string { return s } }
	defaults, fromEnv, flags := map[string]any{}, map[string]any{}, map[string]any{}
	for _, o := range Options() {
		defaults[o.Name] = o.Default
		if v, ok := env[o.Name]; ok {
			fromEnv[o.Name] = v
		}
		if v, ok := given[o.Name]; ok {
			flags[o.Name] = v
		}
	}
	return []layer{
		{defaults, constant("default")},
		{file, place},
		{fromEnv, envName},
		{flags, func(o string) string { return "--" + o }},
	}
}

// merge merges the layers, where later layers override earlier ones, and records the source of each
// value.
func merge(ls []layer) ([]Setting, error) {
	k := koanf.New(".")
	for _, l := range ls {
		if err := k.Load(confmap.Provider(l.values, ""), nil); err != nil {
			return nil, fmt.Errorf("merge configuration: %w", err)
		}
	}
	var settings []Setting
	var errs []error
	for _, o := range Options() {
		s := Setting{Option: o}
		for i, l := range ls {
			if _, ok := l.values[o.Name]; ok {
				s.Source, s.layer = l.source(o.Name), i
			}
		}
		values, err := texts(k.Get(o.Name), o.List)
		if err != nil {
			errs = append(errs, &OptionError{Option: o.Name, Source: s.Source, Value: o.redacted(fmt.Sprint(k.Get(o.Name))), Reason: err.Error()})
		}
		s.Values = values
		settings = append(settings, s)
	}
	return settings, errors.Join(errs...)
}

// texts converts a value from any source to text. A list may also be text that is separated by
// commas.
func texts(v any, list bool) ([]string, error) {
	switch v := v.(type) {
	case []string: // a flag, once for each time it was given
		if !list {
			return v[len(v)-1:], nil
		}
		all := []string{}
		for _, s := range v {
			all = append(all, splitList(s)...)
		}
		return all, nil
	case []any:
		if !list {
			return nil, errors.New("takes one value, not a list")
		}
		all := make([]string, 0, len(v))
		for _, e := range v {
			t, err := texts(e, false)
			if err != nil {
				return nil, err
			}
			all = append(all, t...)
		}
		return all, nil
	case map[string]any, map[any]any, nil:
		return nil, errors.New("takes a single value: options are not nested")
	default:
		if s := fmt.Sprint(v); list {
			return splitList(s), nil
		} else {
			return []string{s}, nil
		}
	}
}

// splitList splits at commas. An empty text and "[]" are the empty list.
func splitList(s string) []string {
	if s = strings.TrimSpace(s); s == "" || s == "[]" {
		return []string{}
	}
	parts := strings.Split(s, ",")
	for i, p := range parts {
		parts[i] = strings.TrimSpace(p)
	}
	return parts
}

// WriteYAML formats settings as a file that Load accepts, with the source of each value in a
// comment. The output has no secrets: keys and certificates are file paths, and a password is
// HIDDEN, which Load rejects.
func WriteYAML(settings []Setting) string {
	var b strings.Builder
	b.WriteString("# Settings of hearth serve. Flags override HEARTH_* variables, which override the file, which overrides defaults.\n")
	for i, s := range settings {
		if i == 0 || settings[i-1].Option.Group != s.Option.Group {
			fmt.Fprintf(&b, "\n# %s\n", s.Option.Group)
		}
		fmt.Fprintf(&b, "%-60s # %s\n", s.Option.Name+": "+yamlValue(s), yamlComment(s.Source))
	}
	return b.String()
}

// yamlComment replaces line breaks in a path, which would end the comment.
func yamlComment(s string) string { return strings.Map(printableOr('?'), s) }
