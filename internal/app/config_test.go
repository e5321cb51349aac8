package app_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hearthws/hearth/internal/app"
)

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadDefaults(t *testing.T) {
	t.Parallel()
	c, settings, err := app.Load(app.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "localhost:8080" || c.Path != "/ws" || c.Auth != app.AuthDevelopment || c.Origins != nil {
		t.Errorf("listen %q, path %q, auth %q, origins %v", c.Listen, c.Path, c.Auth, c.Origins)
	}
	if c.HeartbeatTimeout != 90*time.Second || c.MaxPayload != 131072 || c.LogLevel != slog.LevelInfo {
		t.Errorf("heartbeat timeout %v, payload %d, level %v", c.HeartbeatTimeout, c.MaxPayload, c.LogLevel)
	}
	if len(settings) != len(app.Options()) {
		t.Errorf("%d settings for %d options", len(settings), len(app.Options()))
	}
	for _, s := range settings {
		if s.Source != "default" {
			t.Errorf("%s comes from %q", s.Option.Name, s.Source)
		}
	}
}

// TestLoadPrecedence sets one option in several layers: the highest layer must win.
func TestLoadPrecedence(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "hearth.yaml", "path: /file\nloops: 2\ndefault-rooms: [a, b]\ncompression: true\nauth-timeout: 1s\n")
	env := []string{"HEARTH_PATH=/env", "HEARTH_LOOPS=3", "HEARTH_DEFAULT_ROOMS=c, d", "HEARTH_LISTEN=", "UNRELATED=1"}
	flag := map[string][]string{"path": {"/flag"}, "compression": {"false"}}
	for _, tt := range []struct {
		name    string
		src     app.Sources
		path    string
		source  string
		loops   int
		rooms   []string
		deflate bool
	}{
		{"defaults", app.Sources{}, "/ws", "default", 1, []string{"ws-default", "ws-notification"}, false},
		{"file", app.Sources{File: new(file)}, "/file", file + ":1", 2, []string{"a", "b"}, true},
		{"environment over file", app.Sources{File: new(file), Environ: env}, "/env", "HEARTH_PATH", 3, []string{"c", "d"}, true},
		{"file named by the environment", app.Sources{Environ: []string{"HEARTH_CONFIG=" + file}}, "/file", file + ":1", 2, []string{"a", "b"}, true},
		{"flag over all", app.Sources{File: new(file), Environ: env, Flags: flag}, "/flag", "--path", 3, []string{"c", "d"}, false},
		{"no file over one named by the environment", app.Sources{File: new(""), Environ: []string{"HEARTH_CONFIG=" + file}}, "/ws", "default", 1, []string{"ws-default", "ws-notification"}, false},
		{"empty flag over all", app.Sources{File: new(file), Environ: env, Flags: map[string][]string{"default-rooms": {""}}}, "/env", "HEARTH_PATH", 3, []string{}, true},
		{"last flag wins", app.Sources{Flags: map[string][]string{"path": {"/x", "/y"}, "default-rooms": {"[]"}}}, "/y", "--path", 1, []string{}, false},
		{"lists add up", app.Sources{Flags: map[string][]string{"default-rooms": {"a,b", "c"}}}, "/ws", "default", 1, []string{"a", "b", "c"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, settings, err := app.Load(tt.src)
			if err != nil {
				t.Fatal(err)
			}
			if c.Path != tt.path || c.Loops != tt.loops || c.Compression != tt.deflate {
				t.Errorf("path %q, loops %d, compression %v", c.Path, c.Loops, c.Compression)
			}
			if d := cmp.Diff(tt.rooms, c.DefaultRooms); d != "" {
				t.Error(d)
			}
			if c.Listen != "localhost:8080" {
				t.Errorf("an empty variable was used: listen %q", c.Listen)
			}
			for _, s := range settings {
				if s.Option.Name == "path" && s.Source != tt.source {
					t.Errorf("path comes from %q, want %q", s.Source, tt.source)
				}
			}
		})
	}
}

// TestLoadErrors checks that an error names the option in the form in which it was given, and the
// fix.
func TestLoadErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		file  string
		env   string
		flags map[string][]string
		want  []string
	}{
		{"unknown key", "name: x\n\npth: /x", "", nil, []string{"hearth.yaml:3:", `"pth"`, `did you mean "path"`}},
		{"unknown key like none", "zzzzzzzzzz: 1", "", nil, []string{`"zzzzzzzzzz"`, "hearth serve --help"}},
		{"not YAML", "listen: [", "", nil, []string{"hearth.yaml", "not valid YAML"}},
		{"not a mapping", "- a\n- b", "", nil, []string{"hearth.yaml"}},
		{"key twice", "path: /a\npath: /b", "", nil, []string{"hearth.yaml", "path"}},
		{"no value", "path:", "", nil, []string{"hearth.yaml:1:", "path has no value"}},
		{"bad value after a list", "default-rooms:\n  - a\n  - b\nloops: many", "", nil, []string{"loops", "hearth.yaml:4", "whole number"}},
		{"nested", "listen: {host: localhost}", "", nil, []string{"listen", "not nested"}},
		{"list for one", "listen: [a, b]", "", nil, []string{"listen", "one value"}},
		{"several at once", "loops: 0\nmax-rooms: -1", "", nil, []string{"loops", "max-rooms"}},
		{"duration without unit", "auth-timeout: 30", "", nil, []string{"auth-timeout", "30s"}},
		{"negative duration", "", "HEARTH_CLOSE_TIMEOUT=-1s", nil, []string{"HEARTH_CLOSE_TIMEOUT", "at least 1ms"}},
		{"interval below a millisecond", "", "", map[string][]string{"heartbeat-interval": {"1ns"}}, []string{"--heartbeat-interval", "0, or at least 1ms"}},
		{"idle below a millisecond", "", "", map[string][]string{"idle-timeout": {"999us"}}, []string{"--idle-timeout", "0, or at least 1ms"}},
		{"negative where 0 is none", "", "", map[string][]string{"drain-delay": {"-1s"}}, []string{"--drain-delay", "0, or at least 1ms"}},
		{"resume key", "", "", map[string][]string{"resume": {"true"}, "resume-key": {"c2hvcnQ="}}, []string{"--resume-key", "32 random bytes", "openssl"}},
		{"resume key without resume", "", "HEARTH_RESUME_KEY=" + resumeKey, nil, []string{"HEARTH_RESUME_KEY", "no effect without resume"}},
		{"resume without a key", "", "", map[string][]string{"resume": {"true"}, "redis": {"redis://localhost"}}, []string{"--resume", "the same key"}},
		{"two resume keys", "resume: true\nresume-key-file: keys\n", "HEARTH_RESUME_KEY=" + resumeKey, nil, []string{"HEARTH_RESUME_KEY", "resume-key-file is set, too"}},
		{"no file of resume keys", "resume: true\nresume-key-file: /absent/keys\n", "", nil, []string{"resume-key-file", "/absent/keys"}},
		{"resume lifetime", "", "", map[string][]string{"resume-lifetime": {"25h"}}, []string{"--resume-lifetime", "1s to 24h"}},
		{"drain too long", "", "", map[string][]string{"drain": {"25s"}}, []string{"--drain", "shutdown-timeout (25s)"}},
		{"not a duration", "", "", map[string][]string{"idle-timeout": {"soon"}}, []string{"--idle-timeout", "as in 500ms"}},
		{"size", "", "", map[string][]string{"max-payload": {"lots"}}, []string{"--max-payload", "128KiB"}},
		{"size too large", "", "", map[string][]string{"max-payload": {"3GiB"}}, []string{"--max-payload", "at most 1GiB"}},
		{"size a little too large", "", "", map[string][]string{"max-payload": {"1073741825"}}, []string{"--max-payload", "at most 1GiB"}},
		{"size too small", "", "", map[string][]string{"backpressure-limit": {"10"}}, []string{"--backpressure-limit", "1024"}},
		{"switch", "compression: maybe", "", nil, []string{"compression", "true or false"}},
		{"choice", "", "", map[string][]string{"transport": {"udp"}}, []string{"--transport", "auto, epoll, netconn"}},
		{"auth", "", "", map[string][]string{"auth": {"tokens"}}, []string{"--auth", "development, anonymous, jwt"}},
		{"level", "", "", map[string][]string{"log-level": {"loud"}}, []string{"--log-level", "debug"}},
		{"no port", "", "", map[string][]string{"listen": {"localhost"}}, []string{"--listen", "localhost:8080"}},
		{"port", "", "", map[string][]string{"listen": {"localhost:http"}}, []string{"--listen", "65535"}},
		{"path", "", "", map[string][]string{"path": {"ws"}}, []string{"--path", "/ws"}},
		{"path taken", "", "", map[string][]string{"path": {"/healthz"}}, []string{"--path", "taken"}},
		{"path taken by the other", "", "", map[string][]string{"path": {"/readyz"}}, []string{"--path", "taken"}},
		{"redis", "", "", map[string][]string{"redis": {"localhost:6379"}}, []string{"--redis", "redis://:password@host:6379"}},
		{"redis as printed", "redis: redis://:HIDDEN@localhost:6379\n", "", nil, []string{"redis", "HIDDEN", "--print-config"}},
		{"sentinel as printed", "", "", map[string][]string{"redis": {"redis://h?master_set=m&sentinel_password=HIDDEN"}}, []string{"--redis", "the password itself"}},
		{"redis port", "", "", map[string][]string{"redis": {"redis://localhost:99999"}}, []string{"--redis", "a port that does not exist"}},
		{"redis timeout", "", "", map[string][]string{"redis-timeout": {"0"}}, []string{"--redis-timeout", "at least 1ms"}},
		{"path is a pattern", "", "", map[string][]string{"path": {"/{x}"}}, []string{"--path"}},
		{"origin", "", "", map[string][]string{"origins": {"https://a.example/x"}}, []string{"--origins", "https://example.com"}},
		{"any origin and more", "", "", map[string][]string{"origins": {"*,https://a.example"}}, []string{"--origins", "alone"}},
		{"room", "", "", map[string][]string{"default-rooms": {"ws:x"}}, []string{"--default-rooms", "ws:"}},
		{"room twice", "default-rooms: [a, b, a]", "", nil, []string{"default-rooms", "twice"}},
		{"history", "", "", map[string][]string{"history": {"a=1/1m,chat=0/5m"}}, []string{"--history", `"chat=0/5m"`, "1 to 100000"}},
		{"history without age", "history: ['chat:*=100']", "", nil, []string{"history", "has no age"}},
		{"history in a variable", "", "HEARTH_HISTORY=chat", nil, []string{"HEARTH_HISTORY", "chat:*=100/5m"}},
		{"proxy", "", "", map[string][]string{"trusted-proxies": {"10.0.0.0/99"}}, []string{"--trusted-proxies", "10.0.0.0/8"}},
		{"certificate without key", "", "", map[string][]string{"tls-cert": {"c.pem"}}, []string{`--tls-cert="c.pem"`, "--tls-key"}},
		{"key without certificate", "", "", map[string][]string{"tls-key": {"k.pem"}}, []string{`--tls-key="k.pem"`, "--tls-cert"}},
		{"resync of one server", "", "", map[string][]string{"resync": {"true"}}, []string{"--resync", "--redis redis://"}},
		{"prefix of nothing", "", "", map[string][]string{"redis-prefix": {"shop:"}}, []string{"--redis-prefix", "--redis redis://"}},
		{"prefix", "", "", map[string][]string{"redis": {"redis://h"}, "redis-prefix": {"shop*"}}, []string{"--redis-prefix", `"*"`}},
		{"patterns of nothing", "", "", map[string][]string{"redis-patterns": {"true"}}, []string{"--redis-patterns", "--redis redis://"}},
		{"no such certificate", "", "", map[string][]string{"tls-cert": {"nowhere.pem"}, "tls-key": {"nowhere.pem"}}, []string{"--tls-cert", "nowhere.pem"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			src := app.Sources{Flags: tt.flags}
			if tt.env != "" {
				src.Environ = []string{tt.env}
			}
			if tt.file != "" {
				src.File = new(writeFile(t, "hearth.yaml", tt.file))
			}
			_, _, err := app.Load(src)
			var option *app.OptionError
			if !errors.As(err, &option) {
				t.Fatalf("error %v is not an OptionError", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not contain %q", err, want)
				}
			}
		})
	}
}

func TestLoadMissingFile(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none.yaml")
	for want, src := range map[string]app.Sources{
		"--config=":      {File: new(none)},
		"HEARTH_CONFIG=": {Environ: []string{"HEARTH_CONFIG=" + none}},
	} {
		if _, _, err := app.Load(src); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error %v does not begin with %s", err, want)
		}
	}
}

// TestLoadRejectsOpenAddresses checks that in development mode the server listens only on addresses
// that other machines cannot reach.
func TestLoadRejectsOpenAddresses(t *testing.T) {
	t.Parallel()
	for listen, ok := range map[string]bool{
		"localhost:8080": true, "LOCALHOST:0": true, "127.0.0.1:8080": true, "127.9.9.9:1": true, "[::1]:8080": true,
		":8080": false, "0.0.0.0:8080": false, "[::]:8080": false, "192.168.1.5:80": false, "example.com:80": false,
		"localhost.example.com:80": false, "[::ffff:127.0.0.1]:80": true, "[::ffff:10.0.0.1]:80": false,
	} {
		_, _, err := app.Load(app.Sources{Flags: map[string][]string{"listen": {listen}}})
		if ok != (err == nil) {
			t.Errorf("--listen %s: %v", listen, err)
		}
		if err != nil && !(strings.Contains(err.Error(), "--listen localhost:") && strings.Contains(err.Error(), "development")) {
			t.Errorf("the error names neither the reason nor the fix: %v", err)
		}
	}
}

func TestMisspelledVariables(t *testing.T) {
	t.Parallel()
	remarks := app.MisspelledVariables([]string{
		"HEARTH_LISTN=x", "HEARTH_MAX_PAYLOAD=1", "HEARTH_CONFIG=x", // the first is misspelled
		"HEARTH_PORT_8080_TCP_ADDR=10.0.0.1", "HEARTH_SERVICE_HOST=10.0.0.1", "PATH=/bin", // set by Kubernetes
	})
	if d := cmp.Diff([]string{"HEARTH_LISTN is not an option; did you mean HEARTH_LISTEN?"}, remarks); d != "" {
		t.Error(d)
	}
}

// TestWriteYAMLRoundTrip checks that printed settings load again with the same values.
func TestWriteYAMLRoundTrip(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string]map[string][]string{
		"defaults": nil,
		"odd": {
			"name": {"null"}, "default-rooms": {"a: b", "ünï \"x\" #1"}, "max-payload": {"64KiB"}, "origins": {"https://a.example,http://b.example:81"},
			"trusted-proxies": {"10.0.0.0/8", "::1"}, "compression": {"yes"}, "log-level": {"debug"}, "listen": {"[::1]:0"}, "loops": {"012"}, "history": {"chat:*=100/5m", "a=b=1/1s"},
		},
		"number as a name": {"name": {"1e3"}, "default-rooms": {}},
		"hex as a name":    {"name": {"0x10"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, settings, err := app.Load(app.Sources{Flags: flags})
			if err != nil {
				t.Fatal(err)
			}
			text := app.WriteYAML(settings)
			got, _, err := app.Load(app.Sources{File: new(writeFile(t, "printed.yaml", text))})
			if err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			if d := cmp.Diff(want, got, cmp.Comparer(func(a, b interface{ String() string }) bool { return a.String() == b.String() })); d != "" {
				t.Error(d)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("listen: localhost:1\nloops: 3\n")
	f.Add("default-rooms: [a, b]\nmax-payload: 1KiB")
	f.Add("auth-timeout: 1s\n? {a: b}\n: c")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want, settings, err := app.Load(app.Sources{File: new(path)})
		if err != nil {
			return
		}
		if err := os.WriteFile(path, []byte(app.WriteYAML(settings)), 0o600); err != nil {
			t.Fatal(err)
		}
		got, _, err := app.Load(app.Sources{File: new(path)})
		if err != nil {
			t.Fatalf("the printed settings are rejected: %v\n%s", err, app.WriteYAML(settings))
		}
		if got.Listen != want.Listen || got.Name != want.Name || got.MaxPayload != want.MaxPayload || got.AuthTimeout != want.AuthTimeout {
			t.Errorf("printed and loaded again: %+v, before %+v", got, want)
		}
	})
}

// resumeKey is 32 bytes in base64.
const resumeKey = "czNjcmV0czNjcmV0czNjcmV0czNjcmV0czNjcmV0MDA="

// TestResumeKeys checks where keys for tickets come from, and that they are not shown.
func TestResumeKeys(t *testing.T) {
	t.Parallel()
	const other = "b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm90aGVyMDA="
	flag := func(name, value string) map[string][]string {
		return map[string][]string{"resume": {"true"}, name: {value}}
	}
	for name, src := range map[string]app.Sources{
		"flag":     {Flags: flag("resume-key", resumeKey)},
		"variable": {Environ: []string{"HEARTH_RESUME=true", "HEARTH_RESUME_KEY=" + resumeKey}},
		"file":     {File: new(writeFile(t, "hearth.yaml", "resume: true\nresume-key: "+resumeKey+"\n"))},
		"key file": {Flags: flag("resume-key-file", writeFile(t, "keys", resumeKey+"\n\n "+other+"\r\n"))},
	} {
		c, settings, err := app.Load(src)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if shown := app.WriteYAML(settings) + fmt.Sprintf("%+v", settings[0]); strings.Contains(shown, resumeKey) {
			t.Errorf("%s: %s", name, shown)
		}
		if _, err := app.New(c, slog.New(slog.DiscardHandler)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, content := range map[string]string{"no base64": resumeKey + "\n!" + other, "short": "c2hvcnQ=", "empty": "\n\n"} {
		_, _, err := app.Load(app.Sources{Flags: flag("resume-key-file", writeFile(t, "keys", content))})
		if err == nil || strings.Contains(err.Error(), other) || strings.Contains(err.Error(), resumeKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSecretsAreNotShown checks that neither --print-config nor an error shows a password.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"redis://:s3cret@localhost:6379", "redis://me:s3cret@localhost/0", "redis://localhost?sentinel_password=s3cret&master_set=x",
		"redis://:s3cret@localhost:6379?nothing=known", "s3cret", "redis://:s3cr%zzet@h", "http://u:s3cret@h", "redis://:s3cret@h/x",
		"redis://:12?s3cret@h", "redis://:12#s3cret@h", "redis://:12/s3cret@h", "redis://h:12?db=1&s3cret@h",
	} {
		for name, src := range map[string]app.Sources{
			"flag": {Flags: map[string][]string{"redis": {url}}}, "variable": {Environ: []string{"HEARTH_REDIS=" + url}},
			"file": {File: new(writeFile(t, "hearth.yaml", "redis: \""+url+"\"\n"))}, "list": {File: new(writeFile(t, "hearth.yaml", "redis: [\""+url+"\"]\n"))},
		} {
			_, settings, err := app.Load(src)
			shown := fmt.Sprint(err)
			if err == nil {
				shown += app.WriteYAML(settings)
			}
			if strings.Contains(shown, "s3cr") {
				t.Errorf("%s %s: %s", name, url, shown)
			}
		}
	}
	_, settings, err := app.Load(app.Sources{Flags: map[string][]string{"redis": {"redis://me:s3cret@localhost:6379/1"}}})
	if err != nil || !strings.Contains(app.WriteYAML(settings), "redis://me:HIDDEN@localhost:6379/1") {
		t.Errorf("%v, %s", err, app.WriteYAML(settings))
	}
}
