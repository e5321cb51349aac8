// Package clocks_test runs servers whose wall clock is stepped, and servers that stand still for a
// while. Timeouts must include neither.
package clocks_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/hearthws/hearth/internal/test/child"
)

// timeout is how long a test waits for something that must happen.
const timeout = time.Minute

// A server is a running program.
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Writer
	out  *bufio.Reader
	addr string
}

// build compiles the server.
func build(t *testing.T, flags ...string) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "server")
	args := append(append([]string{"build"}, flags...), "-o", program, "./server")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return program
}

// steppable compiles the server with a package time whose wall reading the program can move. The
// monotonic reading is left alone, as when NTP or an administrator sets the clock.
func steppable(t *testing.T) (program string) {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Skip("needs the sources of the standard library: ", err)
	}
	const reading = "sec, nsec, mono := runtimeNow()\n"
	begin := strings.Index(string(text), "\nfunc Now() Time {\n")
	if begin < 0 || !strings.Contains(string(text[begin:]), reading) {
		t.Skip("time.Now is not written as this test expects")
	}
	changed := string(text[:begin]) + strings.Replace(string(text[begin:]), reading, reading+"\tsec += WallStep\n", 1) +
		"\n// WallStep moves the wall clock, in seconds.\nvar WallStep int64\n"
	dir := t.TempDir()
	replacement := filepath.Join(dir, "time.txt")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: replacement}})
	if err == nil {
		err = errors.Join(os.WriteFile(replacement, []byte(changed), 0o600), os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	return build(t, "-overlay", filepath.Join(dir, "overlay.json"), "-tags", "stepclock")
}

// start runs a server until the test ends. Its configuration has durations.
func start(t *testing.T, program string, config map[string]any) *server {
	t.Helper()
	arg, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, string(arg))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	process, err := child.Start(cmd, func() { <-over })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		close(over)
		if err := process.Wait(); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	s := &server{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	s.addr = s.line()
	return s
}

func (s *server) line() string {
	s.t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatalf("server: %v", err)
	}
	return strings.TrimSpace(line)
}

// do sends a command. It returns the age of the oldest connection and of the oldest last activity.
func (s *server) do(command string) (connected, active time.Duration) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, command); err != nil {
		s.t.Fatal(err)
	}
	var c, a int64
	if _, err := fmt.Sscan(s.line(), &c, &a); err != nil {
		s.t.Fatal(err)
	}
	return time.Duration(c) * time.Millisecond, time.Duration(a) * time.Millisecond
}

// clients are connections to a server.
type clients struct {
	mu    sync.Mutex
	ended []error
	done  sync.WaitGroup
}

// add connects n clients. Each sends messages, then heartbeats at the interval if it is not zero,
// and reads until its connection ends.
func (c *clients) add(s *server, n int, interval time.Duration, messages ...string) {
	s.t.Helper()
	for range n {
		ctx := s.t.Context()
		conn, _, err := websocket.Dial(ctx, "ws://"+s.addr+"/ws", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { _ = conn.CloseNow() })
		for _, message := range messages {
			if err := conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
				s.t.Fatal(err)
			}
		}
		if len(messages) > 0 {
			if _, _, err := conn.Read(ctx); err != nil {
				s.t.Fatal(err)
			}
		}
		beats, stop := context.WithCancel(ctx)
		c.done.Go(func() { // ends with the connection
			defer stop()
			for {
				if _, _, err := conn.Read(ctx); err != nil {
					c.mu.Lock()
					c.ended = append(c.ended, err)
					c.mu.Unlock()
					return
				}
			}
		})
		if interval > 0 {
			c.done.Go(func() { // ends with the connection
				tick := time.NewTicker(interval)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						_ = conn.Write(ctx, websocket.MessageText, []byte(`{"event":"heartbeat"}`))
					case <-beats.Done():
						return
					}
				}
			})
		}
	}
}

func (c *clients) ends() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

const authenticate = `{"event":"authenticate"}`

// TestStepForward steps the wall clock by more than any timeout. No client has been silent for that
// long, so none may be closed.
func TestStepForward(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	s := start(t, steppable(t), map[string]any{"AuthTimeout": time.Minute, "HeartbeatInterval": 50 * time.Millisecond, "IdleTimeout": 60 * time.Second})
	var c clients
	c.add(s, 5, 500*time.Millisecond, authenticate)
	c.add(s, 1, 0)
	s.do("step 1000")
	sleep(4 * time.Second) // a sixteenth of IdleTimeout
	if ends := c.ends(); len(ends) != 0 {
		t.Errorf("%d of 6 clients were closed, one with: %v", len(ends), ends[0])
	}
	if connected, active := s.do("times"); connected > timeout || active > timeout {
		t.Errorf("connected %v ago, last active %v ago", connected, active)
	}
}

// TestStepBack steps the wall clock back. Silent clients must be closed all the same.
func TestStepBack(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	s := start(t, steppable(t), map[string]any{"HeartbeatInterval": 50 * time.Millisecond, "HeartbeatTimeout": time.Second, "AuthTimeout": 3 * time.Second})
	var c clients
	c.add(s, 1, 0, authenticate)
	c.add(s, 1, 0)
	s.do("step -1000")
	for end := time.Now().Add(timeout); len(c.ends()) < 2; sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of two silent clients were closed within %v", len(c.ends()), timeout)
		}
	}
	var codes []websocket.StatusCode
	for _, err := range c.ends() {
		codes = append(codes, websocket.CloseStatus(err))
	}
	if codes[0] != 4002 || codes[1] != 4001 {
		t.Errorf("closed with %v, want 4002 and 4001", codes)
	}
}

// TestExpiryFollowsSteps steps the wall clock over the expiry of credentials. Their client must be
// closed soon, and others not.
func TestExpiryFollowsSteps(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	s := start(t, steppable(t), map[string]any{"Lifetime": time.Hour, "AuthTimeout": time.Minute})
	var early, late clients
	early.add(s, 1, 0, authenticate)
	s.do("step 3500")
	late.add(s, 1, 0, authenticate)
	s.do("step 200")
	stepped := time.Now()
	for end := stepped.Add(timeout); len(early.ends()) < 1; sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the client was not closed within %v", timeout)
		}
	}
	if after := time.Since(stepped); after > 15*time.Second {
		t.Errorf("closed %v after the step", after)
	}
	if code := websocket.CloseStatus(early.ends()[0]); code != 4005 {
		t.Errorf("closed with %v", code)
	}
	if ends := late.ends(); len(ends) != 0 {
		t.Errorf("the client whose credentials are valid was closed: %v", ends)
	}
}

// sleep waits in real time, because the server is another process and the test checks that nothing
// happens to it.
func sleep(d time.Duration) { <-time.After(d) }
