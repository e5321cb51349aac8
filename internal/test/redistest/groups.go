package redistest

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
)

// MasterSet is the name by which the Sentinels of StartSentinel know their master.
const MasterSet = "hearth"

// A SentinelSet is a master, a replica, and the Sentinels that watch them.
type SentinelSet struct {
	Servers   [2]*Server // the master first, at the beginning
	Sentinels []*Server
}

// StartSentinel starts a master with one replica, and three Sentinels. It returns when each
// Sentinel knows all of them.
func StartSentinel(tb testing.TB) *SentinelSet {
	tb.Helper()
	set := &SentinelSet{}
	set.Servers[0] = Start(tb)
	host, port, _ := net.SplitHostPort(set.Servers[0].Addr)
	set.Servers[1] = Start(tb, "replicaof "+host+" "+port, "repl-diskless-sync-delay 0")
	set.Servers[1].Await("replication", func() error {
		if text := set.Servers[1].text("INFO", "replication"); !strings.Contains(text, "master_link_status:up") {
			return errors.New("the replica is not linked")
		}
		return nil
	})
	for range 3 {
		set.Sentinels = append(set.Sentinels, start(tb, []string{
			fmt.Sprintf("sentinel monitor %s %s %s 2", MasterSet, host, port),
			"sentinel down-after-milliseconds " + MasterSet + " 3000",
			"sentinel failover-timeout " + MasterSet + " 10000",
		}, "--sentinel"))
	}
	for _, s := range set.Sentinels {
		s.Await("knowledge of the others", func() error {
			about := s.Do("SENTINEL", "MASTER", MasterSet)
			for key, want := range map[string]string{"num-slaves": "1", "num-other-sentinels": "2", "flags": "master"} {
				if got, _ := about.Get(key).Text(); got != want {
					return fmt.Errorf("a Sentinel says %s=%q, not %q", key, got, want)
				}
			}
			return nil
		})
	}
	return set
}

// URL returns the address of the set through its Sentinels.
func (set *SentinelSet) URL() string {
	url := "redis://" + set.Sentinels[0].Addr + "?master_set=" + MasterSet
	for _, s := range set.Sentinels[1:] {
		url += "&addr=" + s.Addr
	}
	return url
}

// Failover makes the replica the master, and returns when the Sentinels report that.
func (set *SentinelSet) Failover() {
	first := set.Sentinels[0]
	before := set.Master()
	first.Await("a failover that may begin", func() error {
		_, err := first.try("SENTINEL", "FAILOVER", MasterSet)
		return err
	})
	set.AwaitNewMaster(before)
}

// AwaitReplica waits until the server is a replica. The Sentinels close its connections then.
func (s *Server) AwaitReplica() {
	s.Await("to be a replica", func() error {
		reply, err := s.try("INFO", "replication")
		if err != nil {
			return err
		}
		if text, _ := reply.Text(); !strings.Contains(text, "role:slave") {
			return errors.New(text)
		}
		return nil
	})
}

// AwaitNewMaster waits until the Sentinels name another master than the one given.
func (set *SentinelSet) AwaitNewMaster(than string) {
	set.Sentinels[0].Await("another master", func() error {
		if set.Master() == than {
			return errors.New("it is still the master")
		}
		return nil
	})
}

// Master returns the address of the master that the first Sentinel reports.
func (set *SentinelSet) Master() string {
	s := set.Sentinels[0]
	parts, err := s.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterSet).Strings()
	if err != nil || len(parts) != 2 {
		s.tb.Fatalf("the master's address is %v, %v", parts, err)
	}
	return net.JoinHostPort(parts[0], parts[1])
}

// A Cluster has three masters, and the replicas that AddReplica adds.
type Cluster struct{ Servers []*Server }

// StartCluster starts a Cluster, and returns when all of it is ready.
func StartCluster(tb testing.TB) *Cluster {
	tb.Helper()
	c := &Cluster{}
	var buses []string
	for range 3 {
		s, bus := startClusterNode(tb)
		buses = append(buses, bus)
		c.Servers = append(c.Servers, s)
	}
	const slots = 1 << 14
	for i, s := range c.Servers {
		s.Do("CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(i*slots/3), fmt.Sprint((i+1)*slots/3-1))
		// Nodes that start with the same epoch choose new ones when they notice, at any time. A
		// node that does so while one of its slots moves claims the slot back, and the node that
		// has just received it deletes its content.
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
		host, port, _ := net.SplitHostPort(s.Addr)
		c.Servers[0].Do("CLUSTER", "MEET", host, port, buses[i])
	}
	for _, s := range c.Servers {
		s.Await("a cluster that is well", func() error {
			text := s.text("CLUSTER", "INFO")
			if !strings.Contains(text, "cluster_state:ok") || !strings.Contains(text, "cluster_known_nodes:3") {
				return errors.New(text)
			}
			return nil
		})
	}
	return c
}

// startClusterNode starts a server that knows no other one. bus is the port on which other nodes
// connect to it.
func startClusterNode(tb testing.TB) (s *Server, bus string) {
	tb.Helper()
	s = Start(tb, "cluster-enabled yes", "cluster-port {port}", "cluster-node-timeout 10000")
	_, bus, _ = net.SplitHostPort(s.Other)
	return s, bus
}

// AddReplica adds a replica of a master, and returns when it can take over.
func (c *Cluster) AddReplica(master *Server) *Server {
	master.tb.Helper()
	replica, bus := startClusterNode(master.tb)
	host, port, _ := net.SplitHostPort(replica.Addr)
	master.Do("CLUSTER", "MEET", host, port, bus)
	id := master.id()
	replica.Await("a master to follow", func() error {
		_, err := replica.try("CLUSTER", "REPLICATE", id)
		return err
	})
	replica.awaitText("its master's data", "master_link_status:up", "INFO", "replication")
	for _, s := range append([]*Server{replica}, c.Servers...) {
		s.awaitText("to know the replica", "slave "+id, "CLUSTER", "NODES")
		s.Await("links to all", func() error { // messages use them
			text := s.text("CLUSTER", "NODES")
			if n := strings.Count(text, " connected"); n != len(c.Servers)+1 {
				return errors.New(text)
			}
			return nil
		})
	}
	return replica
}

// TakeOver makes a replica the master, and returns when it is the master. With "TAKEOVER" it needs
// no votes. Use that when its master is down: the other masters vote for a failover only after a
// while.
func (c *Cluster) TakeOver(replica *Server, how ...string) {
	replica.tb.Helper()
	replica.Do(append([]string{"CLUSTER", "FAILOVER"}, how...)...)
	replica.awaitText("to be the master", "role:master", "INFO", "replication")
}

// awaitText waits until the reply to a command contains a text.
func (s *Server) awaitText(what, text string, command ...string) {
	s.tb.Helper()
	s.Await(what, func() error {
		if got := s.text(command...); !strings.Contains(got, text) {
			return errors.New(got)
		}
		return nil
	})
}

// id returns the node's id in its Cluster.
func (s *Server) id() string { return s.text("CLUSTER", "MYID") }

// text runs a command whose reply is text.
func (s *Server) text(command ...string) string {
	s.tb.Helper()
	text, err := s.Do(command...).Text()
	if err != nil {
		s.tb.Fatalf("%s: %v", strings.Join(command, " "), err)
	}
	return text
}

// URL returns the address of the Cluster. It names one node; clients find the others.
func (c *Cluster) URL() string { return "redis://" + c.Servers[0].Addr + "?cluster=true" }

// MoveSlot puts a key into its slot, and moves the slot with all its keys from one server to
// another, with the usual commands of a live Cluster. It calls between while the slot belongs
// partly to each.
func (c *Cluster) MoveSlot(key string, from, to int, between func()) {
	source, target := c.Servers[from], c.Servers[to]
	n, err := source.Do("CLUSTER", "KEYSLOT", key).Int()
	if err != nil {
		source.tb.Fatal(err)
	}
	slot := fmt.Sprint(n)
	source.Do("SET", key, "v")
	target.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id())
	source.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id())
	between()
	host, port, _ := net.SplitHostPort(target.Addr)
	for {
		keys, err := source.Do("CLUSTER", "GETKEYSINSLOT", slot, "1").Strings()
		if err != nil {
			source.tb.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		source.Do("MIGRATE", host, port, keys[0], "0", "5000")
	}
	for _, s := range append([]*Server{target, source}, c.Servers...) {
		s.Do("CLUSTER", "SETSLOT", slot, "NODE", target.id())
	}
	if target.Do("GET", key).IsNull() {
		target.tb.Fatalf("%q did not move", key)
	}
}
