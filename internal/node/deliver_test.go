package node

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// recordingMember is a member that records its messages.
type recordingMember struct {
	discardMember
	got []string
}

func (m *recordingMember) Write(p []byte) bool {
	end := ws.NewEndpoint(ws.Client, 1<<20, false)
	return end.Feed(append([]byte(nil), p...), m) == nil
}

func (m *recordingMember) WriteNow(p []byte) bool { return m.Write(p) }
func (m *recordingMember) Message(_ ws.Opcode, payload []byte) {
	m.got = append(m.got, string(payload))
}
func (m *recordingMember) Ping([]byte)       {}
func (m *recordingMember) Pong([]byte)       {}
func (m *recordingMember) Close(int, string) {}

// memberID returns the id of member i.
func memberID(i int) hub.ID { return hub.ID(uuid.NewSHA1(uuid.Nil, []byte{byte(i)})) }

// addMembers adds members to a node: two users with two clients each, in rooms.
func addMembers(n *Node) []*recordingMember {
	var all []*recordingMember
	for i := range 4 {
		m := &recordingMember{}
		m.Init(memberID(i), m, n.hub.Lane(0), m)
		n.hub.Admit(&m.Member, hub.Admission{User: fmt.Sprint("user", i%2), Rooms: []string{"all", fmt.Sprint("room", i/2)},
			Welcome: Encode("connected", nil)})
		all = append(all, m)
	}
	return all
}

// TestDeliverAllEqualsDeliver: messages that arrive together are delivered like messages that
// arrive one by one.
func TestDeliverAllEqualsDeliver(t *testing.T) {
	t.Parallel()
	large := json.RawMessage(`"` + strings.Repeat("x", maxSeriesBytes/3) + `"`)
	rapid.Check(t, func(t *rapid.T) {
		var ms []protocol.Message
		for range rapid.IntRange(1, 10).Draw(t, "runs") {
			m := protocol.Message{ServerID: "other", Type: protocol.MessageType(rapid.IntRange(1, 4).Draw(t, "type"))}
			if m.Type != protocol.TypeBroadcast {
				m.Target = rapid.SampledFrom([]string{"all", "room0", "room1", memberID(0).String(), memberID(3).String(), "user0", "nobody"}).Draw(t, "target")
			}
			for range rapid.IntRange(1, 5).Draw(t, "messages") {
				m.Event = rapid.SampledFrom([]string{"e", "a\"b", strings.Repeat("é\x00", 50)}).Draw(t, "event")
				m.Data = rapid.SampledFrom([]json.RawMessage{nil, json.RawMessage(fmt.Sprint(len(ms))), large}).Draw(t, "data")
				m.Exclude = nil
				if (m.Type == protocol.TypeBroadcast || m.Type == protocol.TypeRoom) && rapid.IntRange(0, 3).Draw(t, "exclude") == 0 {
					m.Exclude = []string{memberID(0).String(), memberID(2).String()}
				}
				ms = append(ms, m)
			}
		}
		together, each := newIdle(t), newIdle(t)
		want, got := addMembers(each), addMembers(together)
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

// TestSeriesLoss: when a series does not fit into a full queue, each of its messages counts as
// lost.
func TestSeriesLoss(t *testing.T) {
	t.Parallel()
	n := newIdle(t)
	s := &discardMember{}
	s.Init(memberID(0), s, n.hub.Lane(0), s)
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
		t.Errorf("sent %d messages: %d lost, %d delivered (including the welcome)", sent, lost, delivered)
	}
}

// TestSeriesLength: only consecutive messages of the same type and target form a series.
func TestSeriesLength(t *testing.T) {
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
		{"too large", []protocol.Message{large, room, large, room}, 2},
		{"nodes", []protocol.Message{node, node}, 1},
	} {
		if got := seriesLength(tt.ms); got != tt.want {
			t.Errorf("%s: a series of %d, want %d", tt.name, got, tt.want)
		}
	}
}

// TestHistoryOverflow: a client that recovers gets no message of a room with history after one that
// did not fit into its queue, although later ones are smaller and fit. It is taken out of the room,
// at a position from which it can recover.
func TestHistoryOverflow(t *testing.T) {
	t.Parallel()
	n := newIdle(t)
	m := &recordingMember{}
	m.Init(memberID(0), m, n.hub.Lane(0), m)
	m.Positions = true
	n.hub.Admit(&m.Member, hub.Admission{Rooms: []string{"chat"}, Welcome: Encode("connected", nil)})
	for n.env.Stats.DeliveriesLost.Load() == 0 {
		n.deliver(protocol.Message{ServerID: "other", Type: protocol.TypeBroadcast, Event: "fill", Data: textOf(maxSeriesBytes)})
	}
	large := textOf(4 * maxSeriesBytes)
	var ms []protocol.Message
	for i, data := range []json.RawMessage{nil, large, nil, nil} {
		ms = append(ms, protocol.Message{
			Type: protocol.TypeRoom, Target: "chat", Event: "e", Data: data, Position: protocol.Position{Offset: uint64(i + 1), Epoch: "x"},
		})
	}
	sent, err := historyNode{n}.send("chat", ms)
	n.runLane()
	got := slices.DeleteFunc(m.got, func(text string) bool { return !strings.Contains(text, `"room":"chat"`) })
	if sent != 2 || err == nil || len(got) != 1 || n.env.Stats.DeliveriesLost.Load() != 2 {
		t.Errorf("sent %d messages (%v), %d lost, got %d", sent, err, n.env.Stats.DeliveriesLost.Load(), len(got))
	}
}

// textOf returns a JSON string of n bytes.
func textOf(n int) json.RawMessage { return json.RawMessage(`"` + strings.Repeat("x", n-2) + `"`) }
