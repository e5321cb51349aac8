package redis_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/redis"
	"github.com/hearthws/hearth/internal/test/redistest"
	"github.com/hearthws/hearth/protocol"
)

// TestPrefix checks that applications with different prefixes share a Redis, and the names of
// rooms, clients and users, without receiving each other's messages, and that a user with the
// channels of one prefix is enough for that application.
func TestPrefix(t *testing.T) {
	t.Parallel()
	for name, patterns := range map[string]bool{"exact": false, "patterns": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			prefixes := []string{"", "shop:", "shop:2", "sho"}
			type application struct{ a, b *node }
			var all []application
			for _, prefix := range prefixes {
				rules := []string{"ACL", "SETUSER", "user-" + prefix, "on", ">password", "nocommands", "+hello", "+ping", "+publish", "+subscribe", "+psubscribe", "+unsubscribe", "+punsubscribe", "resetchannels"}
				for _, channel := range []string{"ws:*", "hearth:*", "ws:room:*", "ws:client:*", "ws:user:*"} {
					rules = append(rules, "&"+prefix+channel)
				}
				server.Do(rules...)
				c := calm(t, "")
				c.Addrs, c.Username, c.Password = []string{server.Addr}, "user-"+prefix, "password"
				c.Prefix, c.Patterns = prefix, patterns
				app := application{startNode(t, "a", c), startNode(t, "b", c)}
				held := []string{protocol.RoomChannel("r"), protocol.ClientChannel("c"), protocol.UserChannel("u"), protocol.NodesChannel}
				if err := app.b.Hold(ctx(t), held...); err != nil {
					t.Fatal(err)
				}
				all = append(all, app)
			}
			for i, app := range all {
				for _, m := range []protocol.Message{
					{Type: protocol.TypeRoom, Target: "r"}, {Type: protocol.TypeClient, Target: "c"}, {Type: protocol.TypeUser, Target: "u"},
					{Type: protocol.TypeNodes}, {Type: protocol.TypeBroadcast},
				} {
					m.ServerID, m.Event, m.Data = "a", fmt.Sprintf("%s of %q", m.Type, prefixes[i]), []byte("1")
					app.a.confirm(m)
				}
			}
			for i, app := range all {
				for _, kind := range []protocol.MessageType{protocol.TypeRoom, protocol.TypeClient, protocol.TypeUser, protocol.TypeNodes, protocol.TypeBroadcast} {
					if got, want := app.b.next().Event, fmt.Sprintf("%s of %q", kind, prefixes[i]); got != want {
						t.Errorf("with prefix %q: got %q, want %q", prefixes[i], got, want)
					}
				}
				if h := app.b.Health(); h.Delivered != 5 || h.Malformed != 0 || h.State != broker.StateOK || h.Err != nil {
					t.Errorf("with prefix %q health is %+v", prefixes[i], h)
				}
			}
			if list, err := server.Do("ACL", "LOG").Array(); err != nil || len(list) > 0 {
				t.Errorf("Redis has rejected %d commands, %v", len(list), err)
			}
		})
	}
}

// TestCheckPrefix checks that prefixes are rejected that have a meaning in a pattern, or could make
// the channel of another application.
func TestCheckPrefix(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string]string{
		"": "", "shop:": "", "shop/eu-1.test_2:": "", "news:": "", "x": "", strings.Repeat("x", 64): "",
		"shop*": `"*"`, "sh?p": `"?"`, "[a]": `"["`, `a\`: `"\\"`, "a b": `" "`, "a\n": `"\n"`, "ä": "letters", "{a}": `"{"`,
		strings.Repeat("x", 65): "longer than 64", "ws:": `starts with "ws:"`, "ws:room:x": `"ws:room:"`, "hearth:probe:": `starts with "hearth:"`,
		"a:ws:user:b:": `"ws:user:"`,
	} {
		err := redis.CheckPrefix(prefix)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", prefix, err, want)
		}
		if _, err2 := redis.New(redis.Config{Addrs: []string{"127.0.0.1:1"}, Prefix: prefix}); (err2 == nil) != (err == nil) {
			t.Errorf("%q: New returns %v, CheckPrefix %v", prefix, err2, err)
		} else if err2 != nil && !strings.Contains(err2.Error(), "Config.Prefix") {
			t.Errorf("%q: error %v names no field", prefix, err2)
		}
	}
}
