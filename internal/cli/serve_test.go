//go:build unix

package cli_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/hearthws/hearth/internal/cli"
	"github.com/hearthws/hearth/internal/test/child"
)

// A process is a running hearth serve.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	logs chan map[string]any // closed at the end of stderr
	url  string
	met  bool // whether until has read the log line met

	ended *child.Process
}

// met is the message that a server logs when it discovers another server.
const met = "another node joined"

// limit bounds every wait in these tests.
const limit = time.Minute

func start(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	t.Cleanup(cancel)
	p := &process{t: t, logs: make(chan map[string]any, 100)}
	p.cmd = exec.CommandContext(ctx, os.Args[0], append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	p.cmd.Env = append(os.Environ(), mainVariable+"=1")
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.ended, err = child.Start(p.cmd, func() { // ends at the end of stderr; wait waits for it
		defer close(p.logs)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			var record map[string]any
			if err := json.Unmarshal(s.Bytes(), &record); err != nil {
				record = map[string]any{"msg": s.Text()}
			}
			p.logs <- record
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		for range p.logs {
		}
		_ = p.ended.Wait()
	})
	p.url = p.until("serving")["url"].(string)
	return p
}

// until reads the log up to a line whose message starts with message.
func (p *process) until(message string) map[string]any {
	p.t.Helper()
	timeout := time.After(limit)
	for {
		select {
		case record, ok := <-p.logs:
			if !ok {
				p.t.Fatalf("the process ended without logging %q", message)
			}
			s, _ := record["msg"].(string)
			p.met = p.met || s == met
			if strings.HasPrefix(s, message) {
				return record
			}
		case <-timeout:
			p.t.Fatalf("no message in the log starts with %q", message)
		}
	}
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// signalUntil repeats the signal until the log has that message. The server may ignore the first
// repetitions, because they follow too soon.
func (p *process) signalUntil(sig os.Signal, message string) {
	p.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(limit)
	for {
		select {
		case record, ok := <-p.logs:
			if !ok || record["msg"] == message {
				return
			}
		case <-tick.C:
			_ = p.cmd.Process.Signal(sig) // the process may have ended
		case <-timeout:
			p.t.Fatalf("the log does not have %q", message)
		}
	}
}

// wait returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	for range p.logs {
	}
	err := p.ended.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// connect returns a connection of an authenticated client.
func (p *process) connect(ctx context.Context) *websocket.Conn {
	p.t.Helper()
	c, _, err := websocket.Dial(ctx, strings.Replace(p.url, "http", "ws", 1)+"ws", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.CloseNow() })
	if err := c.Write(ctx, websocket.MessageText, []byte(`{"event":"authenticate","data":{"name":"ada"}}`)); err != nil {
		p.t.Fatal(err)
	}
	_, b, err := c.Read(ctx)
	if err != nil || !strings.Contains(string(b), `"connected"`) {
		p.t.Fatalf("got %s, %v", b, err)
	}
	return c
}

func TestServeDrains(t *testing.T) {
	t.Parallel()
	for name, sig := range map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGINT": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			p := start(t)
			c := p.connect(ctx)
			p.signal(sig)
			var err error
			for err == nil { // presence and other events come first
				_, _, err = c.Read(ctx)
			}
			var closed websocket.CloseError
			if !errors.As(err, &closed) || closed.Code != 1001 || closed.Reason != "Server shutting down" {
				t.Errorf("the client saw %v", err)
			}
			p.until("drained")
			if code := p.wait(); code != cli.ExitOK {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestServeSpreadsDrain checks that the server does not close all of its clients at once.
func TestServeSpreadsDrain(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	p := start(t, "--drain", "59m", "--shutdown-timeout", "1h")
	clients := make([]*websocket.Conn, 100) // for a second
	for i := range clients {
		clients[i] = p.connect(ctx)
	}
	begun := time.Now()
	p.signal(syscall.SIGTERM)
	for _, c := range clients {
		for {
			if _, _, err := c.Read(ctx); err != nil {
				break
			}
		}
	}
	p.until("drained")
	if took := time.Since(begun); took < 900*time.Millisecond {
		t.Errorf("closing 100 clients took %v, want about a second", took)
	}
	if code := p.wait(); code != cli.ExitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestServeSecondSignal checks that a draining server is unhealthy for load balancers, and that a
// second signal ends it during drain-delay.
func TestServeSecondSignal(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			p := start(t, "--drain-delay", "1h")
			if code := health(t, p.url); code != http.StatusOK {
				t.Errorf("health %d", code)
			}
			p.signal(syscall.SIGTERM)
			p.until("draining")
			if code := health(t, p.url); code != http.StatusServiceUnavailable {
				t.Errorf("health %d while draining", code)
			}
			p.signalUntil(sig, "second signal: exiting now")
			if code := p.wait(); code != 128+int(sig) {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestServeRepeatedSignal sends a signal to the process twice at once, as timeout(1) does when it
// signals the process and its group. That counts as one signal.
func TestServeRepeatedSignal(t *testing.T) {
	t.Parallel()
	p := start(t, "--drain-delay", "100ms")
	// The stopped process receives both signals at the same time, even if this test sends the
	// second one late.
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCONT} {
		p.signal(sig)
	}
	if code := p.wait(); code != cli.ExitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestServeCutShort checks that a client that never answers the close frame is cut off after
// shutdown-timeout, and that the exit code is 1.
func TestServeCutShort(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	p := start(t, "--close-timeout", "1h", "--drain", "0", "--shutdown-timeout", "200ms")
	p.connect(ctx) // it reads nothing more
	p.signal(syscall.SIGTERM)
	p.until("shutdown timed out: some connections were cut off")
	if code := p.wait(); code != cli.ExitFailed {
		t.Errorf("exit code %d", code)
	}
}

func health(t *testing.T, url string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}
