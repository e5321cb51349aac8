// Package redistest starts real Redis servers for tests: one, a master with a replica and
// Sentinels, or a Cluster. Each listens on a free port of 127.0.0.1, keeps its files in a folder of
// the test, and ends with the test.
package redistest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/resp"
	"github.com/hearthws/hearth/internal/test/child"
	"github.com/hearthws/hearth/internal/test/port"
)

// timeout is how long an operation of a server may take.
const timeout = time.Minute

// require skips the test, with a message, if there is no redis-server; with HEARTH_REQUIRE_REDIS=1,
// as in CI, the test fails.
func require(tb testing.TB) string {
	tb.Helper()
	path, err := exec.LookPath("redis-server")
	if err == nil {
		return path
	}
	const missing = "no redis-server in the path: install it (scripts/setup does), or leave this untested"
	if os.Getenv("HEARTH_REQUIRE_REDIS") == "1" {
		tb.Fatal(missing)
	}
	tb.Skip(missing)
	return ""
}

// A Server is one running redis-server. Its methods fail the test on errors, and may be called only
// from the test's goroutine.
type Server struct {
	Addr string // 127.0.0.1 and the port
	// the address with the port that replaces {port} in its options; empty if none has {port}
	Other    string
	Password string // of the user default; empty for none

	tb   testing.TB
	path string
	dir  string
	args []string

	mu   sync.Mutex
	cmd  *exec.Cmd       // nil while it is not running
	done <-chan struct{} // closed when cmd has ended
}

// Start starts a server without persistence. Options are lines of redis.conf, such as "maxclients
// 20". One of them may contain {port}, which is replaced by a second free port.
func Start(tb testing.TB, options ...string) *Server {
	tb.Helper()
	options = append([]string{`save ""`, "appendonly no"}, options...)
	return start(tb, options)
}

func start(tb testing.TB, options []string, args ...string) *Server {
	tb.Helper()
	s := &Server{tb: tb, path: require(tb), dir: tb.TempDir(), args: args}
	for _, line := range options {
		if password, ok := strings.CutPrefix(line, "requirepass "); ok {
			s.Password = password
		}
	}
	tb.Cleanup(s.end)
	for attempt := 0; ; attempt++ { // another process may take the port first
		s.Addr = port.Free(tb)
		_, number, _ := net.SplitHostPort(s.Addr)
		config := fmt.Sprintf("bind 127.0.0.1\nport %s\ndir %s\nlogfile server.log\nloglevel notice\n%s\n", number, s.dir, strings.Join(options, "\n"))
		if strings.Contains(config, "{port}") {
			s.Other = port.Free(tb)
			_, number, _ = net.SplitHostPort(s.Other)
			config = strings.ReplaceAll(config, "{port}", number)
		}
		if err := os.WriteFile(filepath.Join(s.dir, "redis.conf"), []byte(config), 0o600); err != nil {
			tb.Fatal(err)
		}
		err := s.run()
		if err == nil {
			return s
		}
		if attempt == 4 {
			tb.Fatalf("start redis-server: %v\n%s", err, s.log())
		}
	}
}

// run starts the process, and waits until it answers.
func (s *Server) run() error {
	cmd := exec.Command(s.path, append([]string{"redis.conf"}, s.args...)...)
	cmd.Dir = s.dir
	p, err := child.Start(cmd, nil) // end() kills it and waits
	if err != nil {
		return err
	}
	done := p.Done()
	s.mu.Lock()
	s.cmd, s.done = cmd, done
	s.mu.Unlock()
	return s.await("an answer to PING", func() error {
		select {
		case <-done:
			return errEnded
		default:
		}
		_, err := s.try("PING")
		return err
	})
}

var errEnded = errors.New("the server has ended")

// await repeats try until it returns no error.
func (s *Server) await(what string, try func() error) error {
	deadline := time.After(timeout)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil || errors.Is(err, errEnded) {
			return err
		}
		select {
		case <-deadline:
			return fmt.Errorf("%s did not come within %v: %w", what, timeout, err)
		case <-tick.C:
		}
	}
}

// Await repeats try until it returns no error, and fails the test if that takes too long.
func (s *Server) Await(what string, try func() error) {
	s.tb.Helper()
	if err := s.await(what, try); err != nil {
		s.tb.Fatalf("%v\n%s", err, s.log())
	}
}

// URL returns the address in the form for clients, with the password.
func (s *Server) URL() string {
	if s.Password == "" {
		return "redis://" + s.Addr
	}
	return "redis://:" + s.Password + "@" + s.Addr
}

// Do runs one command, on a connection of its own that is closed afterwards.
func (s *Server) Do(command ...string) resp.Value {
	s.tb.Helper()
	v, err := s.try(command...)
	if err != nil {
		s.tb.Fatalf("%.100s: %v\n%s", strings.Join(command, " "), err, s.log())
	}
	return v
}

func (s *Server) try(command ...string) (resp.Value, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return resp.Value{}, err
	}
	c, err := resp.Connect(ctx, socket, resp.Options{
		Password: s.Password, ClientName: "redistest", MaxString: 8 << 20, MaxElements: 1 << 20, MaxReply: 256 << 20,
	})
	if err != nil {
		return resp.Value{}, err
	}
	defer c.Close()
	return c.Do(ctx, command...)
}

// Subscriptions returns how many channels have subscribers, and how many clients there are, without
// the connection of redistest.
func (s *Server) Subscriptions() (channels, clients int) {
	s.tb.Helper()
	list, err := s.tryStrings("PUBSUB", "CHANNELS")
	if err != nil {
		s.tb.Fatal(err)
	}
	for line := range strings.Lines(s.text("CLIENT", "LIST")) {
		if !strings.Contains(line, "name=redistest") && !strings.Contains(line, "flags=S") && !strings.Contains(line, "flags=M") {
			clients++
		}
	}
	return len(list), clients
}

func (s *Server) tryStrings(command ...string) ([]string, error) {
	v, err := s.try(command...)
	if err != nil {
		return nil, err
	}
	return v.Strings()
}

// Kill ends the server like a crash.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it fails only if the process has ended
	<-s.done
	s.cmd = nil
}

// Restart starts the server again after Kill, on the same port and empty.
func (s *Server) Restart() {
	s.tb.Helper()
	if err := s.run(); err != nil {
		s.tb.Fatalf("restart redis-server: %v\n%s", err, s.log())
	}
}

// Freeze stops the process without ending it: its connections stay open and are not answered.
func (s *Server) Freeze() { s.tb.Helper(); s.signal(stop) }

// Thaw continues a frozen process.
func (s *Server) Thaw() { s.tb.Helper(); s.signal(cont) }

func (s *Server) signal(sig syscall.Signal) {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.tb.Fatalf("signal %v: %v", sig, err)
	}
}

// end is the cleanup.
func (s *Server) end() {
	if s.tb.Failed() {
		s.tb.Logf("log of redis-server at %s:\n%s", s.Addr, s.log())
	}
	s.Kill()
}

// log returns the end of the server's log.
func (s *Server) log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "server.log"))
	if err != nil {
		return err.Error()
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-30):], nil))
}
