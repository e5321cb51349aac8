package transporttest

import (
	"net"
	"testing"
)

// TCP is a Backend.Dial. It connects over the loopback interface, with small buffers in the kernel,
// which fill soon.
func TCP(t testing.TB) (server, client net.Conn) {
	t.Helper()
	s, c := dial(t)
	for _, nc := range []*net.TCPConn{s, c} {
		if err := nc.SetReadBuffer(64 << 10); err != nil {
			t.Error(err)
		}
		if err := nc.SetWriteBuffer(64 << 10); err != nil {
			t.Error(err)
		}
	}
	return s, c
}

// Reset is a Backend.Reset for connections made by TCP.
func Reset(client net.Conn) {
	_ = client.(*net.TCPConn).SetLinger(0)
	_ = client.Close()
}

func dial(t testing.TB) (server, client *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return s.(*net.TCPConn), c.(*net.TCPConn)
}
