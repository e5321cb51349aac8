package epoll

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hearthws/hearth/internal/transport"
)

// TestReserve checks that the table of descriptors has its size at the start.
func TestReserve(t *testing.T) {
	tr, err := New(transport.Config{Tick: func(int) bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	want := min(maxReserved, limit.Cur)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skipf("no /proc: %v", err)
	}
	_, rest, found := strings.Cut(string(status), "\nFDSize:")
	var size uint64
	if _, err := fmt.Sscan(rest, &size); !found || err != nil {
		t.Fatalf("no FDSize in %q: %v", status, err)
	}
	if size < want {
		t.Errorf("table for %d descriptors, want %d", size, want)
	}
}
