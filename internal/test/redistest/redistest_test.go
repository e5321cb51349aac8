package redistest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/hearthws/hearth/internal/test/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServer(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "requirepass secret")
	s.Do("SET", "k", "v")
	s.Kill()
	s.Restart()
	if !s.Do("GET", "k").IsNull() {
		t.Error("a key survived the crash")
	}
	s.Freeze()
	s.Thaw()
	if channels, clients := s.Subscriptions(); channels != 0 || clients != 0 {
		t.Errorf("%d channels and %d clients on a new server", channels, clients)
	}
}

func TestSentinelSet(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinel(t)
	if got := set.Master(); got != set.Servers[0].Addr {
		t.Errorf("the master is %s, want %s", got, set.Servers[0].Addr)
	}
	set.Failover()
	if got := set.Master(); got != set.Servers[1].Addr {
		t.Errorf("after a failover the master is %s, want %s", got, set.Servers[1].Addr)
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	redistest.StartCluster(t)
}
