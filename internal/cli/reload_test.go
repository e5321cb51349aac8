//go:build unix

package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	"github.com/hearthws/hearth/internal/cli"
)

// rejected connects with a token, and reports whether the server rejects it.
func (p *process) rejected(token string) bool {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c, _, err := websocket.Dial(ctx, strings.Replace(p.url, "http", "ws", 1)+"ws", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"event":"authenticate","data":{"token":%q}}`, token)); err != nil {
		p.t.Fatal(err)
	}
	_, b, err := c.Read(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	return !strings.Contains(string(b), `"connected"`)
}

// token returns a token of ada.
func token(t *testing.T, secret string) string {
	t.Helper()
	code, out, stderr := run(nil, "token", "create", "--user", "ada", "--jwt-secret", secret)
	if code != cli.ExitOK {
		t.Fatal(stderr)
	}
	return strings.TrimSpace(out)
}

// TestReload replaces a secret and other options of a running server.
func TestReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config, secretFile, pidFile := filepath.Join(dir, "hearth.yaml"), filepath.Join(dir, "secret"), filepath.Join(dir, "pid")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other := strings.Repeat("x", 32)
	common := fmt.Sprintf("auth: jwt\njwt-secret-file: %s\npid-file: %s\n", secretFile, pidFile)
	write(secretFile, secret)
	write(config, common)
	reload := func() {
		t.Helper()
		if code, _, stderr := run(nil, "reload", "--config", config); code != cli.ExitOK {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
	}
	p := start(t, "--config", config)
	if p.rejected(token(t, secret)) || !p.rejected(token(t, other)) {
		t.Fatal("the first secret is not in effect")
	}

	write(secretFile, other)
	write(config, common+"log-level: debug\norigins: https://a.example\nloops: 2\n")
	reload()
	if got := p.until("changes of these options")["options"]; got != "loops" {
		t.Errorf("after a restart: %v", got)
	}
	if got := p.until("loaded the configuration again")["changed"]; got != "origins,jwt-secret,log-level" {
		t.Errorf("changed %v", got)
	}
	if !p.rejected(token(t, secret)) || p.rejected(token(t, other)) {
		t.Error("the second secret is not in effect")
	}
	p.until("client connected") // at level DEBUG

	// With a mistake, nothing changes: hearth reload reports it, and the server does, too.
	write(secretFile, secret)
	write(config, common+"log-level: loud\n")
	if code, _, stderr := run(nil, "reload", "--config", config); code != cli.ExitUsage || !strings.Contains(stderr, "hearth.yaml:4") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	p.signal(syscall.SIGHUP)
	if got := fmt.Sprint(p.until("cannot load the configuration")["error"]); !strings.Contains(got, "log-level") {
		t.Errorf("error %s", got)
	}
	if !p.rejected(token(t, secret)) {
		t.Error("a mistake in the file changed the secret")
	}
	// Options that do not fit to those that need a restart are a mistake, too.
	write(config, fmt.Sprintf("auth: development\npid-file: %s\n", pidFile))
	p.signal(syscall.SIGHUP)
	if got := fmt.Sprint(p.until("cannot load the configuration")["error"]); !strings.Contains(got, "tokens need a key") {
		t.Errorf("error %s", got)
	}
	if p.rejected(token(t, other)) {
		t.Error("the secret is lost")
	}

	p.signal(os.Interrupt)
	if code := p.wait(); code != cli.ExitOK {
		t.Errorf("exit code %d", code)
	}
	if code, _, stderr := run(nil, "reload", "--pid-file", pidFile); code != cli.ExitFailed || !strings.Contains(stderr, "no server runs") {
		t.Errorf("after the end: exit code %d: %s", code, stderr)
	}
	write(pidFile, fmt.Sprintln(os.Getpid()))
	if code, _, stderr := run(nil, "reload", "--pid-file", pidFile); code != cli.ExitFailed || !strings.Contains(stderr, "left over") {
		t.Errorf("with a file that is left over: exit code %d: %s", code, stderr)
	}
	if code, _, stderr := run(nil, "reload"); code != cli.ExitUsage || !strings.Contains(stderr, "--pid-file") {
		t.Errorf("without a file: exit code %d: %s", code, stderr)
	}
}
