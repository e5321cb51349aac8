package redis_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// A lineCounter is a log that counts warnings.
type lineCounter struct{ lines atomic.Int64 }

func (*lineCounter) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (c *lineCounter) Handle(context.Context, slog.Record) error  { c.lines.Add(1); return nil }
func (c *lineCounter) WithAttrs([]slog.Attr) slog.Handler         { return c }
func (c *lineCounter) WithGroup(string) slog.Handler              { return c }

// TestMalformedMessages publishes what any client with permission could. It is dropped and counted,
// one line is logged for many, and nothing else happens.
func TestMalformedMessages(t *testing.T) {
	t.Parallel()
	hostile := []string{
		"", "hello", "{", "null", "[]", "42", `"text"`, "\xff\xfe", "{\"serverId\":\"\xff\xff",
		`{"serverId":1,"type":"room","target":"r","event":"e"}`,
		`{"serverId":"x","type":"room","event":"no target"}`,
		`{"serverId":"x","type":"room","target":null,"event":"e"}`,
		`{"serverId":"x","type":"room","target":{},"event":"e"}`,
		`{"serverId":"x","type":"nobody","target":"r","event":"e"}`,
		`{"serverId":"x","type":"nodes","event":"missed","data":{"since":1,"until":2}}`,
		`{"serverId":"x","type":"nodes","event":"missed","data":{"since":-1}}`,
		`{"serverId":"x","type":"nodes","event":"missed","data":"long ago"}`,
		`{"serverId":"x","type":7,"target":"r","event":"e"}`,
		`{"serverId":"x","type":"room","target":"r","event":[]}`,
		`{"serverId":"x","type":"room","target":"r","event":"e","exclude":"y"}`,
		`{"serverId":"x","type":"room","target":"r","event":"e","data":}`,
		`{"serverId":"x","type":"room","target":"r","event":"e","data":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`,
		`{"serverId":"x","type":"broadcast","event":"e","data":"` + strings.Repeat("x", 10<<20) + `"}`,
		strings.Repeat("{", 100_000),
	}
	for _, patterns := range []bool{false, true} {
		server := redistest.Start(t)
		var log lineCounter
		c := calm(t, server.URL())
		c.Patterns, c.Logger = patterns, slog.New(&log)
		n, other := startNode(t, "n", c), startNode(t, "other", calm(t, server.URL()))
		channels := []string{protocol.RoomChannel("r"), protocol.ClientChannel("c"), protocol.UserChannel("u"), "hearth:calls"}
		if err := n.Hold(ctx(t), channels...); err != nil {
			t.Fatal(err)
		}
		channels = append(channels, protocol.BroadcastChannel)
		for _, channel := range channels {
			for _, payload := range hostile {
				server.Do("PUBLISH", channel, payload)
			}
		}
		want := uint64(len(channels) * len(hostile))
		if patterns { // patterns match any name
			server.Do("PUBLISH", protocol.RoomChannel(strings.Repeat("x", 100_000)), "hostile")
			want++
		}
		for range 100 { // also on the channel of its probes
			server.Do("PUBLISH", "hearth:probe:n", "hostile")
		}
		other.publish(other.room("r", "good"))
		if got := n.next(); got.Event != "good" {
			t.Errorf("got %.100v", got)
		}
		if h := n.Health(); h.Malformed != want || h.Delivered != 1 || h.State != broker.StateOK || h.Losses != 0 {
			t.Errorf("%d hostile messages, health is %+v", want, h)
		}
		if lines := log.lines.Load(); lines == 0 || lines > 3 {
			t.Errorf("%d lines were logged", lines)
		}
	}
}

// TestUnusualMessages checks that unusual messages within the contract arrive.
func TestUnusualMessages(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	n := startNode(t, "n", calm(t, server.URL()))
	large := strings.Repeat("x", 5<<20)
	for event, payload := range map[string]string{
		"order":  `{ "event": "order", "type": "broadcast", "unknown": [{}], "serverId": "x" }`,
		"null":   `{"serverId":"x","type":"broadcast","event":"null","data":null,"exclude":null,"target":null}`,
		"large":  `{"serverId":"x","type":"broadcast","event":"large","data":"` + large + `"}`,
		"sent":   `{"serverId":"n2","type":"broadcast","event":"sent"}`,
		"escape": `{"serverId":"\u006e2","type":"broadcast","event":"esc\u0061pe"}`,
	} {
		server.Do("PUBLISH", protocol.BroadcastChannel, payload)
		if got := n.next().Event; got != event {
			t.Errorf("got %q, want %q", got, event)
		}
	}
	server.Do("PUBLISH", protocol.BroadcastChannel, `{"serverId":"\u006e","type":"broadcast","event":"the node's own"}`)
	server.Do("PUBLISH", protocol.BroadcastChannel, `{"serverId":"x","type":"broadcast","event":"fence"}`)
	if got := n.next().Event; got != "fence" {
		t.Errorf("got %q", got)
	}
}

// TestTooLarge checks that messages that no receiver would accept are not sent.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	b := newBroker(t, redis.Config{Addrs: []string{"127.0.0.1:1"}, MaxMessage: 1000})
	defer func() { _ = b.Close() }()
	m := protocol.Message{ServerID: "x", Type: protocol.TypeBroadcast, Event: "e", Data: []byte(`"` + strings.Repeat("x", 1000) + `"`)}
	if err := b.Publish(t.Context(), m); !errors.Is(err, redis.ErrTooLarge) {
		t.Errorf("publish: error %v, want ErrTooLarge", err)
	}
	if errs := b.PublishAll(t.Context(), []protocol.Message{m}); len(errs) != 1 || !errors.Is(errs[0], redis.ErrTooLarge) {
		t.Errorf("publish all: errors %v, want ErrTooLarge", errs)
	}
}

// TestClosePublishesQueue checks that messages published just before Close are sent.
func TestClosePublishesQueue(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	n := startNode(t, "n", calm(t, server.URL()))
	for range 10 {
		b := newBroker(t, calm(t, server.URL()))
		const messages = 2000
		for range messages {
			if err := b.Publish(ctx(t), protocol.Message{ServerID: protocol.EmitterID, Type: protocol.TypeBroadcast, Event: "e"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if h := b.Health(); h.Published != messages || h.Dropped != 0 {
			t.Errorf("health is %+v", h)
		}
		for range messages {
			n.next()
		}
	}
}
