package redis_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/test/port"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

func split(addr string) (host, port string) {
	host, port, _ = net.SplitHostPort(addr)
	return host, port
}

var receiver = broker.Receiver{ServerID: "s", Deliver: func(protocol.Message) {}}

// TestStartExplains checks that errors that retrying cannot fix fail at once, say why and what to
// do, and show no secret.
func TestStartExplains(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "requirepass letmein",
		"user limited on >limited-secret resetchannels &ws:* +@all ~*",
		"user reader on >limited-secret allchannels +@all -publish ~*")
	for name, tt := range map[string]struct {
		change func(*redis.Config)
		want   []string
	}{
		"no password":     {func(c *redis.Config) { c.Password = "" }, []string{"NOAUTH", "requires a Password", server.Addr}},
		"wrong password":  {func(c *redis.Config) { c.Password = "wrong-secret" }, []string{"WRONGPASS", "check Username and Password"}},
		"no such db":      {func(c *redis.Config) { c.DB = 99 }, []string{"DB index", "no such DB"}},
		"channels":        {func(c *redis.Config) { c.Username, c.Password = "limited", "limited-secret" }, []string{"NOPERM", "hearth:*"}},
		"may not publish": {func(c *redis.Config) { c.Username, c.Password = "reader", "limited-secret" }, []string{"NOPERM", "+publish"}},
		"no cluster":      {func(c *redis.Config) { c.Cluster = true }, []string{"not a node of a Cluster"}},
		"no TLS there":    {func(c *redis.Config) { c.TLS = &tls.Config{MinVersion: tls.VersionTLS12} }, []string{"no answer", "speak TLS"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := quick(t, "")
			c.Addrs, c.Password = []string{server.Addr}, "letmein"
			waits := name == "no TLS there"
			if c.ConnectTimeout = testTimeout; waits {
				c.ConnectTimeout = 5 * time.Second
			}
			tt.change(&c)
			b := newBroker(t, c)
			defer func() { _ = b.Close() }()
			began := time.Now()
			err := b.Start(ctx(t), receiver)
			if err == nil {
				t.Fatal("started")
			}
			if took := time.Since(began); took >= c.ConnectTimeout && !waits {
				t.Errorf("it took %v to return %v", took, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not contain %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "letmein") {
				t.Errorf("error %q shows a password", err)
			}
		})
	}
}

// TestLeastPermissions checks that the permissions in the operations manual are enough, for
// channels and for patterns.
func TestLeastPermissions(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rules, _ := strings.Cut(string(text), "redis-cli ACL SETUSER hearth ")
	rules, _, _ = strings.Cut(rules, "\n\n")
	rules = strings.NewReplacer("'", "", "\\", "").Replace(rules)
	command := append([]string{"ACL", "SETUSER", "hearth"}, strings.Fields(rules)...)
	server := redistest.Start(t)
	server.Do(command...)
	for name, patterns := range map[string]bool{"exact": false, "patterns": true} {
		t.Run(name, func(t *testing.T) {
			c := calm(t, "redis://hearth:password@"+server.Addr)
			c.Patterns, c.ReleaseGrace = patterns, time.Millisecond
			a, b := startNode(t, "a "+name, c), startNode(t, "b "+name, c)
			for i := range 3 { // each time the room is unsubscribed, or will be soon
				if err := b.Hold(ctx(t), protocol.RoomChannel("r")); err != nil {
					t.Fatal(err)
				}
				a.confirm(a.room("r", fmt.Sprint(i)))
				if got := b.next().Event; got != fmt.Sprint(i) {
					t.Errorf("got %q", got)
				}
				b.Release(protocol.RoomChannel("r"))
			}
			for _, n := range []*node{a, b} {
				if h := n.Health(); h.State != broker.StateOK || h.Err != nil {
					t.Errorf("health is %+v", h)
				}
			}
		})
	}
	if list, err := server.Do("ACL", "LOG").Array(); err != nil || len(list) > 0 {
		t.Errorf("Redis has rejected %d commands, %v", len(list), err)
	}
}

// TestStartAtSentinel checks that a Sentinel in place of a Redis is reported at once.
func TestStartAtSentinel(t *testing.T) {
	slow(t)
	b := newBroker(t, quick(t, "redis://"+redistest.StartSentinel(t).Sentinels[0].Addr))
	defer func() { _ = b.Close() }()
	if err := b.Start(ctx(t), receiver); err == nil || !strings.Contains(err.Error(), "master_set") {
		t.Errorf("start: %v", err)
	}
}

// TestStartWaits checks that Redis may start later than the node, and that Start may be called
// again after it failed.
func TestStartWaits(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	c := quick(t, server.URL())
	c.ConnectTimeout = 2 * time.Second // the first attempt is at once
	b := newBroker(t, c)
	defer func() { _ = b.Close() }()
	err := b.Start(ctx(t), receiver)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), server.Addr) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("start without a Redis: %v", err)
	}
	if h := b.Health(); h.State != broker.StateIdle {
		t.Errorf("after a failed start: %+v", h)
	}

	c.ConnectTimeout = testTimeout
	late := newBroker(t, c)
	defer func() { _ = late.Close() }()
	started := make(chan error, 1)
	go func() { started <- late.Start(ctx(t), receiver) }() // ends when Redis runs; received below
	server.Restart()
	if err := <-started; err != nil {
		t.Errorf("start before Redis: %v", err)
	}
	if err := b.Start(ctx(t), receiver); err != nil {
		t.Errorf("start after a failed start: %v", err)
	}
}

// TestCloseWhileStarting checks that Close does not wait for a Redis that is not running.
func TestCloseWhileStarting(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	b := newBroker(t, quick(t, server.URL()))
	started := make(chan error, 1)
	go func() { started <- b.Start(ctx(t), receiver) }() // ended by Close; received below
	await(t, "an attempt", func() bool { return b.Health().Err != nil })
	if err := b.Start(ctx(t), receiver); !errors.Is(err, broker.ErrStarted) {
		t.Errorf("start during another start: error %v, want ErrStarted", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-started; !errors.Is(err, broker.ErrClosed) {
		t.Errorf("start: error %v, want ErrClosed", err)
	}
}

// TestReplicaIsNotReady checks that Start fails at a replica.
func TestReplicaIsNotReady(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	host, port := split(master.Addr)
	replica := redistest.Start(t, "replicaof "+host+" "+port)
	c := quick(t, replica.URL())
	c.ConnectTimeout = 3 * time.Second // the first attempt is at once
	b := newBroker(t, c)
	defer func() { _ = b.Close() }()
	if err := b.Start(ctx(t), receiver); err == nil || !strings.Contains(err.Error(), "replica") {
		t.Errorf("start on a replica: %v", err)
	}
}

// TestAddresses checks every way to give an address and a login.
func TestAddresses(t *testing.T) {
	t.Parallel()
	socket := t.TempDir() + "/redis.sock"
	server := redistest.Start(t, "requirepass p@ss/word", "unixsocket "+socket)
	for name, c := range map[string]redis.Config{
		"url":           {URL: "redis://:p%40ss%2Fword@" + server.Addr},
		"url, database": {URL: "redis://default:p%40ss%2Fword@" + server.Addr + "/3?client_name=me"},
		"socket":        {URL: "unix://:p%40ss%2Fword@" + socket + "?db=2"},
		"fields":        {Addrs: []string{server.Addr}, Password: "p@ss/word", DB: 1},
		"socket field":  {Addrs: []string{socket}, Password: "p@ss/word"},
		"password last": {URL: "redis://:wrong@" + server.Addr, Password: "p@ss/word"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t, c)
			defer func() { _ = b.Close() }()
			if err := b.Start(ctx(t), receiver); err != nil {
				t.Error(err)
			}
			want := map[bool]string{true: "name=me ", false: "name=hearth "}[name == "url, database"]
			// The clients of the last case may stay a little longer.
			await(t, "two clients with "+want, func() bool {
				text, _ := server.Do("CLIENT", "LIST").Text()
				return strings.Count(text, want) == 2
			})
		})
	}
}

// TestConfig checks that errors name the wrong setting, and never a secret.
func TestConfig(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		config redis.Config
		want   string
	}{
		{redis.Config{}, "URL or Config.Addrs"},
		{redis.Config{URL: "http://h"}, "Config.URL: it must begin with"},
		{redis.Config{URL: "redis://u:sec/ret@h"}, "Config.URL: not a URL"},
		{redis.Config{URL: "redis://u:sec%zzret@h"}, "Config.URL: not a URL"},
		{redis.Config{URL: "redis://:12#secret@h:6379"}, "Config.URL: not a URL"},
		{redis.Config{URL: "redis://:12?secret@h:6379"}, "Config.URL: not a URL"},
		{redis.Config{URL: "redis://u:12?db=1&secret@h"}, "Config.URL: not a URL"},
		{redis.Config{URL: "redis://:12/secret@h:6379/0"}, "Config.URL: not a URL"},
		{redis.Config{URL: "redis://h/0#secret"}, "Config.URL: not a URL"},
		{redis.Config{URL: "unix:///run/redis.sock#secret"}, "Config.URL: not a URL"},
		{redis.Config{URL: "redis:secret"}, "Config.URL: it must begin with"},
		{redis.Config{URL: "localhost:6379"}, "Config.URL: it must begin with redis://"},
		{redis.Config{URL: "10.0.0.1:6379"}, "Config.URL: it must begin with redis://"},
		{redis.Config{URL: "redis://h:65536"}, "a port that does not exist"},
		{redis.Config{URL: "redis://h?master_set=m&addr=i:65536"}, "a port that does not exist"},
		{redis.Config{URL: "redis://h/secret"}, "number of a database"},
		{redis.Config{URL: "redis://h/-1"}, "number of a database"},
		{redis.Config{URL: "redis://h?adr=secret"}, `unknown parameter "adr"`},
		{redis.Config{URL: "redis://h?dial_timeout=secret"}, "parameter dial_timeout"},
		{redis.Config{URL: "redis://h?skip_verify=1"}, "skip_verify without rediss"},
		{redis.Config{URL: "redis://h?x=%"}, "percent-encoded"},
		{redis.Config{URL: "unix://secret"}, "a socket is"},
		{redis.Config{URL: "redis://h?addr=i"}, "Config.Addrs: several need"},
		{redis.Config{URL: "redis://h", Addrs: []string{"i:1"}}, "set either URL or Addrs"},
		{redis.Config{URL: "redis://h/1?cluster=true"}, "Config.DB: a Cluster"},
		{redis.Config{URL: "redis://h?cluster=true&master_set=m"}, "Config.Cluster"},
		{redis.Config{URL: "redis://h?sentinel_password=secret"}, "Config.Sentinel.MasterSet"},
		{redis.Config{URL: "redis://secret@h"}, "Config.Password is required"},
		{redis.Config{Addrs: []string{"h"}}, "neither host:port"},
		{redis.Config{URL: "redis://h", ClientName: "a b"}, "Config.ClientName"},
		{redis.Config{URL: "redis://h", ProbeTimeout: -1}, "Config.ProbeTimeout is negative"},
		{redis.Config{URL: "redis://h", ReceiveQueue: redis.Bound{Bytes: -1}}, "Config.ReceiveQueue.Bytes is negative"},
	} {
		if _, err := redis.New(tt.config); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") && !strings.Contains(tt.want, "secret") {
			t.Errorf("%v: error %v, want one with %q", tt.config, err, tt.want)
		}
	}
	c := redis.Config{URL: "redis://user:secret@h?master_set=m&addr=i:7&sentinel_password=secret", Password: "secret"}
	for _, text := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), c.LogValue().String(), newBroker(t, c).String()} {
		if strings.Contains(text, "secret") || !strings.Contains(text, "h:6379, i:7") || !strings.Contains(text, `"m"`) {
			t.Errorf("shown as %s", text)
		}
	}
}

// TestStartLogsThatItWaits checks that a Start that waits for Redis logs that it does.
func TestStartLogsThatItWaits(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	nowhere := port.Free(t)
	b, err := redis.New(redis.Config{URL: "redis://" + nowhere, ConnectTimeout: 300 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	err = b.Start(t.Context(), receiver)
	if err == nil || strings.Count(err.Error(), "redis") != 1 || strings.Count(err.Error(), "connect to subscribe") != 1 {
		t.Errorf("start: %v", err)
	}
	if got := log.String(); strings.Count(got, "Redis cannot be used yet, retrying") != 1 || !strings.Contains(got, nowhere) {
		t.Errorf("log: %s", got)
	}
}
