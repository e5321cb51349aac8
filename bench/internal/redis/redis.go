// Package redis starts redis-server for a benchmark: on a free port of 127.0.0.1, without
// persistence.
package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hearthws/hearth/bench/internal/process"
)

// A Server is one running redis-server.
type Server struct {
	Process *process.Process
	Port    int

	dir  string // its own folder
	args []string
}

// Start starts redis-server with lines of redis.conf, and with further arguments such as
// --sentinel. Unless a line says otherwise, Redis does not close subscribers that read too slowly:
// a benchmark may send a server more than it can handle.
func Start(ctx context.Context, lines []string, args ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "hearth-bench-")
	if err != nil {
		return nil, fmt.Errorf("create a folder: %w", err)
	}
	var errs []error
	for range 3 { // another process may take the port before Redis does
		port, err := freePort()
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		file := filepath.Join(dir, "redis.conf")
		config := append([]string{"bind 127.0.0.1", "port " + strconv.Itoa(port), `save ""`, "dir " + dir,
			"client-output-buffer-limit pubsub 0 0 0"}, lines...)
		if err := os.WriteFile(file, []byte(strings.Join(config, "\n")+"\n"), 0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("write the configuration: %w", err), os.RemoveAll(dir))
		}
		s := &Server{Port: port, dir: dir, args: append([]string{"redis-server", file}, args...)}
		err = s.Restart(ctx)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(append(errs, os.RemoveAll(dir))...)
}

// Restart starts the server again after it was killed, on the same port and empty.
func (s *Server) Restart(ctx context.Context) error {
	p, err := process.Start(ctx, process.Command{Args: s.args, Ready: ready})
	if err == nil {
		s.Process = p
	}
	return err
}

// ready finds the address in the line that redis-server prints once it listens, as a server or as a
// Sentinel.
func ready(line string) (string, bool) {
	low := strings.ToLower(line)
	return line, strings.Contains(low, "ready to accept connections") || strings.Contains(low, "sentinel id is")
}

// Addr returns host and port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// URL returns the address as a URL for Hearth.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Stop kills the server, even if it was stopped by SIGSTOP, and removes its files.
func (s *Server) Stop() {
	s.Process.Kill()
	_ = os.RemoveAll(s.dir)
}

// freePort returns a port of 127.0.0.1 on which no process listens.
func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return ln.Addr().(*net.TCPAddr).Port, ln.Close()
}
