package node

import (
	"net"
	"net/http"
	"sync"

	"net/netip"
)

// idleMax is how many connections of net/http may wait for a request.
const idleMax = 1024

// idleConns bounds the connections of Serve's HTTP servers that wait for a request, or for the rest of its header. Each
// costs a goroutine and buffers, and peers decide how many there are. The oldest is closed: keep-alive connections may be
// closed at any time, and clients open new ones.
type idleConns struct {
	mu      sync.Mutex // guards the fields below
	waiting arrivals[net.Conn]
	places  map[net.Conn]*arrival[net.Conn]
}

func newIdleConns(perAddr int) *idleConns {
	return &idleConns{
		waiting: arrivals[net.Conn]{max: idleMax, perAddr: perAddr}, places: make(map[net.Conn]*arrival[net.Conn]),
	}
}

// changed is http.Server.ConnState.
func (i *idleConns) changed(c net.Conn, s http.ConnState) {
	if excess := i.move(c, s == http.StateNew || s == http.StateIdle); excess != nil {
		_ = excess.Close()
	}
}

// move adds or removes a connection, and returns one that is too much.
func (i *idleConns) move(c net.Conn, waits bool) (excess net.Conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if place := i.places[c]; place != nil {
		i.waiting.remove(place)
		delete(i.places, c)
	}
	if !waits {
		return nil
	}
	place, oldest := i.waiting.add(c, addrOf(c.RemoteAddr()))
	i.places[c] = place
	if oldest == nil {
		return nil
	}
	delete(i.places, oldest.value)
	return oldest.value
}

// addrOf is the address without the port, invalid for anything but TCP.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr()
	}
	return netip.Addr{}
}
