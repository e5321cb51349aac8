package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// withHistory is calm with history for rooms whose names begin with "log".
func withHistory(t testing.TB, url string) redis.Config {
	c := calm(t, url)
	c.History = broker.HistoryRules{{Rooms: "log*", Size: 10_000, Age: time.Hour}}
	return c
}

// holder starts a node with history that holds rooms.
func holder(t testing.TB, id string, c redis.Config, rooms ...string) *node {
	t.Helper()
	n := startNode(t, id, c)
	channels := make([]string, len(rooms))
	for i, room := range rooms {
		channels[i] = protocol.RoomChannel(room)
	}
	if err := n.Hold(ctx(t), channels...); err != nil {
		t.Fatal(err)
	}
	return n
}

// read reads up to 10,000 messages of a room after a position.
func (n *node) read(room string, after protocol.Position) broker.HistoryPart {
	n.t.Helper()
	parts, err := n.ReadHistory(ctx(n.t), broker.HistoryRequest{Room: room, After: after, Limit: 10_000})
	if err != nil {
		n.t.Fatalf("read: %v", err)
	}
	return parts[0]
}

// confirmNext publishes a message to a room, and returns it as it arrives at the same node.
func (n *node) confirmNext(room, event string) protocol.Message {
	n.t.Helper()
	n.confirm(n.room(room, event))
	return n.next()
}

// keysOf returns the keys in Redis, sorted.
func keysOf(t *testing.T, s *redistest.Server) []string {
	t.Helper()
	keys, err := s.Do("KEYS", "*").Strings()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

// ttl returns for how long a key is kept.
func ttl(t *testing.T, s *redistest.Server, key string) time.Duration {
	t.Helper()
	ms, err := s.Do("PTTL", key).Int()
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(ms) * time.Millisecond
}

// TestHistoryKeysInRedis checks the names of the keys and how long they are kept.
func TestHistoryKeysInRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := withHistory(t, server.URL())
	c.Prefix = "shop:"
	n := holder(t, "n", c, "log}%{1")
	about := func(key string, want time.Duration) {
		t.Helper()
		if got := ttl(t, server, key); got > want || got < want-testTimeout {
			t.Errorf("%q is kept for %v, want %v", key, got, want)
		}
	}
	n.read("log}%{1", protocol.Position{})
	if got := keysOf(t, server); !slices.Equal(got, []string{"shop:hearth:{log%7D%25{1}:meta"}) {
		t.Errorf("after a read: keys %q", got)
	}
	about("shop:hearth:{log%7D%25{1}:meta", 5*time.Minute)
	m := n.room("log}%{1", "e")
	m.Key = "k}{"
	n.publish(m)
	n.next()
	if got := keysOf(t, server); !slices.Equal(got, []string{"shop:hearth:{log%7D%25{1}:key:k}{", "shop:hearth:{log%7D%25{1}:log", "shop:hearth:{log%7D%25{1}:meta"}) {
		t.Errorf("after a message: keys %q", got)
	}
	about("shop:hearth:{log%7D%25{1}:key:k}{", broker.KeyLifetime)
	about("shop:hearth:{log%7D%25{1}:log", time.Hour)
	about("shop:hearth:{log%7D%25{1}:meta", 25*time.Hour)
	server.Do("PEXPIRE", "shop:hearth:{log%7D%25{1}:meta", "1000000")
	n.read("log}%{1", protocol.Position{})
	about("shop:hearth:{log%7D%25{1}:meta", 25*time.Hour)
}

// TestHistoryOldMessagesLeaveRedis checks that a log in use does not keep messages that are too
// old.
func TestHistoryOldMessagesLeaveRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := withHistory(t, server.URL())
	c.History[0].Age = time.Second
	n := holder(t, "n", c, "log")
	for i := range 40 {
		n.confirmNext("log", fmt.Sprint("old ", i))
	}
	await(t, "the end of old messages", func() bool {
		n.confirmNext("log", "new")
		oldest, err := server.Do("LINDEX", "hearth:{log}:log", "0").Text()
		return err == nil && !strings.Contains(oldest, "old ")
	})
	if part := n.read("log", protocol.Position{}); len(part.Messages) == 0 || part.Messages[0].Event != "new" {
		t.Errorf("read %d messages", len(part.Messages))
	}
}

// TestHistoryAfterFaults checks that the log of a room continues after faults that lose nothing,
// and has a new epoch after all others.
func TestHistoryAfterFaults(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options []string
		fault   func(*testing.T, *redistest.Server)
		same    bool // the epoch
	}{
		{"scripts flushed", nil, func(_ *testing.T, s *redistest.Server) { s.Do("SCRIPT", "FLUSH") }, true},
		{"log evicted", nil, func(_ *testing.T, s *redistest.Server) { s.Do("DEL", "hearth:{log}:log") }, true},
		{"connections killed", nil, func(_ *testing.T, s *redistest.Server) { s.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") }, true},
		{"flushed", nil, func(_ *testing.T, s *redistest.Server) { s.Do("FLUSHALL") }, false},
		{"position evicted", nil, func(_ *testing.T, s *redistest.Server) { s.Do("DEL", "hearth:{log}:meta") }, false},
		{"position malformed", nil, func(_ *testing.T, s *redistest.Server) { s.Do("HSET", "hearth:{log}:meta", "o", "x") }, false},
		{"restarted empty", nil, func(_ *testing.T, s *redistest.Server) { s.Kill(); s.Restart() }, false},
		{"restarted with its data", []string{"appendonly yes", "appendfsync always"}, func(t *testing.T, s *redistest.Server) {
			s.Kill()
			s.Restart()
			await(t, "the data", func() bool { v, err := s.Do("LLEN", "hearth:{log}:log").Int(); return err == nil && v > 0 })
		}, false},
		{"a server with older data", []string{"appendonly yes", "appendfsync always"}, func(t *testing.T, s *redistest.Server) {
			s.Do("HSET", "hearth:{log}:meta", "o", "2") // as if the newest messages had not been copied to it
			s.Do("LPOP", "hearth:{log}:log")
			s.Kill()
			s.Restart()
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, tt.options...)
			c := withHistory(t, server.URL())
			a, b := holder(t, "a", c, "log"), holder(t, "b", c, "log")
			var last protocol.Message
			for i := range 3 {
				last = a.confirmNext("log", fmt.Sprint(i))
				b.next()
			}
			tt.fault(t, server)
			for _, n := range []*node{a, b} {
				n.awaitState(broker.StateOK)
			}
			var part broker.HistoryPart
			await(t, "a read", func() bool {
				parts, err := b.ReadHistory(ctx(t), broker.HistoryRequest{Room: "log", After: last.Position, Limit: 10})
				if err == nil {
					part = parts[0]
				}
				return err == nil
			})
			if same := part.Unrecovered == "" && part.Position == last.Position; same != tt.same || !same && part.Unrecovered != protocol.UnrecoveredReset {
				t.Errorf("after %+v: %+v", last.Position, part)
			}
			a.awaitWorks("log", b)
			next := a.confirmNext("log", "next")
			if same := next.Position.Epoch == last.Position.Epoch; same != tt.same {
				t.Errorf("the next message is at %+v, the last one was at %+v", next.Position, last.Position)
			}
			if got := b.next(); got.Position != next.Position {
				t.Errorf("b has it at %+v, a at %+v", got.Position, next.Position)
			}
		})
	}
}

// awaitWorks publishes to a room until the message arrives at this node and at another one, and
// removes what else has arrived.
func (n *node) awaitWorks(room string, other *node) {
	n.t.Helper()
	n.confirm(n.room(room, "works"))
	for _, to := range []*node{n, other} {
		for to.next().Event != "works" {
		}
	}
}

// TestHistoryScriptsFlushedWhilePublishing makes Redis forget the scripts all the time. No message
// is lost, and the order stays the same, also with messages for other targets.
func TestHistoryScriptsFlushedWhilePublishing(t *testing.T) {
	t.Parallel()
	const messages = 3000
	server := redistest.Start(t)
	c := withHistory(t, server.URL())
	a, b := holder(t, "a", c), holder(t, "b", c, "log")
	stop := make(chan struct{})
	var flusher sync.WaitGroup
	flusher.Go(func() { // ends with stop
		for {
			select {
			case <-stop:
				return
			default:
				server.Do("SCRIPT", "FLUSH")
			}
		}
	})
	defer flusher.Wait()
	defer close(stop)
	ms := make([]protocol.Message, messages)
	for i := range ms {
		if ms[i] = a.room("log", fmt.Sprint(i)); i%10 == 9 {
			ms[i] = a.broadcast(fmt.Sprint(i))
		}
	}
	for part := range slices.Chunk(ms, 10) { // a script is flushed between two pipelines
		if errs := a.PublishAll(ctx(t), part); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
	}
	offset := uint64(0)
	for i := range ms {
		m := b.next()
		if m.Event != fmt.Sprint(i) {
			t.Fatalf("got %s where %d should be", m.Event, i)
		}
		if m.Type == protocol.TypeRoom {
			if offset++; m.Position.Offset != offset {
				t.Fatalf("offset %d, want %d", m.Position.Offset, offset)
			}
		}
	}
}

// TestHistoryRejected checks that a message that Redis rejects changes nothing.
func TestHistoryRejected(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		reject     func(*redistest.Server)
		undo       func(*redistest.Server)
	}{
		{"memory full", "OOM", func(s *redistest.Server) { s.Do("CONFIG", "SET", "maxmemory", "1") }, func(s *redistest.Server) { s.Do("CONFIG", "SET", "maxmemory", "0") }},
		{"a key of another type", "WRONGTYPE", func(s *redistest.Server) {
			s.Do("RENAME", "hearth:{log}:log", "saved")
			s.Do("SET", "hearth:{log}:log", "x")
		}, func(s *redistest.Server) { s.Do("RENAME", "saved", "hearth:{log}:log") }},
		{"a position of another type", "WRONGTYPE", func(s *redistest.Server) {
			s.Do("RENAME", "hearth:{log}:meta", "saved")
			s.Do("SET", "hearth:{log}:meta", "x")
		}, func(s *redistest.Server) { s.Do("RENAME", "saved", "hearth:{log}:meta") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			n := holder(t, "n", withHistory(t, server.URL()), "log")
			first := n.confirmNext("log", "1")
			tt.reject(server)
			for range 3 {
				errs := n.PublishAll(ctx(t), []protocol.Message{n.room("log", "rejected"), n.broadcast("plain")})
				if len(errs) != 2 || errs[0] == nil || !strings.Contains(errs[0].Error(), tt.want) || errs[1] != nil {
					t.Fatalf("errors %v, want %s for the first", errs, tt.want)
				}
			}
			if h := n.Health(); h.Dropped != 3 || h.State != broker.StateOK || h.Err == nil {
				t.Errorf("health is %+v", h)
			}
			tt.undo(server)
			second := n.confirmNext("log", "2")
			if second.Event != "2" || second.Position != (protocol.Position{Offset: 2, Epoch: first.Position.Epoch}) {
				t.Errorf("the next message is %s at %+v, want 2", second.Event, second.Position)
			}
			if part := n.read("log", protocol.Position{}); len(part.Messages) != 2 || part.Messages[1].Event != "2" {
				t.Errorf("the log is %+v", part)
			}
		})
	}
}

// TestHistoryMalformed checks that a read fails if a log has something that no broker has written.
func TestHistoryMalformed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	n := holder(t, "n", withHistory(t, server.URL()), "log")
	valid := `{"serverId":"s","type":"room","target":"log","event":"e"}`
	now := fmt.Sprint(time.Now().UnixMilli())
	for i, entry := range []string{
		"", "x", valid, ":0:" + valid, now + ":" + valid, now + "::" + valid, now + ":0:", now + ":0:{}",
		now + `:0:{"serverId":"s","type":"room","target":"other","event":"e"}`,
		now + `:0:{"serverId":"s","type":"broadcast","event":"e"}`,
		now + `:0:{"serverId":"s","type":"room","target":"log","event":"e","offset":1,"epoch":"e"}`,
	} {
		if err := n.RemoveHistory(ctx(t), "log"); err != nil {
			t.Fatal(err)
		}
		n.confirmNext("log", "e")
		server.Do("LSET", "hearth:{log}:log", "0", entry)
		_, err := n.ReadHistory(ctx(t), broker.HistoryRequest{Room: "log", Limit: 1})
		if !errors.Is(err, redis.ErrMalformedHistory) {
			t.Errorf("%q: error %v, want ErrMalformedHistory", entry, err)
		}
		if got := n.Health().Malformed; got != uint64(i+1) {
			t.Errorf("%q: %d counted, want %d", entry, got, i+1)
		}
	}
	server.Do("DEL", "hearth:{log}:log")
	server.Do("SET", "hearth:{log}:log", "x")
	if _, err := n.ReadHistory(ctx(t), broker.HistoryRequest{Room: "log", Limit: 1}); !errors.Is(err, redis.ErrMalformedHistory) {
		t.Errorf("a string: error %v, want ErrMalformedHistory", err)
	}
	n.confirm(n.room("log2", "e"))
	parts, err := n.ReadHistory(ctx(t), broker.HistoryRequest{Room: "log", Limit: 1}, broker.HistoryRequest{Room: "log2", Limit: 1})
	if err != nil || parts[0].Unrecovered != protocol.UnrecoveredUnavailable || parts[0].Position != (protocol.Position{}) || len(parts[1].Messages) != 1 {
		t.Errorf("with another room: %+v, %v", parts, err)
	}
	server.Do("DEL", "hearth:{log}:log")
	n.confirmNext("log", "fine again")
	n.read("log", protocol.Position{})
}

// TestHistoryReadErrors checks reads while Redis does not answer, or is down.
func TestHistoryReadErrors(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := withHistory(t, server.URL())
	c.DialTimeout, c.WriteTimeout = time.Second, time.Second
	b := newBroker(t, c)
	defer func() { _ = b.Close() }()
	read := func(within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		_, err := b.ReadHistory(ctx, broker.HistoryRequest{Room: "log", Limit: 1})
		return err
	}
	if err := read(testTimeout); err != nil {
		t.Fatal(err)
	}
	server.Freeze()
	if err := read(50 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("frozen: error %v, want DeadlineExceeded", err)
	}
	if err := read(testTimeout); !errors.Is(err, broker.ErrDown) {
		t.Errorf("frozen: error %v, want ErrDown", err)
	}
	server.Thaw()
	if err := read(testTimeout); err != nil {
		t.Errorf("afterwards: error %v", err)
	}
	server.Kill()
	if err := read(testTimeout); !errors.Is(err, broker.ErrDown) {
		t.Errorf("down: error %v, want ErrDown", err)
	}
	server.Restart()
	if err := read(testTimeout); err != nil {
		t.Errorf("afterwards: error %v", err)
	}
	server.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	if err := read(testTimeout); err != nil {
		t.Errorf("on a connection that was closed: error %v", err)
	}
}

// TestHistoryFailover checks that a failover gives each room a new epoch, for reads and messages.
func TestHistoryFailover(t *testing.T) {
	slow(t)
	set := redistest.StartSentinel(t)
	c := withHistory(t, set.URL())
	a, b := holder(t, "a", c, "log", "log2"), holder(t, "b", c, "log", "log2")
	before := map[string]protocol.Position{}
	for _, room := range []string{"log", "log2"} {
		before[room] = a.confirmNext(room, "before").Position
		if got := b.next().Position; got != before[room] || b.read(room, protocol.Position{}).Position != got {
			t.Errorf("%s: b has %+v, a %+v", room, got, before[room])
		}
	}
	set.Failover()
	for _, n := range []*node{a, b} {
		n.nextLoss()
		n.awaitState(broker.StateOK)
	}
	await(t, "a read from the new master", func() bool {
		parts, err := b.ReadHistory(ctx(t), broker.HistoryRequest{Room: "log", After: before["log"], Limit: 10})
		return err == nil && parts[0].Unrecovered == protocol.UnrecoveredReset
	})
	for _, room := range []string{"log", "log2"} {
		a.awaitWorks(room, b)
		m := a.confirmNext(room, "after")
		if got := b.next(); got.Position != m.Position || m.Position.Epoch == before[room].Epoch {
			t.Errorf("%s: b has %+v, a %+v, before %+v", room, got.Position, m.Position, before[room])
		}
		if part := b.read(room, protocol.Position{}); part.Position != m.Position {
			t.Errorf("%s: the log is at %+v, want %+v", room, part.Position, m.Position)
		}
	}
}

func TestHistoryTooLarge(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := withHistory(t, server.URL())
	c.MaxMessage = 1000
	a, b := holder(t, "a", c), holder(t, "b", c, "log")
	for size := 1; ; size++ {
		m := a.room("log", "e")
		m.Data = []byte(`"` + strings.Repeat("x", size) + `"`)
		if err := a.Publish(ctx(t), m); err != nil {
			if !errors.Is(err, redis.ErrTooLarge) || size < 700 {
				t.Errorf("%d bytes: error %v", size, err)
			}
			break
		}
		if got := b.next(); len(got.Data) != size+2 {
			t.Fatalf("%d bytes became %d", size+2, len(got.Data))
		}
	}
	if h := b.Health(); h.Malformed != 0 {
		t.Errorf("a message was accepted by one node and not by the other: %+v", h)
	}
}

func TestHistoryConfig(t *testing.T) {
	t.Parallel()
	_, err := redis.New(redis.Config{URL: "redis://localhost:1", History: broker.HistoryRules{{Rooms: "a", Size: 0, Age: time.Hour}}})
	if err == nil || !strings.Contains(err.Error(), "Config.History") || !strings.Contains(err.Error(), "Size is 0") {
		t.Errorf("error %v", err)
	}
	b := newBroker(t, redis.Config{URL: "redis://localhost:1"})
	defer func() { _ = b.Close() }()
	if b.KeepsHistory() || b.HasHistory("a") {
		t.Error("a broker without rules keeps history")
	}
}

// TestHistoryFailback makes a server a replica of one that lacks its newest message, and the master
// again, while the nodes are connected to it. The offset of the lost message must not be used again
// in the same epoch. The room is not used in between.
func TestHistoryFailback(t *testing.T) {
	slow(t)
	server, other := redistest.Start(t), redistest.Start(t)
	c := withHistory(t, server.URL())
	a, b := holder(t, "a", c, "log"), holder(t, "b", c, "log")
	a.confirmNext("log", "1")
	b.next()
	host, port := split(server.Addr)
	other.Do("REPLICAOF", host, port)
	replicates := func(s *redistest.Server) func() bool {
		return func() bool {
			text, err := s.Do("INFO", "replication").Text()
			return err == nil && strings.Contains(text, "master_link_status:up") && !s.Do("EXISTS", "hearth:{log}:log").IsNull()
		}
	}
	await(t, "replication", replicates(other))
	other.Do("REPLICAOF", "NO", "ONE")
	lost := a.confirmNext("log", "lost").Position
	b.next()
	host, port = split(other.Addr)
	server.Do("REPLICAOF", host, port)
	await(t, "replication", replicates(server))
	for _, n := range []*node{a, b} {
		n.awaitState(broker.StateDown)
	}
	server.Do("REPLICAOF", "NO", "ONE")
	for _, n := range []*node{a, b} {
		n.awaitState(broker.StateOK)
	}
	a.awaitWorks("log", b)
	m := a.confirmNext("log", "next")
	if m.Position.Epoch == lost.Epoch {
		t.Errorf("%+v after %+v was lost", m.Position, lost)
	}
	if part := b.read("log", lost); part.Unrecovered != protocol.UnrecoveredReset || part.Position != m.Position {
		t.Errorf("read: %+v", part)
	}
}

// TestHistoryReplicationIDChanges changes the replication id of a server to which nodes are
// connected: it gets its first replica. The room has new epochs then, until all connections know
// the new id.
func TestHistoryReplicationIDChanges(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := withHistory(t, server.URL())
	a := holder(t, "a", c, "log")
	first := a.confirmNext("log", "1").Position
	replica := redistest.Start(t, "replicaof "+strings.Replace(server.Addr, ":", " ", 1), "repl-diskless-sync-delay 0")
	await(t, "replication", func() bool {
		text, err := replica.Do("INFO", "replication").Text()
		return err == nil && strings.Contains(text, "master_link_status:up")
	})
	b := holder(t, "b", c, "log")
	epoch := ""
	for i := range 10 {
		from := []*node{a, b}[i%2]
		from.confirm(from.room("log", fmt.Sprint(i)))
		m := a.next()
		if got := b.next(); got.Position != m.Position {
			t.Errorf("b has it at %+v, a at %+v", got.Position, m.Position)
		}
		part := from.read("log", protocol.Position{})
		switch {
		case i < 4: // each connection may find that its run id is too old
			epoch = part.Position.Epoch
		case part.Position != m.Position || m.Position.Epoch != epoch || epoch == first.Epoch:
			t.Errorf("message %d is at %+v, the log at %+v; the epoch was %s", i, m.Position, part.Position, epoch)
		}
	}
}

// TestHistoryPermissions checks that the permissions in docs/operations.md are enough, and that the
// error of a user without them names the reason.
func TestHistoryPermissions(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rules := []string{"nocommands", "+hello", "+publish", "+subscribe", "+psubscribe", "+unsubscribe", "resetchannels", "&shop:ws:*", "&shop:hearth:*"}
	server.Do(append([]string{"ACL", "SETUSER", "plain", "on", ">password"}, rules...)...)
	rules = append(rules, strings.Fields("~shop:hearth:* +info +eval +evalsha +time +get +set +del +hmget +hset +rpush +lpop +ltrim +lindex +llen +lrange +pexpire")...)
	server.Do(append([]string{"ACL", "SETUSER", "history", "on", ">password"}, rules...)...)
	c := withHistory(t, "redis://history:password@"+server.Addr)
	c.Prefix, c.History[0].Size = "shop:", 10
	c.History[0].Age = time.Second
	n := holder(t, "n", c, "log")
	for i := range 40 {
		m := n.room("log", fmt.Sprint(i))
		m.Key = fmt.Sprint(i / 2)
		n.confirm(m)
		n.read("log", protocol.Position{})
	}
	await(t, "the end of old messages", func() bool {
		n.confirm(n.room("log", "new"))
		oldest, err := server.Do("LINDEX", "shop:hearth:{log}:log", "0").Text()
		return err == nil && strings.Contains(oldest, "new")
	})
	if err := n.RemoveHistory(ctx(t), "log"); err != nil {
		t.Error(err)
	}
	if h := n.Health(); h.Dropped != 0 || h.Err != nil {
		t.Errorf("health is %+v", h)
	}

	c.URL = "redis://plain:password@" + server.Addr
	b := newBroker(t, c)
	defer func() { _ = b.Close() }()
	if _, err := b.ReadHistory(ctx(t), broker.HistoryRequest{Room: "log"}); err == nil || !strings.Contains(err.Error(), "NOPERM") || !strings.Contains(err.Error(), "+evalsha") {
		t.Errorf("read without permission: error %v", err)
	}
	r := broker.Receiver{ServerID: "b", Deliver: func(protocol.Message) {}}
	if err := b.Start(ctx(t), r); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("start without permission: error %v", err)
	}
}
