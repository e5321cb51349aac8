package app

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestForwardedFor(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	of := forwardedFor([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}, slog.New(slog.NewTextHandler(&log, nil)))
	for _, tt := range []struct {
		name, peer string
		header     []string
		want       string
	}{
		{"no proxy", "192.0.2.1:5", nil, "192.0.2.1"},
		{"the header of an untrusted peer is ignored", "192.0.2.1:5", []string{"198.51.100.9"}, "192.0.2.1"},
		{"one proxy", "10.0.0.1:5", []string{"198.51.100.9"}, "198.51.100.9"},
		{"addresses that the client made up are ignored", "10.0.0.1:5", []string{"1.1.1.1, 198.51.100.9"}, "198.51.100.9"},
		{"two proxies", "[::1]:5", []string{"198.51.100.9, 10.2.3.4"}, "198.51.100.9"},
		{"two lines", "[::1]:5", []string{"198.51.100.9", "10.2.3.4"}, "198.51.100.9"},
		{"only proxies", "10.0.0.1:5", []string{"10.9.9.9"}, "10.9.9.9"},
		{"no header", "10.0.0.1:5", nil, "10.0.0.1"},
		{"nonsense", "10.0.0.1:5", []string{"unknown"}, "10.0.0.1"},
		{"an invalid entry before the client", "10.0.0.1:5", []string{"unknown, 198.51.100.9"}, "198.51.100.9"},
		{"IPv4-mapped addresses", "[::ffff:10.0.0.1]:5", []string{"::ffff:198.51.100.9"}, "198.51.100.9"},
		{"no address", "@", nil, "invalid IP"},
		{"with a port", "10.0.0.1:5", []string{"203.0.113.7:51234"}, "203.0.113.7"},
		{"IPv6 with a port", "10.0.0.1:5", []string{"[2001:db8::1]:443"}, "2001:db8::1"},
		{"IPv6 in brackets", "10.0.0.1:5", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"IPv6", "10.0.0.1:5", []string{"2001:db8::1"}, "2001:db8::1"},
		{"quoted", "10.0.0.1:5", []string{`"[2001:db8::1]:443"`}, "2001:db8::1"},
		{"quoted, IPv4", "10.0.0.1:5", []string{`"203.0.113.7"`}, "203.0.113.7"},
		{"mapped, with a port", "10.0.0.1:5", []string{"[::ffff:203.0.113.7]:80"}, "203.0.113.7"},
		{"a zone is removed", "10.0.0.1:5", []string{"fe80::1%eth0"}, "fe80::1"},
		{"proxies with ports", "10.0.0.1:5", []string{"203.0.113.7:51234, 10.0.0.2:80,[::1]:90"}, "203.0.113.7"},
		{"half a quote", "10.0.0.1:5", []string{`"203.0.113.7`}, "10.0.0.1"},
		{"IPv4 in brackets", "10.0.0.1:5", []string{"[203.0.113.7]"}, "10.0.0.1"},
		{"half a bracket", "10.0.0.1:5", []string{"[2001:db8::1"}, "10.0.0.1"},
		{"an invalid port", "10.0.0.1:5", []string{"203.0.113.7:x"}, "10.0.0.1"},
		{"an empty entry", "10.0.0.1:5", []string{"203.0.113.7, ,"}, "203.0.113.7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log.Reset()
			r := &http.Request{RemoteAddr: tt.peer, Header: http.Header{}}
			for _, h := range tt.header {
				r.Header.Add("X-Forwarded-For", h)
			}
			if got := of(r).String(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if unread := len(tt.header) > 0 && tt.want == "10.0.0.1"; unread != (log.Len() > 0) {
				t.Errorf("logged %q", log.String())
			}
		})
	}
}

func TestOriginPolicy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, origin, host string
		want               bool
	}{
		{"no browser", "", "evil.example", true},
		{"same origin", "http://localhost:8080", "localhost:8080", true},
		{"same origin by address", "http://127.0.0.1:8080", "127.0.0.1:8080", true},
		{"same origin, IPv6", "http://[::1]:8080", "[::1]:8080", true},
		{"default port", "http://localhost", "localhost", true},
		{"other port", "http://localhost:3000", "localhost:8080", false},
		{"other site", "https://evil.example", "localhost:8080", false},
		{"DNS rebinding", "http://evil.example:8080", "evil.example:8080", false},
		{"sandboxed page", "null", "localhost:8080", false},
		{"nonsense", "http://[", "localhost:8080", false},
		{"a path", "http://localhost:8080/x", "localhost:8080", false},
		{"userinfo", "http://me@localhost:8080", "localhost:8080", false},
		{"default port of the host", "http://localhost", "localhost:80", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			allowed, err := checkOrigin(Config{Access: Access{Auth: AuthDevelopment}}, slog.New(slog.NewTextHandler(&b, nil)))
			if err != nil {
				t.Fatal(err)
			}
			r := &http.Request{Host: tt.host, Header: http.Header{}}
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			if got := allowed(r); got != tt.want {
				t.Errorf("got %v", got)
			}
			if tt.want == strings.Contains(b.String(), "--origins") {
				t.Errorf("logged %q", b.String())
			}
		})
	}
}

// TestBucket checks that a bucket allows a burst of its size and refills with time.
func TestBucket(t *testing.T) {
	t.Parallel()
	b := bucket{perSecond: 2, size: 3}
	now := time.Unix(1000, 0)
	for i, tt := range []struct {
		after time.Duration
		want  bool
	}{
		{0, true}, {0, true}, {0, true}, {0, false}, {time.Second / 2, true}, {0, false}, {time.Hour, true}, {0, true}, {0, true}, {0, false},
	} {
		now = now.Add(tt.after)
		if got := b.take(now); got != tt.want {
			t.Errorf("take %d: %v", i, got)
		}
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"ada": true, "Ada Lovelace": true, "Ünïcödé": true, "名前": true, strings.Repeat("x", 64): true,
		"": false, " ada": false, "ada ": false, strings.Repeat("x", 65): false, "a\nb": false, "a\x00": false,
		"a\u202eb": false, "a\u200bb": false, "\xff": false, "ws:x": false,
	} {
		if err := checkName("name", name, maxName); ok != (err == nil) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
