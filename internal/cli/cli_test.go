package cli_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hearthws/hearth/internal/cli"
)

var update = flag.Bool("update", false, "write the golden files anew")

// mainVariable makes the test binary run as hearth. Tests start it that way as a process that they
// can send signals to.
const mainVariable = "CLI_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" {
		os.Exit(cli.Run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// run runs a command line and returns when it ends.
func run(environ []string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = cli.Run(args, environ, &out, &err)
	return code, out.String(), err.String()
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"hearth.txt":       {"--help"},
		"hearth-serve.txt": {"serve", "--help"},
		"hearth-emit.txt":  {"emit", "--help"},

		"hearth-config.txt":        {"config", "--help"},
		"hearth-reload.txt":        {"reload", "--help"},
		"hearth-token.txt":         {"token", "--help"},
		"hearth-token-create.txt":  {"token", "create", "--help"},
		"hearth-token-inspect.txt": {"token", "inspect", "--help"},
		"hearth-token-grant.txt":   {"token", "grant", "--help"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, got, stderr := run(nil, args...)
			if code != cli.ExitOK || stderr != "" {
				t.Errorf("exit code %d, stderr %q", code, stderr)
			}
			golden := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("help differs from %s (go test ./internal/cli -update rewrites it):\n%s", golden, d)
			}
			for line := range strings.Lines(got) {
				if len(strings.TrimRight(line, "\n")) > 92 {
					t.Errorf("line is too long: %q", line)
				}
			}
		})
	}
}

const secret = "0123456789abcdef0123456789abcdef"

// TestToken creates tokens and inspects them with other options.
func TestToken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	privateKey := file("private.pem", block("PRIVATE KEY", der, err))
	der, err = x509.MarshalPKIXPublicKey(private.Public())
	publicKey := file("public.pem", block("PUBLIC KEY", der, err))
	for _, tt := range []struct {
		name            string
		create, inspect []string
		code            int
		want            []string
	}{
		{"secret", []string{"--jwt-secret", secret, "--room", "lobby", "--claim", "team=red", "--claim", "n=7"}, []string{"--jwt-secret", secret},
			cli.ExitOK, []string{`"sub": "ada"`, `"lobby"`, `"team": "red"`, `"n": 7`, "exp: expires", "accepted"}},
		{"secret file", []string{"--jwt-secret-file", file("secret", secret+"\n"), "--jwt-user-claim", "uid"}, []string{"--jwt-secret", secret, "--jwt-user-claim", "uid"},
			cli.ExitOK, []string{`"uid": "ada"`, "accepted"}},
		{"another secret", []string{"--jwt-secret", secret}, []string{"--jwt-secret", strings.Repeat("x", 32)}, cli.ExitFailed, []string{"signature"}},
		{"no key", []string{"--jwt-secret", secret}, nil, cli.ExitOK, []string{"not verified"}},
		{"audience and issuer", []string{"--jwt-secret", secret, "--jwt-audience", "a,b", "--jwt-issuer", "i"}, []string{"--jwt-secret", secret, "--jwt-audience", "a", "--jwt-issuer", "i"},
			cli.ExitOK, []string{`"aud": "a"`, `"iss": "i"`, "accepted"}},
		{"another audience", []string{"--jwt-secret", secret, "--jwt-audience", "b"}, []string{"--jwt-secret", secret, "--jwt-audience", "a"}, cli.ExitFailed, []string{"audience"}},
		{"key pair", []string{"--private-key", privateKey, "--key-id", "k1"}, []string{"--jwt-public-key", publicKey}, cli.ExitOK, []string{`"kid": "k1"`, "EdDSA", "accepted"}},
		{"escape sequences", []string{"--jwt-secret", secret, "--claim", "x=\x1b[2J"}, []string{"--jwt-secret", secret}, cli.ExitOK, []string{"accepted"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, token, stderr := run(nil, append([]string{"token", "create", "--user", "ada"}, tt.create...)...)
			if code != cli.ExitOK || strings.Count(token, ".") != 2 {
				t.Fatalf("create: exit code %d, %q, %s", code, token, stderr)
			}
			code, stdout, stderr := run(nil, append([]string{"token", "inspect", strings.TrimSpace(token)}, tt.inspect...)...)
			if code != tt.code || strings.Contains(stdout, "\x1b") {
				t.Errorf("inspect: exit code %d, %q", code, stdout)
			}
			for _, want := range tt.want {
				if !strings.Contains(stdout+stderr, want) {
					t.Errorf("no %q in %s%s", want, stdout, stderr)
				}
			}
		})
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		env  []string
		code int
		out  string // in stdout
		err  string // in stderr
	}{
		{"no command", nil, nil, cli.ExitOK, "hearth serve", ""},
		{"version", []string{"version"}, nil, cli.ExitOK, "hearth ", ""},
		{"version flag", []string{"--version"}, nil, cli.ExitOK, "hearth ", ""},
		{"help command", []string{"help", "serve"}, nil, cli.ExitOK, "--max-payload", ""},
		{"help for nothing", []string{"help", "versio"}, nil, cli.ExitUsage, "", `did you mean "version"?`},
		{"misspelled command", []string{"srve"}, nil, cli.ExitUsage, "", `did you mean "serve"?`},
		{"misspelled longer", []string{"versoin"}, nil, cli.ExitUsage, "", `did you mean "version"?`},
		{"unknown command", []string{"frobnicate"}, nil, cli.ExitUsage, "", `unknown command "frobnicate"`},
		{"argument", []string{"serve", "localhost:80"}, nil, cli.ExitUsage, "", "takes no argument"},
		{"misspelled flag", []string{"serve", "--listn", "x"}, nil, cli.ExitUsage, "", "did you mean --listen?"},
		{"unknown flag", []string{"serve", "--zzzzzzzz"}, nil, cli.ExitUsage, "", "hearth serve --help"},
		{"flag without value", []string{"serve", "--listen"}, nil, cli.ExitUsage, "", "--listen"},
		{"open address", []string{"serve", "--listen", "0.0.0.0:8080"}, nil, cli.ExitUsage, "", "--listen localhost:8080"},
		{"open address by variable", []string{"serve"}, []string{"HEARTH_LISTEN=:80"}, cli.ExitUsage, "", "HEARTH_LISTEN="},
		{"missing file", []string{"serve", "--config", "nowhere.yaml"}, nil, cli.ExitUsage, "", "nowhere.yaml"},
		{"switch", []string{"serve", "--compression", "--print-config"}, nil, cli.ExitOK, "compression: true", ""},
		{"print", []string{"serve", "--print-config", "--loops", "2"}, []string{"HEARTH_NAME=x"}, cli.ExitOK, "loops: 2", ""},
		{"print, empty flag over variable", []string{"serve", "--print-config", "--redis", ""}, []string{"HEARTH_REDIS=redis://h:1"}, cli.ExitOK, `redis: "" `, ""},
		{"print, no file over variable", []string{"serve", "--print-config", "--config="}, []string{"HEARTH_CONFIG=nowhere.yaml"}, cli.ExitOK, "loops: 1 ", ""},
		{"print names sources", []string{"serve", "--print-config"}, []string{"HEARTH_NAME=x"}, cli.ExitOK, "# HEARTH_NAME", ""},
		{"print names misspelled variables", []string{"serve", "--print-config"}, []string{"HEARTH_MAX_PAYLOD=1"}, cli.ExitOK, "max-payload: 128KiB", "did you mean HEARTH_MAX_PAYLOAD?"},
		{"config check", []string{"config", "check", "--loops", "2"}, nil, cli.ExitOK, "ok\n", ""},
		{"config check finds mistakes", []string{"config", "check"}, []string{"HEARTH_LOOPS=x"}, cli.ExitUsage, "", "HEARTH_LOOPS="},
		{"config check names misspelled variables", []string{"config", "check"}, []string{"HEARTH_MAX_PAYLOD=1"}, cli.ExitOK, "ok", "did you mean HEARTH_MAX_PAYLOAD?"},
		{"config print", []string{"config", "print"}, []string{"HEARTH_NAME=x"}, cli.ExitOK, "# HEARTH_NAME", ""},
		{"config schema", []string{"config", "schema"}, nil, cli.ExitOK, `"max-payload"`, ""},
		{"config schema with an argument", []string{"config", "schema", "x"}, nil, cli.ExitUsage, "", "takes no arguments"},
		{"misspelled config command", []string{"config", "chek"}, nil, cli.ExitUsage, "", `did you mean "check"?`},
		{"token without a user", []string{"token", "create"}, nil, cli.ExitUsage, "", "--user ada"},
		{"token without a key", []string{"token", "create", "--user", "ada"}, nil, cli.ExitUsage, "", "no key to sign with"},
		{"token with bad metadata", []string{"token", "create", "--user", "ada", "--metadata", "{", "--jwt-secret", secret}, nil, cli.ExitUsage, "", "not JSON"},
		{"token with a bad claim", []string{"token", "create", "--user", "ada", "--claim", "x", "--jwt-secret", secret}, nil, cli.ExitUsage, "", "NAME=VALUE"},
		{"token with a short secret", []string{"token", "create", "--user", "ada"}, []string{"HEARTH_JWT_SECRET=short"}, cli.ExitUsage, "", "at least 32"},
		{"token with a bad option", []string{"token", "create", "--user", "ada", "--jwt-leeway", "1"}, nil, cli.ExitUsage, "", "--jwt-leeway"},
		{"grant", []string{"token", "grant", "--room", "lobby", "--grant-secret", secret}, nil, cli.ExitOK, "eyJ", ""},
		{"grant without a room", []string{"token", "grant", "--grant-secret", secret}, nil, cli.ExitUsage, "", "--room"},
		{"grant without a secret", []string{"token", "grant", "--room", "lobby"}, nil, cli.ExitUsage, "", "grant-secret-file"},
		{"grant for long", []string{"token", "grant", "--room", "lobby", "--grant-secret", secret, "--lifetime", "2h"}, nil, cli.ExitUsage, "", "1h"},
		{"inspect nothing", []string{"token", "inspect"}, nil, cli.ExitUsage, "", "which token?"},
		{"inspect rubbish", []string{"token", "inspect", "rubbish"}, nil, cli.ExitFailed, "", "three parts"},
		{"print checks too", []string{"serve", "--print-config", "--loops", "x"}, nil, cli.ExitUsage, "", "--loops"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := run(tt.env, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.out) || !strings.Contains(stderr, tt.err) {
				t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
			}
			if tt.err == "" && stderr != "" {
				t.Errorf("stderr %q", stderr)
			}
		})
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	code, _, stderr := run(nil, "serve", "--listen", ln.Addr().String())
	if code != cli.ExitFailed || !strings.Contains(stderr, ln.Addr().String()) || !strings.Contains(stderr, "--listen") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}
