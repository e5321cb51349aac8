package app

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/protocol"
)

// check reports combinations of options that cannot work although each value is valid by itself.
func check(c Config, settings []Setting) []error {
	var errs []error
	wrong := func(option, format string, args ...any) {
		for _, s := range settings {
			if s.Option.Name == option {
				errs = append(errs, s.optionError(fmt.Errorf(format, args...)))
			}
		}
	}
	if c.Auth == AuthDevelopment && !loopbackListen(c.Listen) {
		_, port, _ := net.SplitHostPort(c.Listen)
		wrong("listen", "other machines could reach this address, and with auth %q clients sign in without a password: "+
			"use an address of this machine only, as in --listen localhost:%s, or choose how clients authenticate, as in --auth jwt",
			AuthDevelopment, port)
	}
	checkJWT(c, wrong)
	checkWebhook(c, wrong)
	checkRules(c, settings, wrong)
	switch {
	case c.TLSCert != "" && c.TLSKey == "":
		wrong("tls-cert", "the private key of the certificate is missing: set it, as in --tls-key key.pem")
	case c.TLSCert == "" && c.TLSKey != "":
		wrong("tls-key", "the certificate of the key is missing: set it, as in --tls-cert cert.pem")
	case c.TLSCert != "":
		if _, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey); err != nil {
			wrong("tls-cert", "load the certificate and its key: %w", err)
		}
	}
	checkResume(c, wrong)
	checkAPI(c, wrong)
	if c.Drain >= c.ShutdownTimeout {
		wrong("drain", "shutdown-timeout (%v) would end it: use a shorter time, or raise shutdown-timeout", c.ShutdownTimeout)
	}
	if c.Redis == "" {
		const alone = "has no effect without Redis: set it, as in --redis redis://localhost:6379, or remove this option"
		if c.Resync {
			wrong("resync", alone)
		}
		if c.RedisPatterns {
			wrong("redis-patterns", alone)
		}
		if c.RedisPrefix != "" {
			wrong("redis-prefix", alone)
		}
	}
	if c.Transport == "epoll" && runtime.GOOS != "linux" {
		wrong("transport", "epoll works only on Linux: use auto or netconn")
	}
	if c.Transport == "epoll" && c.TLSCert != "" {
		wrong("transport", "epoll does not support TLS, and tls-cert is set: use auto or netconn, or terminate TLS in a proxy")
	}
	return errs
}

// loopbackListen reports whether only this machine can reach an address that parseListen has
// accepted.
func loopbackListen(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	return loopbackHost(host)
}

// loopbackHost decides by the text alone: a name other than localhost may resolve to another
// machine later.
func loopbackHost(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}

func parseListen(s string) (string, error) {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", errors.New("takes host:port, as in localhost:8080 or [::1]:8080")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", errors.New("the port must be a number from 0 to 65535 (0 means any free port), as in localhost:8080")
	}
	return s, nil
}

// parseAdmin is parseListen, and accepts an empty address: no listener.
func parseAdmin(s string) (string, error) {
	if s == "" {
		return s, nil
	}
	return parseListen(s)
}

func parsePath(s string) (string, error) {
	if len(s) < 2 || s[0] != '/' || strings.ContainsAny(s, "?#{}% \\") || strings.Contains(s, "//") || strings.HasSuffix(s, "/") {
		return "", errors.New("takes an absolute URL path without a query, escapes or a trailing slash, as in /ws")
	}
	if s == healthPath || s == readyPath || strings.HasPrefix(s, assetPath) {
		return "", fmt.Errorf("%s is taken by the server itself: use another path, as in /ws", s)
	}
	return s, nil
}

// parseRedis checks the URL with the broker, whose errors never contain the password.
func parseRedis(s string) (string, error) {
	if s == "" {
		return s, nil
	}
	if _, err := redis.New(redis.Config{URL: s}); err != nil {
		return "", fmt.Errorf("takes a URL, as in redis://:password@host:6379: %w", err)
	}
	if u, err := url.Parse(s); err == nil {
		if password, _ := u.User.Password(); password == redactedMark || u.Query().Get("sentinel_password") == redactedMark {
			return "", fmt.Errorf("its password is %s, which --print-config prints in place of a password: give the password itself", redactedMark)
		}
	}
	return s, nil
}

func parseRedisPrefix(s string) (string, error) {
	if err := redis.CheckPrefix(s); err != nil {
		return "", fmt.Errorf(`takes a prefix for channel names, as in "shop:": %w`, err)
	}
	return s, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errors.New("takes addresses and networks, as in 10.0.0.0/8 or 192.0.2.7")
	}
	return p.Masked(), nil
}

// parseRooms applies the protocol's rules for the names of rooms.
func parseRooms(values []string) ([]string, error) {
	for i, name := range values {
		if err := protocol.CheckRoom(name); err != nil {
			return nil, fmt.Errorf("%q cannot be a room: %w", name, err)
		}
		if slices.Contains(values[:i], name) {
			return nil, fmt.Errorf("%q is given twice: remove one", name)
		}
	}
	return values, nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		if _, err := strconv.ParseFloat(s, 64); err == nil && s != "0" {
			return 0, fmt.Errorf("a duration needs a unit, as in %ss or %sms", s, s)
		}
		return 0, errors.New("takes a duration, as in 500ms, 30s or 1m30s")
	}
	return d, nil
}

// parseSize parses a number of bytes: 131072, 128KiB, 1MiB, 64kB.
func parseSize(s string) (int, error) {
	units := []struct {
		name string
		size int
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}}
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 32)
		if err == nil && n >= 0 && n*int64(u.size) <= 1<<31-1 {
			return int(n) * u.size, nil
		}
		break
	}
	return 0, errors.New("takes a number of bytes, at most 1GiB, as in 131072, 128KiB or 1MiB")
}

func parseCount(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 {
		return 0, errors.New("takes a whole number of at least 0, as in 1000")
	}
	return int(n), nil
}

func parseSwitch(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, errors.New("takes true or false")
}
