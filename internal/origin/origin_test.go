package origin_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hearthws/hearth/internal/origin"
)

func request(host string, origins ...string) *http.Request {
	r := &http.Request{Host: host, Header: http.Header{}}
	for _, o := range origins {
		r.Header.Add("Origin", o)
	}
	return r
}

func TestOwnHost(t *testing.T) {
	t.Parallel()
	p, err := origin.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host, origin string
		want         bool
	}{
		{"example.com", "https://example.com", true},
		{"example.com", "HTTPS://Example.COM", true},
		{"example.com:443", "https://example.com", true},
		{"example.com", "https://example.com:443", true},
		{"example.com:80", "http://example.com", true},
		{"example.com:080", "http://example.com", true},
		{"example.com:8080", "http://example.com:8080", true},
		{"[2001:DB8:0::1]:443", "https://[2001:db8::1]", true},
		{"localhost", "capacitor://localhost", true},
		{"example.com:80", "https://example.com", false},
		{"example.com:443", "http://example.com", false},
		{"example.com", "https://example.com:8443", false},
		{"example.com.", "https://example.com", false},
		{"example.com", "null", false},
		{"example.com", "", false},
		{"example.com", "example.com", false},
		{"example.com", "://example.com", false},
		{"example.com", "https://example.com/", false},
		{"example.com", "https://example.com/path", false},
		{"example.com", "https://example.com?", false},
		{"example.com", "https://example.com#", false},
		{"example.com", "https://me@example.com", false},
		{"example.com", "https://me:pw@example.com", false},
		{"example.com", "https://example.com:", false},
		{"example.com", "https://example.com:x", false},
		{"example.com", "https://example.com:65536", false},
		{"example.com", "https://example.com:+443", false},
		{"example.com", " https://example.com", false},
		{"example.com", "https://example.com https://example.com", false},
		{"[::1]", "http://[::1", false},
		{"[::1]", "http://::1", false},
		{"[::1%25eth0]", "http://[::1%25eth0]", false},
		{"", "https://", false},
	} {
		if got := p.Allows(request(c.host, c.origin)); got != c.want {
			t.Errorf("origin %q, host %q: %v", c.origin, c.host, got)
		}
	}
	if !p.Allows(request("example.com")) {
		t.Error("a program without Origin is rejected")
	}
	if p.Allows(request("example.com", "https://example.com", "https://example.com")) {
		t.Error("two origins are allowed")
	}
	p.IsOwnHost = func(host string) bool { return host == "localhost" }
	if p.Allows(request("example.com", "https://example.com")) || !p.Allows(request("localhost:80", "http://localhost")) {
		t.Error("Own is not asked")
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	p, err := origin.New([]string{
		"https://app.example:443", "http://localhost:3000", "https://*.wild.example", "http://*.dev.example:8080", "https://[2001:db8::0001]",
		"chrome-extension://abcdef",
	})
	if err != nil {
		t.Fatal(err)
	}
	for o, want := range map[string]bool{
		"https://app.example": true, "https://APP.example:443": true, "http://localhost:3000": true, "https://a.wild.example": true,
		"https://a.b.wild.example": true, "http://a.dev.example:8080": true, "https://[2001:db8::1]": true, "chrome-extension://abcdef": true,
		"https://own.example": true,
		"http://app.example":  false, "https://app.example:444": false, "http://localhost": false, "https://wild.example": false,
		"https://awild.example": false, "https://a.wild.example:444": false, "http://a.wild.example": false, "https://*.wild.example": false,
		"http://a.dev.example": false, "https://a.wild.example.evil.example": false, "null": false, "https://x@a.wild.example": false,
		"https://.wild.example/": false,
	} {
		if got := p.Allows(request("own.example", o)); got != want {
			t.Errorf("%q: %v", o, got)
		}
	}
	p, err = origin.New([]string{"*"})
	if err != nil || !p.Allows(request("own.example", "null", "x")) {
		t.Errorf("any: %v", err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                        "a scheme and a host",
		"example.com":             "a scheme and a host",
		"null":                    "a scheme and a host",
		"https://":                "a scheme and a host",
		"https://example.com/":    "a scheme and a host",
		"https://me@example.com":  "a scheme and a host",
		"https://*":               "a scheme and a host",
		"https://a.*.example.com": "a scheme and a host",
		"https://*.*.example.com": "a scheme and a host",
		"*.example.com":           "a scheme and a host",
		"https://example.com:0x1": "number up to 65535",
		"wss://example.com":       `"https://example.com"`,
		"ws://localhost:8080":     `"http://localhost:8080"`,
		"https://bücher.example":  `"https://xn--bcher-kva.example"`,
		"https://Bücher.example":  `"https://xn--bcher-kva.example"`,
	} {
		if _, err := origin.New([]string{in}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
	if _, err := origin.New([]string{"*", "https://example.com"}); err == nil {
		t.Error(`"*" and another one`)
	}
}

// FuzzAllows checks that no pair of headers breaks anything, and that a page of another host is
// never taken for an own one.
func FuzzAllows(f *testing.F) {
	f.Add("example.com:443", "https://example.com")
	f.Add("[::1]:80", "http://[::1]")
	f.Add("a@b", "https://a@b")
	p, err := origin.New(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, host, o string) {
		if !p.Allows(request(host, o)) {
			return
		}
		if strings.ContainsAny(o, "@?#\\ ") || strings.Count(o, "/") != 2 {
			t.Errorf("origin %q is allowed for host %q", o, host)
		}
	})
}
