package epoll_test

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/transport/epoll"
	"golang.org/x/sys/unix"
)

// TestAcceptWithoutDescriptors connects clients while the process has no descriptors left. It is
// not parallel, because other tests need descriptors.
func TestAcceptWithoutDescriptors(t *testing.T) {
	var turns atomic.Int32
	tr, err := epoll.New(transport.Config{Loops: 2, Tick: func(int) bool { turns.Add(1); return false }})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	ln := listen(t)
	port := ln.Addr().(*net.TCPAddr).Port
	const clients = 10
	accepted := make(chan struct{}, clients)
	if _, err := tr.Listen(ln, func(epoll.RawConn) transport.Handler {
		accepted <- struct{}{}
		return discard{make(chan error, 1)}
	}); err != nil {
		t.Fatal(err)
	}
	var fds []int
	for range clients {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 3, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}
	defer restore()
	turns.Store(0)
	for _, fd := range fds {
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-accepted:
		t.Error("accepted without a descriptor")
	case <-time.After(350 * time.Millisecond):
	}
	if n := turns.Load(); n > 60 {
		t.Errorf("%d turns during the pause", n)
	}
	restore()
	for range clients {
		select {
		case <-accepted:
		case <-time.After(testTimeout):
			t.Fatal("not accepted although there are descriptors again")
		}
	}
}
