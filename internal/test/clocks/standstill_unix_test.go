//go:build unix

package clocks_test

import (
	"syscall"
	"testing"
	"time"
)

// TestStandstill stops a server for longer than all of its timeouts. No client was silent: some
// sent heartbeats, some would have answered pings, and some have sent an authenticate that the
// server has not read.
func TestStandstill(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	program := build(t)
	for _, transport := range []string{"", "netconn"} {
		s := start(t, program, map[string]any{
			"Transport": transport, "AuthTimeout": 2 * time.Second, "HeartbeatInterval": 20 * time.Millisecond,
			"HeartbeatTimeout": 2 * time.Second, "IdleTimeout": 2 * time.Second,
		})
		var c clients
		c.add(s, 30, 200*time.Millisecond, authenticate)
		c.add(s, 1, 0)
		signal(t, s, syscall.SIGSTOP)
		sleep(4 * time.Second)
		signal(t, s, syscall.SIGCONT)
		sleep(time.Second)
		if ends := c.ends(); len(ends) != 0 {
			t.Errorf("transport %q: %d of 31 clients were closed, one with: %v", transport, len(ends), ends[0])
		}
		// Silence after the standstill counts as usual.
		for end := time.Now().Add(timeout); len(c.ends()) < 1; sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("a client that does not authenticate was not closed within %v", timeout)
			}
		}
	}
}

func signal(t *testing.T, s *server, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
