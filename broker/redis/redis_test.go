package redis_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/brokertest"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/test/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick returns a configuration with which everything happens within seconds.
func quick(t testing.TB, url string) redis.Config {
	return redis.Config{
		URL: url, DialTimeout: time.Second, WriteTimeout: time.Second, ProbeInterval: 200 * time.Millisecond, ProbeTimeout: time.Second,
		BackoffMin: 20 * time.Millisecond, BackoffMax: 200 * time.Millisecond, ReleaseGrace: 100 * time.Millisecond, HoldTimeout: testTimeout,
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
}

// calm is quick with long timeouts, for tests in which Redis answers: the machine may be busy.
func calm(t testing.TB, url string) redis.Config {
	c := quick(t, url)
	c.DialTimeout, c.WriteTimeout, c.ProbeTimeout = testTimeout/2, testTimeout/2, testTimeout/2
	return c
}

// A testWriter writes the log of a broker to the log of a test.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

// newBroker makes a broker that must be closed.
func newBroker(t testing.TB, c redis.Config) *redis.Broker {
	t.Helper()
	b, err := redis.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSuite(t *testing.T) {
	for name, change := range map[string]func(*redis.Config){
		"exact":    func(*redis.Config) {},
		"patterns": func(c *redis.Config) { c.Patterns = true },
		"prefix":   func(c *redis.Config) { c.Prefix = "shop:" },
	} {
		t.Run(name, func(t *testing.T) {
			brokertest.Run(t, brokertest.Suite{
				New: func(t *testing.T) func() broker.Broker {
					c := calm(t, redistest.Start(t).URL())
					c.ReceiveQueue.Messages = 10_000
					change(&c)
					return func() broker.Broker { return newBroker(t, c) }
				},
				NewHistory: func(t *testing.T, rules broker.HistoryRules) func() broker.Broker {
					c := calm(t, redistest.Start(t).URL())
					c.History = rules
					change(&c)
					return func() broker.Broker { return newBroker(t, c) }
				},
				Selective: name != "patterns",
				Overflow:  30_000,
				Timeout:   testTimeout,
			})
		})
	}
}

// TestClusterSuite runs the suite on one Cluster, with a prefix for each test.
func TestClusterSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Cluster")
	}
	cluster := redistest.StartCluster(t)
	tests := 0
	prepare := func(t *testing.T, rules broker.HistoryRules) func() broker.Broker {
		c := calm(t, cluster.URL())
		c.History = rules
		c.Prefix = fmt.Sprintf("test%d:", tests)
		c.ReceiveQueue.Messages = 10_000
		tests++
		return func() broker.Broker { return newBroker(t, c) }
	}
	brokertest.Run(t, brokertest.Suite{
		New:          func(t *testing.T) func() broker.Broker { return prepare(t, nil) },
		NewHistory:   prepare,
		HistoryApart: true,
		Selective:    true,
		Overflow:     30_000,
		Timeout:      testTimeout,
	})
}
