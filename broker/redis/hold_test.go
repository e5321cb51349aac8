package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// TestManyChannels holds a hundred thousand channels concurrently. They work, are subscribed
// exactly once, and leave nothing behind, neither in Redis nor in the node. It is not parallel,
// because it measures memory.
func TestManyChannels(t *testing.T) {
	if testing.Short() {
		t.Skip("holds many channels")
	}
	const holders, each, some = 20, 5000, 50
	server := redistest.Start(t)
	c := calm(t, server.URL())
	n, other := startNode(t, "n", c), startNode(t, "other", c)
	channel := func(holder, i int) string {
		return protocol.RoomChannel(fmt.Sprintf("room %d of holder %d", i, holder))
	}
	before := heap()
	var all sync.WaitGroup
	for h := range holders {
		all.Go(func() {
			for i := 0; i < each; i += some {
				channels := make([]string, some)
				for j := range channels {
					channels[j] = channel(h, i+j)
				}
				if err := n.Hold(ctx(t), channels...); err != nil {
					t.Errorf("hold: %v", err)
				}
			}
		})
	}
	all.Wait()
	// Broadcasts and the probes of two nodes have channels, too.
	if channels, _ := server.Subscriptions(); channels != holders*each+3 {
		t.Errorf("%d channels in Redis, want %d", channels, holders*each+3)
	}
	for _, h := range []int{0, holders / 2, holders - 1} {
		room := strings.TrimPrefix(channel(h, each-1), protocol.RoomChannel(""))
		other.publish(other.room(room, room))
		if got := n.next().Event; got != room {
			t.Errorf("got %q, want %q", got, room)
		}
	}
	for h := range holders {
		all.Go(func() {
			for i := range each {
				n.Release(channel(h, i))
			}
		})
	}
	all.Wait()
	await(t, "the end of the subscriptions", func() bool {
		channels, _ := server.Subscriptions()
		return channels == 3
	})
	// The node notices the end a little later.
	await(t, "the memory", func() bool { return heap() <= before+4<<20 })
	if h := n.Health(); h.State != broker.StateOK || h.Err != nil {
		t.Errorf("health is %+v", h)
	}
}

// heap returns the memory in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestGrace checks that a room that empties and fills again is not unsubscribed.
func TestGrace(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := calm(t, server.URL())
	c.ReleaseGrace = time.Hour
	n := startNode(t, "n", c)
	channel := protocol.RoomChannel("flaps")
	for range 3 {
		if err := n.Hold(ctx(t), channel); err != nil {
			t.Fatal(err)
		}
		n.Release(channel)
	}
	before := stat(t, server, "cmdstat_subscribe:")
	if err := n.Hold(ctx(t), channel); err != nil {
		t.Fatal(err)
	}
	if after := stat(t, server, "cmdstat_subscribe:"); after != before || before != "2" {
		t.Errorf("subscribed %s times, %s after holding it again; want 2 and 2", before, after)
	}
	if got := stat(t, server, "cmdstat_unsubscribe:"); got != "" {
		t.Errorf("unsubscribed %s times", got)
	}
}

// stat returns how often a command was called, as Redis says it; empty for never.
func stat(t *testing.T, s *redistest.Server, command string) string {
	t.Helper()
	text, err := s.Do("INFO", "commandstats").Text()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(text, command+"calls=")
	calls, _, _ := strings.Cut(rest, ",")
	return calls
}

// TestRejectedChannel checks that Redis rejects a whole command for one of its channels, and that
// only this channel is missing: Hold returns an error for it, and it is subscribed when Redis
// accepts it.
func TestRejectedChannel(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "user limited on >pw +@all ~* resetchannels &ws:broadcast &hearth:* &ws:room:good*")
	c := calm(t, "")
	c.Addrs, c.Username, c.Password = []string{server.Addr}, "limited", "pw"
	n, other := startNode(t, "n", c), startNode(t, "other", calm(t, server.URL()))
	channels := []string{protocol.RoomChannel("bad")}
	for i := range 700 {
		channels = append(channels, protocol.RoomChannel(fmt.Sprint("good", i)))
	}
	began := time.Now()
	if err := n.Hold(ctx(t), channels...); err == nil || !strings.Contains(err.Error(), "ws:room:bad") {
		t.Fatalf("hold: error %v, want one about ws:room:bad", err)
	}
	if err := n.Hold(ctx(t), channels[1:]...); err != nil {
		t.Errorf("hold of the others: %v", err)
	}
	if h := n.awaitState(broker.StateDegraded); h.Err == nil || !strings.Contains(h.Err.Error(), "NOPERM") {
		t.Errorf("health is %+v", h)
	}
	other.publish(other.room("good0", "to the others"))
	if got := n.next().Event; got != "to the others" {
		t.Errorf("got %q", got)
	}
	server.Do("ACL", "SETUSER", "limited", "&ws:room:bad")
	n.awaitState(broker.StateOK)
	l := n.nextLoss()
	if len(l.Channels) != 1 || l.Channels[0] != channels[0] || l.Since.Before(began) || l.Until.Before(l.Since) || l.Cause == nil {
		t.Errorf("reported %+v", l)
	}
	other.publish(other.room("bad", "at last"))
	if got := n.next().Event; got != "at last" {
		t.Errorf("got %q", got)
	}
}

// TestLateHold checks that the channels of a Hold that ends before Redis answers, by its context or
// by Config.HoldTimeout, are held anyway, and that a loss is reported.
func TestLateHold(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		context, patience time.Duration
		want              error
	}{
		"context":  {100 * time.Millisecond, testTimeout, context.DeadlineExceeded},
		"patience": {testTimeout, 100 * time.Millisecond, redis.ErrSlow},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			c := calm(t, server.URL())
			c.HoldTimeout = tt.patience
			n, other := startNode(t, "n", c), startNode(t, "other", c)
			server.Freeze()
			short, cancel := context.WithTimeout(t.Context(), tt.context)
			defer cancel()
			channel := protocol.RoomChannel("late")
			if err := n.Hold(short, channel); !errors.Is(err, tt.want) {
				t.Errorf("hold: error %v, want %v", err, tt.want)
			}
			server.Thaw()
			if l := n.nextLoss(); len(l.Channels) != 1 || l.Channels[0] != channel || l.Until.Before(l.Since) {
				t.Errorf("reported %+v", l)
			}
			other.publish(other.room("late", "e"))
			if got := n.next().Event; got != "e" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestPatternsHoldOthers checks that with patterns, channels that no pattern matches are subscribed
// exactly.
func TestPatternsHoldOthers(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := calm(t, server.URL())
	c.Patterns = true
	n := startNode(t, "n", c)
	if err := n.Hold(ctx(t), "hearth:calls", protocol.RoomChannel("r"), protocol.BroadcastChannel); err != nil {
		t.Fatal(err)
	}
	if channels, _ := server.Subscriptions(); channels != 3 { // broadcasts, probes, calls
		t.Errorf("%d channels, want 3", channels)
	}
	m := protocol.Message{ServerID: "x", Type: protocol.TypeBroadcast, Event: "call"}
	server.Do("PUBLISH", "hearth:calls", string(protocol.AppendMessage(nil, m)))
	if got := n.next().Event; got != "call" {
		t.Errorf("got %q", got)
	}
}

// TestGraceIsBounded checks that clients that join and leave ever new rooms do not have ever more
// channels subscribed, however long the grace, and that the channels released last are the ones
// that stay.
func TestGraceIsBounded(t *testing.T) {
	t.Parallel()
	const most, rooms, some = 1 << 14, 3 << 14, 512 // most is the default
	server := redistest.Start(t)
	c := calm(t, server.URL())
	c.ReleaseGrace = time.Hour
	n := startNode(t, "n", c)
	held := protocol.RoomChannel("held")
	if err := n.Hold(ctx(t), held); err != nil {
		t.Fatal(err)
	}
	var last string
	for i := 0; i < rooms; i += some {
		channels := make([]string, some)
		for j := range channels {
			last = protocol.RoomChannel(fmt.Sprint("room ", i+j))
			channels[j] = last
		}
		if err := n.Hold(ctx(t), channels...); err != nil {
			t.Fatal(err)
		}
		n.Release(channels...)
	}
	var channels int
	await(t, "the end of most subscriptions", func() bool {
		channels, _ = server.Subscriptions()
		return channels <= most+3 // and broadcasts, probes, and held channels
	})
	if channels < most/2 {
		t.Errorf("%d channels are left, want about %d", channels, most)
	}
	for channel, want := range map[string]int64{held: 1, last: 1, protocol.RoomChannel("room 0"): 0} {
		answer, err := server.Do("PUBSUB", "NUMSUB", channel).Array()
		if err != nil || len(answer) != 2 {
			t.Fatalf("%v, %v", answer, err)
		}
		if subscribers, _ := answer[1].Int(); subscribers != want {
			t.Errorf("%d subscribers of %s, want %d", subscribers, channel, want)
		}
	}
	if h := n.Health(); h.State != broker.StateOK || h.Err != nil {
		t.Errorf("health is %+v", h)
	}
}

// TestFewChannelsGoFirst checks that the few channels of a client that connects do not wait until
// all those are subscribed that others requested before it, which may be many thousands.
func TestFewChannelsGoFirst(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	began := make(chan struct{}) // closed when the first of many is requested
	var once sync.Once
	r := startRecorder(t, server, func(b []byte) {
		if bytes.Contains(b, []byte("ws:room:many ")) {
			once.Do(func() { close(began) })
		}
	})
	n := startNode(t, "n", calm(t, r.url))
	const holders, each = 20, 5000
	var all sync.WaitGroup
	for h := range holders {
		all.Go(func() {
			channels := make([]string, each)
			for i := range channels {
				channels[i] = protocol.RoomChannel(fmt.Sprintf("many %d %d", h, i))
			}
			if err := n.Hold(ctx(t), channels...); err != nil {
				t.Errorf("hold: %v", err)
			}
		})
	}
	<-began
	if err := n.Hold(ctx(t), protocol.ClientChannel("few"), protocol.RoomChannel("few")); err != nil {
		t.Errorf("hold: %v", err)
	}
	all.Wait()
	// Broadcasts, probes and the few have channels, too.
	if channels, _ := server.Subscriptions(); channels != holders*each+4 {
		t.Errorf("%d channels in Redis, want %d", channels, holders*each+4)
	}
	before, _, found := strings.Cut(r.sent(), protocol.ClientChannel("few"))
	if first := strings.Count(before, "ws:room:many "); !found || first > holders*each/2 {
		t.Errorf("%d of %d channels were requested first", first, holders*each)
	} else {
		t.Logf("%d channels were requested first", first)
	}
}

// TestHoldsTakeTurns checks that a Hold of few channels waits for no more of each Hold before it,
// however many these name.
func TestHoldsTakeTurns(t *testing.T) {
	t.Parallel()
	const holders, each, few = 20, 500, 24 // so few that the reported losses fit in node.lost
	server := redistest.Start(t)
	began, all := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r := startRecorder(t, server, func(b []byte) {
		if bytes.Contains(b, []byte("ws:room:many ")) {
			once.Do(func() { close(began); <-all })
		}
	})
	n := startNode(t, "n", calm(t, r.url))
	over, cancel := context.WithCancel(t.Context())
	cancel() // so Hold requests, and does not wait
	hold := func(name string, count int) {
		channels := make([]string, count)
		for i := range channels {
			channels[i] = protocol.RoomChannel(fmt.Sprint(name, " ", i))
		}
		if err := n.Hold(over, channels...); !errors.Is(err, context.Canceled) {
			t.Errorf("hold: error %v, want %v", err, context.Canceled)
		}
	}
	hold("many first", each)
	<-began // the first round is in progress
	for h := range holders {
		hold(fmt.Sprint("many ", h), each)
	}
	hold("few", few)
	close(all)
	want := (holders+1)*each + few + 2 // and broadcasts, probes
	await(t, "the subscriptions", func() bool {
		channels, _ := server.Subscriptions()
		return channels == want
	})
	before, _, found := strings.Cut(r.sent(), protocol.RoomChannel(fmt.Sprint("few ", few-1))+"\r\n")
	const round = 512 // a round has fewer: the first one, and the one with the last of the few
	if first := strings.Count(before, "ws:room:many "); !found || first > (holders+1)*few+2*round {
		t.Errorf("%d of %d channels were requested first", first, want)
	}
}

// A recorder passes on what a node writes to a Redis, and keeps it.
type recorder struct {
	url string // for the node

	mu  sync.Mutex // guards the field below
	buf strings.Builder
}

// startRecorder starts a recorder, which calls each before it passes something on.
func startRecorder(t *testing.T, server *redistest.Server, each func([]byte)) *recorder {
	t.Helper()
	r := &recorder{}
	r.url = "redis://" + serveClients(t, func(conn net.Conn) {
		redis, err := net.Dial("tcp", server.Addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = redis.Close() }()
		go func() { // ends with either connection
			_, _ = io.Copy(conn, redis)
			_ = conn.Close()
		}()
		b := make([]byte, 64<<10)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.buf.Write(b[:n])
			r.mu.Unlock()
			each(b[:n])
			if _, err := redis.Write(b[:n]); err != nil {
				return
			}
		}
	})
	return r
}

// sent returns what has been passed on.
func (r *recorder) sent() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}
