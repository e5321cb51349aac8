package node

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// recordingMember is a member that keeps what it gets.
type recordingMember struct {
	discardMember
	got []string
}

func (l *recordingMember) Write(p []byte) bool {
	end := ws.NewEndpoint(ws.Client, 1<<20, false)
	return end.Feed(append([]byte(nil), p...), l) == nil
}

func (l *recordingMember) WriteNow(p []byte) bool { return l.Write(p) }
func (l *recordingMember) Message(_ ws.Opcode, payload []byte) {
	l.got = append(l.got, string(payload))
}
func (l *recordingMember) Ping([]byte)       {}
func (l *recordingMember) Pong([]byte)       {}
func (l *recordingMember) Close(int, string) {}

// idOf is the id of listener i.
func idOf(i int) hub.ID { return hub.ID(uuid.NewSHA1(uuid.Nil, []byte{byte(i)})) }

// listeners makes members of a node: two users with two clients each, in rooms.
func listeners(n *Node) []*recordingMember {
	var all []*recordingMember
	for i := range 4 {
		l := &recordingMember{}
		l.Init(idOf(i), l, n.hub.Lane(0), l)
		n.hub.Admit(&l.Member, hub.Admission{User: fmt.Sprint("user", i%2), Rooms: []string{"all", fmt.Sprint("room", i/2)},
			Welcome: Encode("connected", nil)})
		all = append(all, l)
	}
	return all
}

// TestTogetherAsOneByOne: messages that come together are delivered as each by itself would be.
func TestTogetherAsOneByOne(t *testing.T) {
	t.Parallel()
	large := json.RawMessage(`"` + strings.Repeat("x", maxSeriesBytes/3) + `"`)
	rapid.Check(t, func(t *rapid.T) {
		var ms []protocol.Message
		for range rapid.IntRange(1, 10).Draw(t, "runs") {
			m := protocol.Message{ServerID: "other", Type: protocol.MessageType(rapid.IntRange(1, 4).Draw(t, "type"))}
			if m.Type != protocol.TypeBroadcast {
				m.Target = rapid.SampledFrom([]string{"all", "room0", "room1", idOf(0).String(), idOf(3).String(), "user0", "nobody"}).Draw(t, "target")
			}
			for range rapid.IntRange(1, 5).Draw(t, "messages") {
				m.Event = rapid.SampledFrom([]string{"e", "a\"b", strings.Repeat("é\x00", 50)}).Draw(t, "event")
				m.Data = rapid.SampledFrom([]json.RawMessage{nil, json.RawMessage(fmt.Sprint(len(ms))), large}).Draw(t, "data")
				m.Exclude = nil
				if (m.Type == protocol.TypeBroadcast || m.Type == protocol.TypeRoom) && rapid.IntRange(0, 3).Draw(t, "exclude") == 0 {
					m.Exclude = []string{idOf(0).String(), idOf(2).String()}
				}
				ms = append(ms, m)
			}
		}
		together, each := newIdle(t), newIdle(t)
		want, got := listeners(each), listeners(together)
		for _, m := range ms {
			each.deliver(m)
		}
		together.deliverAll(ms)
		each.runLane()
		together.runLane()
		for i := range want {
			if diff := cmp.Diff(want[i].got, got[i].got); diff != "" {
				t.Fatalf("client%d got (-one by one +together):\n%s", i, diff)
			}
		}
		if want, got := each.hub.Delivered(), together.hub.Delivered(); want != got {
			t.Fatalf("delivered %d, one by one %d", got, want)
		}
	})
}

// TestSeriesIsLostAsWhatItIs: each message that a full queue has no room for counts.
func TestSeriesIsLostAsWhatItIs(t *testing.T) {
	t.Parallel()
	n := newIdle(t)
	s := &discardMember{}
	s.Init(idOf(0), s, n.hub.Lane(0), s)
	n.hub.Admit(&s.Member, hub.Admission{Welcome: Encode("connected", nil)})
	ms := make([]protocol.Message, 10)
	for i := range ms {
		ms[i] = protocol.Message{ServerID: "other", Type: protocol.TypeBroadcast, Event: "e", Data: json.RawMessage(strings.Repeat("1", maxSeriesBytes/11))}
	}
	sent := 0
	for ; n.env.Stats.DeliveriesLost.Load() == 0; sent += len(ms) {
		n.deliverAll(ms)
	}
	n.runLane()
	lost := int(n.env.Stats.DeliveriesLost.Load())
	if delivered := int(n.hub.Delivered()); lost != len(ms) || delivered != 1+sent-lost {
		t.Errorf("of %d messages %d were lost and %d delivered, the welcome included", sent, lost, delivered)
	}
}

// TestAlikeGoTogether: what is a series, and what is not.
func TestAlikeGoTogether(t *testing.T) {
	t.Parallel()
	room := protocol.Message{Type: protocol.TypeRoom, Target: "r", Event: "e"}
	with := func(change func(*protocol.Message)) protocol.Message {
		m := room
		change(&m)
		return m
	}
	large := with(func(m *protocol.Message) { m.Data = json.RawMessage(strings.Repeat("1", maxSeriesBytes/2)) })
	node := protocol.Message{Type: protocol.TypeNode, Target: "r", Event: "e"}
	excluding := with(func(m *protocol.Message) { m.Exclude = []string{"c"} })
	for _, tt := range []struct {
		name string
		ms   []protocol.Message
		want int
	}{
		{"one", []protocol.Message{room}, 1},
		{"all", []protocol.Message{room, with(func(m *protocol.Message) { m.Event = "f" }), room}, 3},
		{"another room", []protocol.Message{room, room, with(func(m *protocol.Message) { m.Target = "s" }), room}, 2},
		{"another type", []protocol.Message{room, with(func(m *protocol.Message) { m.Type = protocol.TypeUser })}, 1},
		{"one excludes", []protocol.Message{room, room, excluding}, 2},
		{"the first excludes", []protocol.Message{excluding, excluding}, 1},
		{"much", []protocol.Message{large, room, large, room}, 2},
		{"nodes", []protocol.Message{node, node}, 1},
	} {
		if got := seriesLength(tt.ms); got != tt.want {
			t.Errorf("%s: %d go together, want %d", tt.name, got, tt.want)
		}
	}
}
