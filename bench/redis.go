package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
)

// A redisServer is the Redis of a run. All servers use it, one after the other; it keeps nothing.
type redisServer struct {
	process *process
	port    int
	dir     string // its own
}

// startRedis starts Redis on a free port of 127.0.0.1. A subscriber that falls behind is not cut off: what a server does
// with more than it can take is for the measure to see.
func startRedis(ctx context.Context) (*redisServer, error) {
	dir, err := os.MkdirTemp("", "hearth-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	var errs []error
	for range 3 { // the port may be taken between our look and its start
		port, err := freePort()
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		p, err := startProcess(ctx, []string{"redis-server", "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--save", "", "--dir", dir,
			"--client-output-buffer-limit", "pubsub 0 0 0"}, "", redisReady)
		if err == nil {
			return &redisServer{process: p, port: port, dir: dir}, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(append(errs, os.RemoveAll(dir))...)
}

func (r *redisServer) stop() {
	_ = r.process.stop() // nothing of it is kept
	_ = os.RemoveAll(r.dir)
}

// freePort finds a port of 127.0.0.1 that nobody listens on.
func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return ln.Addr().(*net.TCPAddr).Port, ln.Close()
}
