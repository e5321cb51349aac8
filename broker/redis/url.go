package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

var errScheme = errors.New("it must begin with redis://, rediss:// or unix://")

// parseURL parses the forms that the package comment lists. Its errors never quote a part that may
// be a secret. In a URL that cannot be parsed, any part may be the password.
func parseURL(text string) (Config, error) {
	if !strings.Contains(text, "://") {
		return Config{}, errScheme
	}
	u, err := url.Parse(text)
	// A password that contains /, ? or # ends there: the rest, with the @, is not part of u.User.
	if err != nil || u.Opaque != "" || strings.Contains(text, "#") || strings.Contains(u.Path+u.RawQuery, "@") {
		return Config{}, errors.New("not a URL: special characters of a user or password must be percent-encoded, @ as %40")
	}
	var c Config
	if u.User != nil {
		c.Username = u.User.Username()
		c.Password, _ = u.User.Password()
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || u.Path == "" {
			return Config{}, errors.New("a socket is unix:///path/to/redis.sock, with a user as unix://user:password@/path")
		}
		c.Addrs = []string{u.Path}
	case "redis", "rediss":
		if u.Scheme == "rediss" {
			c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		c.Addrs = []string{withPort(u.Host)}
		if db := strings.TrimPrefix(u.Path, "/"); db != "" {
			if c.DB, err = strconv.Atoi(db); err != nil || c.DB < 0 {
				return Config{}, errors.New("the part behind the address must be the number of a database")
			}
		}
	default:
		return Config{}, errScheme
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Config{}, errors.New("its parameters are not percent-encoded")
	}
	return c, c.setParameters(query)
}

// setParameters sets the fields for the query of a URL. An unknown parameter is an error, because a
// misspelt one would be a missing setting otherwise.
func (c *Config) setParameters(query url.Values) error {
	for name, values := range query {
		value := values[len(values)-1]
		var err error
		switch name {
		case "addr":
			for _, addr := range values {
				c.Addrs = append(c.Addrs, withPort(addr))
			}
		case "cluster":
			c.Cluster, err = strconv.ParseBool(value)
		case "master_set":
			c.Sentinel.MasterSet = value
		case "sentinel_username":
			c.Sentinel.Username = value
		case "sentinel_password":
			c.Sentinel.Password = value
		case "db":
			c.DB, err = strconv.Atoi(value)
		case "client_name":
			c.ClientName = value
		case "dial_timeout":
			c.DialTimeout, err = time.ParseDuration(value)
		case "write_timeout":
			c.WriteTimeout, err = time.ParseDuration(value)
		case "skip_verify":
			var skip bool
			if skip, err = strconv.ParseBool(value); err == nil && skip {
				if c.TLS == nil {
					return errors.New("skip_verify without rediss://")
				}
				c.TLS.InsecureSkipVerify = true
			}
		default:
			return fmt.Errorf("unknown parameter %q", name)
		}
		if err != nil {
			return fmt.Errorf("parameter %s: invalid value", name)
		}
	}
	return nil
}

// withPort adds the parts that an address lacks: the port of Redis, and localhost.
func withPort(hostport string) string {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		host, port = strings.Trim(hostport, "[]"), "6379"
	}
	if host == "" {
		host = "localhost"
	}
	if port == "" {
		port = "6379"
	}
	return net.JoinHostPort(host, port)
}
