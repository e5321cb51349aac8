package epoll

import (
	"net"
	"net/netip"
	"testing"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/transport"
	"golang.org/x/sys/unix"
)

// TestAddresses checks the form in which applications get the addresses that accept4 returns.
func TestAddresses(t *testing.T) {
	t.Parallel()
	tr, err := New(transport.Config{Tick: func(int) bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	for want, sa := range map[string]unix.Sockaddr{
		"192.0.2.1:5":         &unix.SockaddrInet4{Port: 5, Addr: [4]byte{192, 0, 2, 1}},
		"0.0.0.0:65535":       &unix.SockaddrInet4{Port: 65535},
		"[2001:db8::17]:8080": &unix.SockaddrInet6{Port: 8080, Addr: netip.MustParseAddr("2001:db8::17").As16()},
		"[fe80::1]:80":        &unix.SockaddrInet6{Port: 80, ZoneId: 3, Addr: netip.MustParseAddr("fe80::1").As16()},
		"192.0.2.1:6":         &unix.SockaddrInet6{Port: 6, Addr: netip.MustParseAddr("::ffff:192.0.2.1").As16()},
	} {
		if got := tr.newConnection(tr.loops[0], -1, addrPort(sa)).RemoteAddr(); got != netip.MustParseAddrPort(want) {
			t.Errorf("RemoteAddr() = %v, want %s", got, want)
		}
	}
	if got := tr.newConnection(tr.loops[0], -1, addrPort(&unix.SockaddrUnix{})).RemoteAddr(); got.IsValid() {
		t.Errorf("RemoteAddr() = %v for a socket without an address", got)
	}
}

// TestDualStackAddress checks that a client that connects by IPv4 to an IPv6 socket has an IPv4
// address, whether its connection is adopted or accepted.
func TestDualStackAddress(t *testing.T) {
	t.Parallel()
	tr, err := New(transport.Config{Tick: func(int) bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv6zero})
	if err != nil {
		t.Skip("no IPv6:", err)
	}
	defer ln.Close()
	dial := func() net.Conn {
		nc, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: ln.Addr().(*net.TCPAddr).Port})
		if err != nil {
			t.Fatal(err)
		}
		return nc
	}
	remote := make(chan netip.AddrPort, 1)
	first := dial()
	defer first.Close()
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Adopt(nc, nil, func(c transport.Conn) transport.Handler {
		remote <- c.RemoteAddr()
		return ignore{}
	}); err != nil {
		t.Fatal(err)
	}
	if got, want := (<-remote).String(), first.LocalAddr().String(); got != want {
		t.Errorf("adopted connection: RemoteAddr = %s, want %s", got, want)
	}
	if _, err := tr.Listen(ln, func(c RawConn) transport.Handler {
		remote <- c.RemoteAddr()
		return ignore{}
	}); err != nil {
		t.Fatal(err)
	}
	second := dial()
	defer second.Close()
	if got, want := (<-remote).String(), second.LocalAddr().String(); got != want {
		t.Errorf("accepted connection: RemoteAddr = %s, want %s", got, want)
	}
}

// ignore is a handler that does nothing.
type ignore struct{}

func (ignore) Data([]byte, clock.Instant) {}
func (ignore) PeerClosed() bool           { return false }
func (ignore) Drained()                   {}
func (ignore) Closed(error)               {}
