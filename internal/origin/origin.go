// Package origin decides which web pages may connect, by the Origin header of their requests (RFC
// 6454).
package origin

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// A Policy allows pages of the server's own host, pages of the listed origins, and programs other
// than browsers, which send no Origin. Make it with New. Safe for concurrent use.
type Policy struct {
	// IsOwnHost, if not nil, reports whether the host of a request, without its port, is the
	// server's own. If it is nil, every host is. It must be safe for concurrent use. Set it before
	// the first use of Allows.
	IsOwnHost func(host string) bool

	any     bool
	allowed []origin
}

// New makes the policy for a list of origins. An origin is a scheme and a host, as in
// "https://example.com", with a port if it is not the scheme's default. "https://*.example.com"
// matches all hosts below example.com, and "*" alone any origin. The error names an origin that
// could never match.
func New(allowed []string) (*Policy, error) {
	p := &Policy{}
	for _, s := range allowed {
		if s == "*" {
			if len(allowed) > 1 {
				return nil, errors.New(`"*": it stands for any origin, and must be alone`)
			}
			p.any = true
			continue
		}
		o, err := parseAllowed(s)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", s, err)
		}
		p.allowed = append(p.allowed, o)
	}
	return p, nil
}

// Allows reports whether the policy allows the origin of the request.
func (p *Policy) Allows(r *http.Request) bool {
	values := r.Header["Origin"]
	if p.any || len(values) == 0 {
		return true
	}
	o, err := parse(values[0])
	if err != nil || len(values) > 1 {
		return false
	}
	for _, a := range p.allowed {
		if a.matches(o) {
			return true
		}
	}
	host, err := parse(o.scheme + "://" + r.Host)
	return err == nil && host == o && (p.IsOwnHost == nil || p.IsOwnHost(host.host))
}

// An origin is in canonical form, so that equal origins are equal values. Only a listed origin has
// subdomains set.
type origin struct {
	scheme, host, port string // empty port: the scheme's default
	subdomains         bool   // matches all hosts below host
}

func (a origin) matches(o origin) bool {
	if a.subdomains {
		return a.scheme == o.scheme && a.port == o.port && strings.HasSuffix(o.host, "."+a.host)
	}
	return a == o
}

var (
	errForm = errors.New(`an origin is a scheme and a host, as in "https://example.com"; "https://*.example.com" is all hosts below`)
	errPort = errors.New("the port of an origin is a number up to 65535")
)

// parseAllowed parses a listed origin.
func parseAllowed(s string) (origin, error) {
	scheme, rest, _ := strings.Cut(s, "://")
	switch strings.ToLower(scheme) {
	case "ws", "wss":
		page := strings.Replace(strings.ToLower(scheme), "ws", "http", 1) + "://" + rest
		return origin{}, fmt.Errorf("pages have the origin %q", page)
	}
	rest, subdomains := strings.CutPrefix(rest, "*.")
	o, err := parse(scheme + "://" + rest)
	if err != nil {
		if ascii, ok := punycode(rest); ok {
			return origin{}, fmt.Errorf("write it as browsers do, in ASCII: %q", scheme+"://"+ascii)
		}
		return origin{}, err
	}
	o.subdomains = subdomains
	return o, nil
}

// parse parses the value of an Origin header.
func parse(s string) (origin, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme == "" || strings.ContainsFunc(scheme, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("+-.", r) }) {
		return origin{}, errForm
	}
	o := origin{scheme: strings.ToLower(scheme)}
	port, hasPort := "", false
	if inside, found := strings.CutPrefix(rest, "["); found {
		addr, after, closed := strings.Cut(inside, "]")
		a, err := netip.ParseAddr(addr)
		if err != nil || !a.Is6() || a.Zone() != "" || !closed {
			return origin{}, errForm
		}
		if port, hasPort = strings.CutPrefix(after, ":"); !hasPort && after != "" {
			return origin{}, errForm
		}
		o.host = "[" + a.String() + "]"
	} else {
		o.host, port, hasPort = strings.Cut(rest, ":")
		o.host = strings.ToLower(o.host)
		if o.host == "" || strings.ContainsFunc(o.host, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune("-._~", r) }) {
			return origin{}, errForm
		}
	}
	if !hasPort {
		return o, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return origin{}, errPort
	}
	if n != defaultPort(o.scheme) {
		o.port = strconv.FormatUint(n, 10)
	}
	return o, nil
}

func defaultPort(scheme string) uint64 {
	switch scheme {
	case "http":
		return 80
	case "https":
		return 443
	}
	return 1 << 16 // no port has this number
}

func isAlnum(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

// punycode returns the ASCII form of a host with other letters, for an error message. It lets
// net/http encode the host: a full implementation of IDNA would be larger than the whole library.
func punycode(host string) (string, bool) {
	var b bytes.Buffer
	r := http.Request{Method: http.MethodGet, Host: strings.ToLower(host), URL: &url.URL{Path: "/"}, Header: http.Header{}}
	if err := r.Write(&b); err != nil {
		return "", false
	}
	_, after, _ := strings.Cut(b.String(), "\r\nHost: ")
	ascii, _, found := strings.Cut(after, "\r\n")
	if _, err := parse("https://" + ascii); err != nil || !found || ascii == strings.ToLower(host) {
		return "", false
	}
	return ascii, true
}
