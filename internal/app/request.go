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

// checkOrigin makes the check of a handshake's origin. Beside pages of the listed origins it allows the server's own page,
// if the server was addressed as this machine: a stranger's page whose name was made to resolve to 127.0.0.1 has the same
// origin, by name, as what it calls.
func checkOrigin(listed []string, log *slog.Logger) (func(*http.Request) bool, error) {
	policy, err := origin.New(listed)
	if err != nil {
		return nil, err
	}
	policy.IsOwnHost = loopbackHost
	return func(r *http.Request) bool {
		if policy.Allows(r) {
			return true
		}
		log.Warn("refused a page of another origin; allow it with --origins", "origin", limited(r.Header.Get("Origin")), "host", limited(r.Host))
		return false
	}, nil
}

// limited keeps what a stranger wrote from filling a log line.
func limited(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// forwardedFor finds the client's address behind trusted proxies: X-Forwarded-For is read from its end, as long as the
// addresses are trusted ones; the first that is not is the client. Whatever stands before it, the client may have made up.
// At an entry that is no address the proxy before it counts as the client, which is logged.
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
				continue // as lists in headers may have
			}
			if !trusts(addr) {
				break
			}
			client, ok := parseHop(hop)
			if !ok {
				log.Warn("X-Forwarded-For has an entry that is no address; the proxy counts as the client", "entry", limited(hop), "proxy", addr)
				break
			}
			addr = client
		}
		return addr
	}
}

// parseHop reads an address as proxies write it: with a port or without, IPv6 with brackets or without, and perhaps in
// quotes.
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

// responseTimeout is how long a client may take to read what is not WebSocket.
const responseTimeout = 30 * time.Second

// withDeadline bounds each response by itself. A timeout of the whole http.Server would also be the WebSocket clients'.
func withDeadline(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Where deadlines are not supported there is none: no reason not to answer.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(responseTimeout))
		h.ServeHTTP(w, r)
	})
}
