package redis_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/test/redistest"
)

// trust returns a configuration that trusts the authorities in roots.
func trust(roots *x509.CertPool, own ...tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: own}
}

// TestTLS checks that nodes reach each other through a Redis that requires TLS, a password, and a
// certificate.
func TestTLS(t *testing.T) {
	t.Parallel()
	lenient, open := redistest.StartTLS(t, "tls-auth-clients no", "requirepass letmein")
	_, strict := redistest.StartTLS(t, "requirepass letmein")
	for name, tt := range map[string]struct {
		url string
		tls *tls.Config
	}{
		"authority":      {"rediss://:letmein@" + open.Addr, trust(open.Roots)},
		"by field alone": {"redis://:letmein@" + open.Addr, trust(open.Roots)},
		"skip_verify":    {"rediss://:letmein@" + open.Addr + "?skip_verify=true", nil},
		"certificate":    {"rediss://:letmein@" + strict.Addr, trust(strict.Roots, strict.Client)},
	} {
		t.Run(name, func(t *testing.T) {
			c := calm(t, tt.url)
			c.TLS = tt.tls
			a, b := startNode(t, "a", c), startNode(t, "b", c)
			a.confirm(a.broadcast("large " + strings.Repeat("x", 1<<20))) // many records
			if got := b.next().Event; len(got) != 1<<20+6 {
				t.Errorf("got %d bytes", len(got))
			}
		})
	}
	t.Run("cut", func(t *testing.T) {
		c := calm(t, "rediss://:letmein@"+open.Addr)
		c.TLS = trust(open.Roots)
		a, b := startNode(t, "a", c), startNode(t, "b", c)
		lenient.Do("CLIENT", "KILL", "TYPE", "pubsub")
		b.nextLoss()
		b.awaitState(broker.StateOK)
		a.confirm(a.broadcast("again"))
		if got := b.next().Event; got != "again" {
			t.Errorf("got %q", got)
		}
	})
}

// TestTLSExplains checks the errors about TLS, and that those that retrying cannot fix come at
// once.
func TestTLSExplains(t *testing.T) {
	t.Parallel()
	_, open := redistest.StartTLS(t, "tls-auth-clients no", "requirepass letmein")
	_, strict := redistest.StartTLS(t, "requirepass letmein")
	for name, tt := range map[string]struct {
		change func(*redis.Config)
		want   string
		waits  bool
	}{
		"other authority": {func(c *redis.Config) { c.Addrs[0], c.TLS = open.Addr, trust(strict.Roots) }, "certificate is not trusted", false},
		"no authority":    {func(c *redis.Config) { c.Addrs[0], c.TLS = open.Addr, trust(nil) }, "certificate is not trusted", false},
		"wrong password":  {func(c *redis.Config) { c.Addrs[0], c.Password = open.Addr, "wrong" }, "WRONGPASS", false},
		"no certificate":  {func(c *redis.Config) { c.Addrs[0], c.TLS = strict.Addr, trust(strict.Roots) }, "certificate", true},
		"no TLS":          {func(c *redis.Config) { c.Addrs[0], c.TLS = open.Addr, nil }, "TLS", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := quick(t, "")
			c.Addrs, c.Password, c.TLS = []string{""}, "letmein", trust(open.Roots)
			if c.ConnectTimeout = testTimeout; tt.waits {
				c.ConnectTimeout = 3 * time.Second
			}
			tt.change(&c)
			b := newBroker(t, c)
			defer func() { _ = b.Close() }()
			began := time.Now()
			err := b.Start(ctx(t), receiver)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("start: %v", err)
			}
			if took := time.Since(began); took >= c.ConnectTimeout && !tt.waits {
				t.Errorf("it took %v to return %v", took, err)
			}
		})
	}
}
