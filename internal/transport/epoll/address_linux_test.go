package epoll

import (
	"net/netip"
	"testing"
)

// TestAddressesStayThemselves: an address that was made small is the same when somebody asks for it.
func TestAddressesStayThemselves(t *testing.T) {
	t.Parallel()
	var z zones
	for _, text := range []string{
		"127.0.0.1:1", "0.0.0.0:65535", "[::1]:443", "[::]:1", "[2001:db8::17]:8080", "[fe80::1%eth0]:80", "[fe80::1%3]:80", "[fe80::1%eth0]:81",
		"[fe80::1]:80",
	} {
		want := netip.MustParseAddrPort(text)
		if got := z.addrPort(z.address(want)); got != want {
			t.Errorf("%v has become %v", want, got)
		}
	}
	if got := z.addrPort(z.address(netip.AddrPort{})); got.IsValid() {
		t.Errorf("no address has become %v", got)
	}
	mapped := netip.MustParseAddrPort("[::ffff:192.0.2.1]:5")
	if got, want := z.addrPort(z.address(mapped)), netip.MustParseAddrPort("192.0.2.1:5"); got != want {
		t.Errorf("%v has become %v, want %v", mapped, got, want)
	}
	if len(z.names) != 2 {
		t.Errorf("zones %q are kept for eth0 and 3", z.names)
	}
}
