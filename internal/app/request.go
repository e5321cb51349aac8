package app

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// An originPolicy lets in this server's own page, pages of the origins that were listed, and programs that are no
// browser (they send no Origin). For its own page the server must have been addressed as this machine: a stranger's page
// whose name was made to resolve to 127.0.0.1 has the same origin as what it calls, by name.
type originPolicy struct {
	log    *slog.Logger
	listed []string // lower case; {"*"} is any
}

func (p *originPolicy) allowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(p.listed, "*") || slices.Contains(p.listed, strings.ToLower(origin)) {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	u, err := url.Parse(origin)
	if err == nil && strings.EqualFold(u.Host, r.Host) && loopbackHost(host) {
		return true
	}
	p.log.Warn("refused a page of another origin; allow it with --origins", "origin", limited(origin), "host", limited(r.Host))
	return false
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
func forwardedFor(trusted []netip.Prefix) func(*http.Request) netip.Addr {
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
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for i := len(hops) - 1; i >= 0 && trusts(addr); i-- {
			hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
			if err != nil {
				break
			}
			addr = hop.Unmap()
		}
		return addr
	}
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
