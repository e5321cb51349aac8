package node

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// maxIdleConns is how many connections of net/http may wait for a request.
const maxIdleConns = 1024

// idleConns limits the connections of Serve's HTTP servers that wait for a request, or for the rest
// of its header. Each costs a goroutine and buffers, and peers can open any number. Above the
// limit, the oldest is closed: HTTP allows a server to close keep-alive connections at any time,
// and clients open new ones.
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

// connState records the state of a connection. It is http.Server.ConnState.
func (i *idleConns) connState(c net.Conn, s http.ConnState) {
	if excess := i.setWaiting(c, s == http.StateNew || s == http.StateIdle); excess != nil {
		_ = excess.Close()
	}
}

// setWaiting adds or removes a connection. It returns the connection to close if there are too
// many.
func (i *idleConns) setWaiting(c net.Conn, waits bool) (excess net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if e := i.entries[c]; e != nil {
		i.waiting.remove(e)
		delete(i.entries, c)
	}
	if !waits {
		return nil
	}
	e, oldest := i.waiting.add(c, ipAddr(c.RemoteAddr()))
	i.entries[c] = e
	if oldest == nil {
		return nil
	}
	delete(i.entries, oldest.value)
	return oldest.value
}

// ipAddr returns the address without its port. It is invalid for other networks than TCP.
func ipAddr(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr()
	}
	return netip.Addr{}
}
