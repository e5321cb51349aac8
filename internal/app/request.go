package app

import (
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hearthws/hearth/internal/origin"
)

// checkOrigin returns the origin check for handshakes. It allows the listed origins, and pages of
// the host that the request was sent to. In development mode that host must be this machine.
// Otherwise a foreign page whose name resolves to 127.0.0.1 (DNS rebinding) would count as the same
// origin.
func checkOrigin(c Config, log *slog.Logger) (func(*http.Request) bool, error) {
	policy, err := origin.New(c.Origins)
	if err != nil {
		return nil, err
	}
	if c.Auth == AuthDevelopment {
		policy.IsOwnHost = loopbackHost
	}
	return func(r *http.Request) bool {
		if policy.Allows(r) {
			return true
		}
		log.Warn("rejected a page from another origin: to allow it, add the origin to --origins", "origin", limited(r.Header.Get("Origin")), "host", limited(r.Host))
		return false
	}, nil
}

// limited shortens text from a client, so that it does not fill a log line.
func limited(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// forwardedFor returns a function that finds the address of a client behind trusted proxies. It
// reads X-Forwarded-For from the end and skips trusted addresses. The first other address is the
// client; the client may have made up the addresses before it. If an entry is not an address, the
// proxy that added it counts as the client, and the entry is logged.
func forwardedFor(trusted []netip.Prefix, log *slog.Logger) func(*http.Request) netip.Addr {
	trusts := func(a netip.Addr) bool {
		for _, p := range trusted {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	return func(r *http.Request) netip.Addr {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			return netip.Addr{}
		}
		addr := peer.Addr().Unmap()
		for _, hop := range slices.Backward(strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")) {
			if hop = strings.TrimSpace(hop); hop == "" {
				continue // lists in headers may have empty elements
			}
			if !trusts(addr) {
				break
			}
			client, ok := parseHop(hop)
			if !ok {
				log.Warn("X-Forwarded-For has an invalid address: using the address of the proxy for the client", "entry", limited(hop), "proxy", addr)
				break
			}
			addr = client
		}
		return addr
	}
}

// parseHop parses an address in the forms that proxies use: with or without a port, brackets around
// IPv6, and quotes.
func parseHop(s string) (netip.Addr, bool) {
	if inside, found := strings.CutPrefix(s, `"`); found {
		if s, found = strings.CutSuffix(inside, `"`); !found {
			return netip.Addr{}, false
		}
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		var ap netip.AddrPort
		if ap, err = netip.ParseAddrPort(s); err == nil {
			a = ap.Addr()
		} else if inside, found := strings.CutPrefix(s, "["); found && strings.HasSuffix(inside, "]") {
			a, err = netip.ParseAddr(strings.TrimSuffix(inside, "]"))
			if !a.Is6() {
				return netip.Addr{}, false
			}
		}
	}
	return a.Unmap().WithZone(""), err == nil
}

// responseTimeout is how long a client may take to read an HTTP response.
const responseTimeout = 30 * time.Second

// withDeadline sets a write deadline for each response. A timeout of the http.Server would also
// apply to WebSocket clients.
func withDeadline(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// If the connection does not support deadlines, answer without one.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(responseTimeout))
		h.ServeHTTP(w, r)
	})
}
