package redis_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// A confirmed message is one that Redis has accepted.
type confirmed struct {
	event      string
	begin, end time.Time // of the call
}

// A numberedEmitter publishes numbered broadcasts until it is stopped, each when the one before it
// has been confirmed.
type numberedEmitter struct {
	t    *testing.T
	b    *redis.Broker
	stop context.CancelFunc
	done chan []confirmed // receives the confirmed messages
}

// emit starts an emitter.
func emit(t *testing.T, c redis.Config) *numberedEmitter {
	ctx, stop := context.WithCancel(t.Context())
	e := &numberedEmitter{t: t, b: newBroker(t, c), stop: stop, done: make(chan []confirmed, 1)}
	t.Cleanup(func() { stop(); _ = e.b.Close() })
	go func() { // ends with stop; done is received by end, or dropped with the test
		var all []confirmed
		every := time.NewTicker(5 * time.Millisecond)
		defer every.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			s := confirmed{event: strconv.Itoa(i), begin: time.Now()}
			m := protocol.Message{ServerID: protocol.EmitterID, Type: protocol.TypeBroadcast, Event: s.event, Data: []byte("1")}
			if errs := e.b.PublishAll(ctx, []protocol.Message{m}); errs == nil {
				s.end = time.Now()
				all = append(all, s)
			}
			<-every.C
		}
		e.done <- all
	}()
	return e
}

// end stops and closes the emitter, and returns the messages that Redis has accepted.
func (e *numberedEmitter) end() []confirmed {
	e.t.Helper()
	e.stop()
	all := <-e.done
	if err := e.b.Close(); err != nil {
		e.t.Error(err)
	}
	return all
}

// checkAccounted checks that n received each of the messages once, or was told that it may have
// missed it. It returns how many were not delivered. All losses must have been reported before.
func (n *node) checkAccounted(all []confirmed) (missing int) {
	n.t.Helper()
	got := map[string]int{}
	var losses []broker.Loss
	for {
		select {
		case m := <-n.got:
			got[m.Event]++
			continue
		case l := <-n.lost:
			losses = append(losses, l)
			continue
		default:
		}
		break
	}
	for _, s := range all {
		switch got[s.event] {
		case 1:
			continue
		case 0:
		default:
			n.t.Errorf("%s arrived %d times at %s", s.event, got[s.event], n.id)
		}
		missing++
		told := false
		for _, l := range losses {
			told = told || !l.Since.After(s.begin) && !l.Until.Before(s.end)
		}
		if !told {
			n.t.Errorf("%s was lost for %s between %v and %v, and no loss covers it: %v", s.event, n.id, s.begin, s.end, losses)
			return missing
		}
	}
	return missing
}

// awaitFence waits until a message of another emitter has arrived, and so all before it.
func (n *node) awaitFence(c redis.Config) {
	n.t.Helper()
	fence := newBroker(n.t, c)
	defer func() { _ = fence.Close() }()
	m := protocol.Message{ServerID: protocol.EmitterID, Type: protocol.TypeBroadcast, Event: "fence", Data: []byte("1")}
	await(n.t, "a message after all", func() bool { return fence.PublishAll(ctx(n.t), []protocol.Message{m}) == nil })
	var kept []protocol.Message
	for {
		m := n.next()
		if m.Event == "fence" {
			break
		}
		kept = append(kept, m)
	}
	for _, m := range kept {
		n.got <- m
	}
}

// TestFailoverAccountsForAll checks that in an orderly failover each message that Redis accepted
// from an emitter is delivered, or covered by a loss that is reported to the node. A demoted master
// goes on answering for seconds, and an emitter that asks the Sentinels less often than the node
// goes on publishing to it.
func TestFailoverAccountsForAll(t *testing.T) {
	slow(t)
	for name, tt := range map[string]struct {
		interval time.Duration // of the emitter's checks
		cutOff   bool          // the node loses the old master before the emitter does
	}{
		"the emitter asks":                   {2 * time.Second, false},
		"the emitter is cut off":             {time.Minute, false},
		"the emitter asks, too late":         {2 * time.Second, true},
		"the emitter is cut off, a node too": {time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := redistest.StartSentinel(t)
			c := calm(t, set.URL())
			n := startNode(t, "n", c)
			if err := n.Hold(ctx(t), protocol.NodesChannel); err != nil {
				t.Fatal(err)
			}
			lazy := c
			lazy.ProbeInterval, lazy.ClientName = tt.interval, "emitter"
			e := emit(t, lazy)
			await(t, "the first message", func() bool { return len(n.got) > 0 })
			set.Failover()
			await(t, "the node's new connection", func() bool { return len(n.lost) > 0 })
			n.awaitState(broker.StateOK)
			if tt.cutOff {
				set.Servers[0].Do("CLIENT", "KILL", "TYPE", "pubsub")
			}
			await(t, "the emitter at the new master", func() bool {
				text, err := set.Servers[1].Do("CLIENT", "LIST").Text()
				return err == nil && strings.Contains(text, "name=emitter")
			})
			all := e.end()
			n.awaitFence(c)
			missing := n.checkAccounted(all)
			t.Logf("%d published, %d not delivered; the emitter's health is %+v", len(all), missing, e.b.Health())
		})
	}
}

// TestMissedReports checks what a node does with a publisher's report that messages may be missing.
func TestMissedReports(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := calm(t, server.URL())
	early := time.Now()
	n, other := startNode(t, "n", c), startNode(t, "other", c)
	if err := n.Hold(ctx(t), protocol.NodesChannel); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	report := func(from string, since, until time.Duration) {
		data, err := protocol.Missed{Since: since, Until: until}.Data()
		if err != nil {
			t.Fatal(err)
		}
		m := protocol.Message{ServerID: from, Type: protocol.TypeNodes, Event: protocol.NodeMissed, Data: data}
		other.confirm(m)
	}
	report("emitter", time.Hour, time.Minute) // before the node started
	report("n", time.Hour, 0)                 // its own report: it has received its messages
	other.confirm(other.broadcast("fence"))
	if got := n.next().Event; got != "fence" {
		t.Errorf("got %q", got)
	}
	select {
	case l := <-n.lost:
		t.Errorf("reported %+v", l)
	default:
	}
	report("emitter", time.Hour, 0)
	l := n.nextLoss()
	if l.Messages != 0 || l.Channels != nil || l.Cause == nil || l.Since.Before(early) || l.Since.After(started) || l.Until.Before(started) {
		t.Errorf("reported %+v; the node was started between %v and %v", l, early, started)
	}
	if h := n.Health(); h.State != broker.StateOK || h.Losses != 1 || h.Malformed != 0 {
		t.Errorf("health is %+v", h)
	}
}
