package node

import (
	"net"
	"net/http"
	"sync"

	"net/netip"
)

// maxIdleConns is how many connections of net/http may wait for a request.
const maxIdleConns = 1024

// idleConns bounds the connections of Serve's HTTP servers that wait for a request, or for the rest of its header. Each
// costs a goroutine and buffers, and peers decide how many there are. The oldest is closed: keep-alive connections may be
// closed at any time, and clients open new ones.
type idleConns struct {
	mu      sync.Mutex // guards the fields below
	waiting boundedQueue[net.Conn]
	entries map[net.Conn]*queueEntry[net.Conn]
}

func newIdleConns(perAddr int) *idleConns {
	return &idleConns{
		waiting: boundedQueue[net.Conn]{max: maxIdleConns, perAddr: perAddr}, entries: make(map[net.Conn]*queueEntry[net.Conn]),
	}
}

// connState is http.Server.ConnState.
func (i *idleConns) connState(c net.Conn, s http.ConnState) {
	if excess := i.setWaiting(c, s == http.StateNew || s == http.StateIdle); excess != nil {
		_ = excess.Close()
	}
}

// setWaiting adds or removes a connection, and returns one that is too much.
func (i *idleConns) setWaiting(c net.Conn, waits bool) (excess net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if place := i.entries[c]; place != nil {
		i.waiting.remove(place)
		delete(i.entries, c)
	}
	if !waits {
		return nil
	}
	place, oldest := i.waiting.add(c, ipAddr(c.RemoteAddr()))
	i.entries[c] = place
	if oldest == nil {
		return nil
	}
	delete(i.entries, oldest.value)
	return oldest.value
}

// ipAddr is the address without the port, invalid for anything but TCP.
func ipAddr(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr()
	}
	return netip.Addr{}
}
