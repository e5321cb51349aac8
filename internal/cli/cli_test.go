package cli_test

import (
	"bytes"
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
