package node

import (
	"net/netip"
	"sync"

	"github.com/hearthws/hearth/internal/session"
)

// callbackLimit limits the handshakes for which the application's callbacks are running, in total
// and for one IPv4 address or one IPv6 /64 network. The callbacks may outlive their connection, so
// the limits of connections do not bound them. Any goroutine.
type callbackLimit struct {
	max, perAddr int // 0: no limit; read-only

	mu     sync.Mutex // guards the fields below; taken alone
	total  int
	byAddr map[netip.Prefix]int
}

// newCallbackLimit makes the limit. One address may take half of the places, because all clients of
// a proxy have one address, and so that clients of other addresses can still connect.
func newCallbackLimit(l session.Limits) *callbackLimit {
	c := &callbackLimit{byAddr: make(map[netip.Prefix]int)}
	if l.MaxUnauthenticated > 0 {
		c.max = l.MaxUnauthenticated + 16
		if l.MaxUnauthenticatedPerAddr > 0 {
			c.perAddr = max(l.MaxUnauthenticated/2, l.MaxUnauthenticatedPerAddr) + 16
		}
	}
	return c
}

// begin takes a place for a handshake of the peer, as in http.Request.RemoteAddr. It reports
// whether there was one. The caller then calls release when the callbacks have returned.
func (c *callbackLimit) begin(peer string) (release func(), ok bool) {
	addr, _ := netip.ParseAddrPort(peer) // invalid for other networks than TCP: such peers share a limit
	network := session.Network(addr.Addr())
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.max > 0 && c.total >= c.max || c.perAddr > 0 && c.byAddr[network] >= c.perAddr {
		return nil, false
	}
	c.total++
	c.byAddr[network]++
	return func() { c.end(network) }, true
}

func (c *callbackLimit) end(network netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.byAddr[network]--; c.byAddr[network] == 0 {
		delete(c.byAddr, network)
	}
}
