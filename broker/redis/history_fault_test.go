package redis_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// TestHistoryFaults publishes numbered messages to a room with history, while Redis fails in one of
// several ways. Each message that Redis accepted is delivered once with its position, or is in the
// log behind a gap that the node sees, or the epoch has changed after it. Faults after which Redis
// has all its data leave the epoch as it is, so that no message may be missing.
func TestHistoryFaults(t *testing.T) {
	slow(t)
	single := func(fault func(*redistest.Server)) func(*testing.T) (string, func()) {
		return func(t *testing.T) (string, func()) {
			server := redistest.Start(t)
			return server.URL(), func() { fault(server) }
		}
	}
	for name, tt := range map[string]struct {
		start func(*testing.T) (url string, fault func())
		kept  bool // the epoch
	}{
		"publishers killed": {single(func(s *redistest.Server) { s.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") }), true},
		"receivers killed":  {single(func(s *redistest.Server) { s.Do("CLIENT", "KILL", "TYPE", "pubsub") }), true},
		"scripts flushed":   {single(func(s *redistest.Server) { s.Do("SCRIPT", "FLUSH") }), true},
		"memory full": {single(func(s *redistest.Server) {
			s.Do("CONFIG", "SET", "maxmemory", "1")
			<-time.After(50 * time.Millisecond) // long enough for some messages to be rejected
			s.Do("CONFIG", "SET", "maxmemory", "0")
		}), true},
		"frozen": {single(func(s *redistest.Server) {
			s.Freeze()
			<-time.After(2 * time.Second) // longer than the timeouts
			s.Thaw()
		}), true},
		"flushed":   {single(func(s *redistest.Server) { s.Do("FLUSHALL") }), false},
		"restarted": {single(func(s *redistest.Server) { s.Kill(); s.Restart() }), false},
		"failover": {func(t *testing.T) (string, func()) {
			set := redistest.StartSentinel(t)
			return set.URL(), func() {
				old := set.Servers[slices.IndexFunc(set.Servers[:], func(s *redistest.Server) bool { return s.Addr == set.Master() })]
				set.Failover()
				old.AwaitReplica() // it goes on for about ten seconds
			}
		}, false},
		"master killed": {func(t *testing.T) (string, func()) {
			set := redistest.StartSentinel(t)
			return set.URL(), func() { set.Servers[0].Kill(); set.AwaitNewMaster(set.Servers[0].Addr) }
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, fault := tt.start(t)
			c := withHistory(t, url)
			c.WriteTimeout, c.ProbeTimeout, c.DialTimeout = time.Second, time.Second, time.Second
			c.History[0].Size = broker.MaxHistorySize
			a, b := holder(t, "a", c, "log"), holder(t, "b", c, "log")
			x := history{
				t: t, first: b.read("log", protocol.Position{}).Position.Epoch,
				seen: map[string]int{}, delivered: map[protocol.Position]bool{}, last: map[string]uint64{},
			}
			numbers := publishNumbers(a)
			for range 3 {
				numbers.await(100)
				fault()
			}
			numbers.await(100)
			accepted := numbers.end()
			for _, n := range []*node{a, b} {
				n.awaitState(broker.StateOK)
			}
			await(t, "messages through the right server", func() bool {
				a.confirm(a.room("log", "last"))
				x.takeAll(b)
				return b.read("log", protocol.Position{}).Position == x.at
			})
			x.fill(b)
			x.check(accepted, tt.kept)
		})
	}
}

// numbers publishes numbered messages, one after the other.
type numbers struct {
	accepted chan int // the numbers of messages that Redis accepted
	got      []int    // of those, owned by the test
	cancel   context.CancelFunc
}

func publishNumbers(n *node) *numbers {
	ctx, cancel := context.WithCancel(n.t.Context())
	p := &numbers{accepted: make(chan int), cancel: cancel}
	go func() { // ends with ctx; end waits for it
		defer close(p.accepted)
		for i := 0; ctx.Err() == nil; i++ {
			if n.PublishAll(ctx, []protocol.Message{n.room("log", fmt.Sprint(i))}) == nil {
				p.accepted <- i
			}
		}
	}()
	return p
}

// await waits for so many more accepted messages.
func (p *numbers) await(more int) {
	for range more {
		p.got = append(p.got, <-p.accepted)
	}
}

// end ends publishing and returns the accepted messages.
func (p *numbers) end() []int {
	p.cancel()
	for i := range p.accepted {
		p.got = append(p.got, i)
	}
	return p.got
}

// history checks the deliveries of one room as a node does.
type history struct {
	t         *testing.T
	first     string // the epoch at the beginning
	at        protocol.Position
	seen      map[string]int             // how often each event was delivered or recovered
	delivered map[protocol.Position]bool // the positions of messages that were delivered
	last      map[string]uint64          // by epoch: the offset of the last message
	began     int                        // the number of the first message of the last epoch
	recovered int
}

// takeAll takes what has arrived, up to a message "last" that may not arrive.
func (x *history) takeAll(n *node) {
	x.t.Helper()
	for timeout := time.After(time.Second); ; {
		select {
		case m := <-n.got:
			if x.take(m); m.Event == "last" {
				return
			}
		case <-timeout:
			return
		}
	}
}

// take takes a message. After a failover, messages of the old master may arrive among those of the
// new one.
func (x *history) take(m protocol.Message) {
	x.t.Helper()
	p := m.Position
	if p.Offset <= x.last[p.Epoch] {
		x.t.Errorf("%s is at %+v, after offset %d", m.Event, p, x.last[p.Epoch])
	}
	x.last[p.Epoch] = p.Offset
	x.delivered[p] = true
	x.at = p
	x.see(m)
}

func (x *history) see(m protocol.Message) {
	if m.Event != "last" {
		x.seen[m.Event]++
	}
}

// fill reads the messages of the last epoch that were not delivered from the log.
func (x *history) fill(n *node) {
	x.t.Helper()
	parts, err := n.ReadHistory(ctx(x.t), broker.HistoryRequest{Room: "log", After: protocol.Position{Epoch: x.at.Epoch}, Limit: broker.MaxHistorySize})
	if err != nil || parts[0].Unrecovered != "" || parts[0].Position != x.at {
		x.t.Fatalf("read: %+v, error %v, want all up to %+v", parts, err, x.at)
	}
	for _, m := range parts[0].Messages {
		if !x.delivered[m.Position] {
			x.recovered++
			x.see(m)
		}
	}
	if first := parts[0].Messages[0].Event; first == "last" {
		x.began = math.MaxInt
	} else if x.began, err = strconv.Atoi(first); err != nil {
		x.t.Error(err)
	}
}

// check checks that no accepted message is missing, except those before a change of the epoch.
func (x *history) check(accepted []int, kept bool) {
	x.t.Helper()
	if kept != (x.at.Epoch == x.first) {
		x.t.Errorf("the epoch was %s and is %s", x.first, x.at.Epoch)
	}
	missing := 0
	for _, n := range accepted {
		if x.seen[fmt.Sprint(n)] > 0 {
			continue
		}
		if missing++; kept || n >= x.began {
			x.t.Errorf("message %d is missing", n)
		}
	}
	for event, times := range x.seen {
		if times != 1 {
			x.t.Errorf("%s was delivered %d times", event, times)
		}
	}
	x.t.Logf("%d of %d accepted messages are missing; %d were recovered; %d epochs", missing, len(accepted), x.recovered, len(x.last))
}
