package epoll

import (
	"net/netip"
	"slices"
	"sync"
)

// An address is a netip.AddrPort in 20 bytes rather than 32. The zero address is none.
type address struct {
	ip   [16]byte // one of IPv4 in the form that IPv6 has for it
	port uint16
	zone uint16 // 0: none, as nearly everywhere; otherwise its number in the zones
}

// zones are the names of the interfaces that link-local addresses of IPv6 belong to. Any goroutine.
type zones struct {
	mu    sync.Mutex // guards names
	names []string   // number 1 first; no more than the machine has interfaces
}

// address makes one of ap.
func (z *zones) address(ap netip.AddrPort) address {
	if !ap.Addr().IsValid() {
		return address{}
	}
	return address{ip: ap.Addr().As16(), port: ap.Port(), zone: z.number(ap.Addr().Zone())}
}

// addrPort is what a was made of, but that an IPv4 address is one.
func (z *zones) addrPort(a address) netip.AddrPort {
	if a == (address{}) {
		return netip.AddrPort{}
	}
	ip := netip.AddrFrom16(a.ip).Unmap()
	if a.zone > 0 {
		ip = ip.WithZone(z.name(a.zone))
	}
	return netip.AddrPortFrom(ip, a.port)
}

func (z *zones) number(name string) uint16 {
	if name == "" {
		return 0
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	i := slices.Index(z.names, name)
	if i < 0 {
		if len(z.names) == 1<<16-1 {
			return 0
		}
		i = len(z.names)
		z.names = append(z.names, name)
	}
	return uint16(i + 1)
}

func (z *zones) name(number uint16) string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.names[number-1]
}
