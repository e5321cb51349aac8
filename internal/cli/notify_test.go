//go:build unix

package cli_test

import (
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestNotify checks that a server tells systemd when it serves, and when it stops.
func TestNotify(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := socket.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	next := func() string {
		t.Helper()
		b := make([]byte, 100)
		n, err := socket.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	t.Setenv("NOTIFY_SOCKET", address)
	p := start(t)
	if got := next(); got != "READY=1" {
		t.Errorf("at the start: %q", got)
	}
	p.signal(syscall.SIGTERM)
	if got := next(); got != "STOPPING=1" {
		t.Errorf("at the end: %q", got)
	}
	p.wait()
}

// TestNotifyFails checks that a server without its service manager serves, and logs the failure.
func TestNotifyFails(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nothing"))
	p := start(t)
	p.until("cannot notify the service manager")
	p.signal(syscall.SIGTERM)
	p.wait()
}
