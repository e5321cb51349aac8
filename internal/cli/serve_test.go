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

// A process is a hearth of its own.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	logs chan map[string]any // closed at the end of stderr
	url  string
	met  bool // another one: until has come by that

	ended *child.Process
}

// met is what a server says that has heard of another one.
const met = "another node is there"

// limit is how long anything here may take.
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
	p.ended, err = child.Start(p.cmd, func() { // until the end of stderr, which wait waits for
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

// until reads the log up to a message that begins so.
func (p *process) until(message string) map[string]any {
	p.t.Helper()
	timeout := time.After(limit)
	for {
		select {
		case record, ok := <-p.logs:
			if !ok {
				p.t.Fatalf("the process ended without saying %q", message)
			}
			s, _ := record["msg"].(string)
			p.met = p.met || s == met
			if strings.HasPrefix(s, message) {
				return record
			}
		case <-timeout:
			p.t.Fatalf("nothing in the log begins with %q", message)
		}
	}
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// signalUntil goes on until the log says that message: the first repeats may come too soon to count.
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
			_ = p.cmd.Process.Signal(sig) // it may have ended by now
		case <-timeout:
			p.t.Fatalf("the log does not say %q", message)
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

// connect signs in a client.
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
			for err == nil { // presence and the like come first
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

// While it drains a server says so to load balancers; a second signal does not wait for that to end.
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
			p.signalUntil(sig, "ending at once")
			if code := p.wait(); code != 128+int(sig) {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// What sends a signal to a process and to its group, as timeout(1) does, has not asked twice.
func TestServeRepeatedSignal(t *testing.T) {
	t.Parallel()
	p := start(t, "--drain-delay", "100ms")
	// Stopped meanwhile, it gets both at the same time, however late this process comes to send the second.
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCONT} {
		p.signal(sig)
	}
	if code := p.wait(); code != cli.ExitOK {
		t.Errorf("exit code %d", code)
	}
}

// A client that never answers the close is cut off when the time is over, and the exit code tells.
func TestServeCutShort(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	p := start(t, "--close-timeout", "1h", "--shutdown-timeout", "200ms")
	p.connect(ctx) // and reads no more
	p.signal(syscall.SIGTERM)
	p.until("some clients were cut off")
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
