package hearth

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// originPolicy makes the check of a list of origins; nil is the request's own host, {"*"} any.
func originPolicy(origins []string) (func(*http.Request) bool, error) {
	if origins == nil {
		return sameOrigin, nil
	}
	allowed := make(map[string]bool, len(origins))
	for _, o := range origins {
		if o == "*" {
			if len(origins) > 1 {
				return nil, fmt.Errorf("has \"*\" beside others, which then mean nothing")
			}
			return func(*http.Request) bool { return true }, nil
		}
		u, err := url.Parse(o)
		if err != nil || u.Scheme == "" || u.Host == "" || strings.Contains(u.Host, "*") || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return nil, fmt.Errorf("has %q; an origin is a scheme and a host, as in \"https://example.com\"", o)
		}
		allowed[strings.ToLower(o)] = true
	}
	return func(r *http.Request) bool {
		origin, sent := originOf(r)
		return !sent || allowed[strings.ToLower(origin)]
	}, nil
}

// sameOrigin allows pages of the host that the request names, and whoever is no browser.
func sameOrigin(r *http.Request) bool {
	origin, sent := originOf(r)
	if !sent {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// originOf is the Origin header; more than one is nobody's origin.
func originOf(r *http.Request) (origin string, sent bool) {
	switch values := r.Header["Origin"]; len(values) {
	case 0:
		return "", false
	case 1:
		return values[0], true
	default:
		return "null", true
	}
}
