package brokertest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// historyRules are those of the brokers of the tests below.
var historyRules = broker.HistoryRules{
	{Rooms: "small:*", Size: 5, Age: time.Hour},
	{Rooms: "brief:*", Size: 100, Age: broker.MinHistoryAge},
	{Rooms: "log:*", Size: 5000, Age: time.Hour},
}

var historyTests = []test{
	{"SelfDelivery", testHistorySelfDelivery},
	{"Order", testHistoryOrder},
	{"Unchanged", testHistoryUnchanged},
	{"NoRule", testHistoryNoRule},
	{"Mixed", testHistoryMixed},
	{"Read", testHistoryRead},
	{"Bytes", testHistoryBytes},
	{"Size", testHistorySize},
	{"Age", testHistoryAge},
	{"Remove", testHistoryRemove},
	{"Keys", testHistoryKeys},
	{"KeysPublishAll", testHistoryKeysPublishAll},
	{"ReadMany", testHistoryReadMany},
	{"ReadWhilePublishing", testHistoryReadWhilePublishing},
	{"Errors", testHistoryErrors},
}

// strangeNames are names of rooms that could be mistaken for something else.
var strangeNames = []string{
	"log:a}", "log:{a}", "log:{}", "log:}{", "log:%7D", "log:%", `log:"quoted"\`, "log:a b\tc\nd", "log:ünï\u2028",
	"log:*", "log:[a]?", "log:" + strings.Repeat("x", 251), "log:",
}

// historyNode starts a node that holds the rooms.
func (w *fixture) historyNode(rooms ...string) *node {
	w.Helper()
	n := w.node()
	for _, room := range rooms {
		n.hold(protocol.RoomChannel(room))
	}
	return n
}

// history returns the node's broker.
func (n *node) history() broker.History {
	n.w.Helper()
	h, ok := n.Broker.(broker.History)
	if !ok {
		n.w.Fatalf("%T does not implement broker.History", n.Broker)
	}
	return h
}

// read reads the history of one room.
func (n *node) read(r broker.HistoryRequest) broker.HistoryPart {
	n.w.Helper()
	parts, err := n.history().ReadHistory(n.w.ctx(), r)
	if err != nil || len(parts) != 1 {
		n.w.Fatalf("read %+v: %d parts, error %v", r, len(parts), err)
	}
	return parts[0]
}

// newest returns the position of a room.
func (n *node) newest(room string) protocol.Position {
	n.w.Helper()
	return n.read(broker.HistoryRequest{Room: room}).Position
}

// fill publishes n messages to a room, with the events "1", "2", …, and waits for them.
func (n *node) fill(room string, messages int) protocol.Position {
	n.w.Helper()
	var last protocol.Message
	for i := range messages {
		n.publish(n.room(room, fmt.Sprint(i+1)))
	}
	for range messages {
		last = n.next()
	}
	return last.Position
}

func events(ms []protocol.Message) string {
	var names []string
	for _, m := range ms {
		names = append(names, m.Event)
	}
	return strings.Join(names, " ")
}

// testHistorySelfDelivery checks that all nodes get a message with the same position, including the
// node that published it, and that the position begins with 1.
func testHistorySelfDelivery(w *fixture) {
	room := w.name("log:room")
	a, b := w.historyNode(room), w.historyNode(room)
	start := b.newest(room)
	if start.Offset != 0 || start.Epoch == "" {
		w.Errorf("a new log begins at %+v", start)
	}
	a.publish(a.room(room, "1"))
	b.publish(b.room(room, "2"))
	for _, n := range []*node{a, b} {
		got := map[string]uint64{}
		for range 2 {
			m := n.next()
			got[m.Event] = m.Position.Offset
			if m.Position.Epoch != start.Epoch {
				w.Errorf("the epoch is %q, want %q", m.Position.Epoch, start.Epoch)
			}
		}
		if got["1"]+got["2"] != 3 {
			w.Errorf("the offsets are %v, want 1 and 2", got)
		}
	}
	if p := a.newest(room); p.Offset != 2 || p.Epoch != start.Epoch {
		w.Errorf("the position is %+v, want 2 in epoch %s", p, start.Epoch)
	}
}

// testHistoryOrder checks that the messages of concurrent publishers arrive at each node in the
// order of their offsets, without gaps.
func testHistoryOrder(w *fixture) {
	const publishers, messages = 4, 300
	rooms := []string{w.name("log:room"), w.name("log:room")}
	nodes := []*node{w.historyNode(rooms...), w.historyNode(rooms...), w.historyNode(rooms...)}
	ctx := w.ctx()
	var all sync.WaitGroup
	for p := range publishers {
		all.Go(func() {
			n := nodes[p%len(nodes)]
			for i := range messages {
				m := n.room(rooms[i%2], fmt.Sprint(p))
				m.Data = fmt.Append(nil, i/2)
				if err := n.Publish(ctx, m); err != nil {
					w.Errorf("publish: %v", err)
				}
			}
		})
	}
	all.Wait()
	var first []protocol.Message // what the first node got
	for i, n := range nodes {
		offsets, next, got := map[string]uint64{}, map[string]int{}, map[protocol.Position]string{}
		for range publishers * messages {
			m := n.next()
			offsets[m.Target]++
			if m.Position.Offset != offsets[m.Target] {
				w.Fatalf("node %d: message %s of publisher %s has offset %d, want %d", i, m.Data, m.Event, m.Position.Offset, offsets[m.Target])
			}
			from := m.Event + m.Target
			if want := fmt.Sprint(next[from]); string(m.Data) != want {
				w.Fatalf("node %d: message %s of publisher %s, want %s", i, m.Data, m.Event, want)
			}
			next[from]++
			got[m.Position] = m.Event + string(m.Data)
			if i == 0 {
				first = append(first, m)
			}
		}
		for _, m := range first {
			if got[m.Position] != m.Event+string(m.Data) {
				w.Fatalf("node %d has another message at %+v", i, m.Position)
			}
		}
	}
	for _, room := range rooms {
		part := nodes[0].read(broker.HistoryRequest{Room: room, Limit: publishers * messages})
		for _, m := range first {
			if m.Target == room {
				if diff := gocmp.Diff(m, part.Messages[m.Position.Offset-1]); diff != "" {
					w.Fatalf("the log differs:\n%s", diff)
				}
			}
		}
	}
}

// testHistoryUnchanged checks that all parts of a message are delivered and read as they were
// published, for rooms with any name.
func testHistoryUnchanged(w *fixture) {
	a, b := w.historyNode(strangeNames...), w.historyNode(strangeNames...)
	for _, room := range strangeNames {
		if !a.history().HasHistory(room) {
			w.Errorf("%q: no history", room)
		}
		for i, m := range []protocol.Message{
			{Event: "none"},
			{Event: "null", Data: []byte("null")},
			{Event: "digits", Data: []byte("12345678901234567890.50"), Exclude: []string{"x", `y"`}},
			{Event: "quo\"ted ü\n", Data: []byte(`{"offset":7,"epoch":"e","a":"}{%s \\ \" \ud800"}`)},
			{Event: "large", Data: []byte(`"` + strings.Repeat("x", 5000) + `"`)},
			{Event: "position", Data: []byte("1"), Position: protocol.Position{Offset: 77, Epoch: "mine"}},
		} {
			m.ServerID, m.Type, m.Target = a.id, protocol.TypeRoom, room
			a.publish(m)
			live := b.next()
			if p := live.Position; p.Offset != uint64(i+1) || p.Epoch == "" || p.Epoch == "mine" {
				w.Errorf("%q: position %+v, want offset %d", room, p, i+1)
			}
			m.Position = live.Position
			if diff := gocmp.Diff(m, live); diff != "" {
				w.Errorf("%q: delivered:\n%s", room, diff)
			}
			if diff := gocmp.Diff(m, a.next()); diff != "" {
				w.Errorf("%q: delivered to the publisher:\n%s", room, diff)
			}
			part := b.read(broker.HistoryRequest{Room: room, Limit: 1})
			if diff := gocmp.Diff(broker.HistoryPart{Position: m.Position, Messages: []protocol.Message{m}}, part); diff != "" {
				w.Errorf("%q: read:\n%s", room, diff)
			}
		}
	}
}

// testHistoryNoRule checks that nothing changes for rooms without a rule and for other targets.
func testHistoryNoRule(w *fixture) {
	room, client := w.name("plain"), w.name("log:client")
	a, b := w.historyNode(room), w.historyNode(room)
	b.hold(protocol.ClientChannel(client))
	for _, m := range []protocol.Message{
		{Type: protocol.TypeRoom, Target: room, Event: "room"},
		{Type: protocol.TypeClient, Target: client, Event: "client"},
		{Type: protocol.TypeBroadcast, Event: "broadcast"},
	} {
		m.ServerID, m.Data = a.id, []byte("1")
		keyed := m
		keyed.Key, keyed.Position = "key", protocol.Position{Offset: 3, Epoch: "e"}
		for range 2 {
			a.publish(keyed)
			if diff := gocmp.Diff(m, b.next()); diff != "" {
				w.Errorf("%s:\n%s", m.Event, diff)
			}
		}
	}
	b.publish(b.room(room, "fence"))
	a.expect("fence") // and none of its own
	if a.history().HasHistory(room) || !a.history().KeepsHistory() {
		w.Error("the room has history, or no room has")
	}
	part := a.read(broker.HistoryRequest{Room: room, Limit: 5})
	if diff := gocmp.Diff(broker.HistoryPart{Unrecovered: protocol.UnrecoveredNoHistory}, part); diff != "" {
		w.Errorf("read:\n%s", diff)
	}
	if err := a.history().RemoveHistory(w.ctx(), room); !errors.Is(err, broker.ErrNoHistory) {
		w.Errorf("remove: error %v, want ErrNoHistory", err)
	}
}

// testHistoryMixed checks the order of one goroutine's messages to rooms with and without history.
func testHistoryMixed(w *fixture) {
	const messages = 600
	kept, plain := w.name("log:room"), w.name("plain")
	a, b := w.historyNode(), w.historyNode(kept, plain)
	for i := range messages {
		m := a.room(kept, fmt.Sprint(i))
		switch i % 3 {
		case 1:
			m.Target = plain
		case 2:
			m = a.broadcast(fmt.Sprint(i))
		}
		a.publish(m)
	}
	var order, keptOrder, otherOrder []string
	for range messages {
		m := b.next()
		order = append(order, m.Event)
		if m.Target == kept {
			keptOrder = append(keptOrder, m.Event)
			continue
		}
		otherOrder = append(otherOrder, m.Event)
	}
	for i := range messages {
		event := fmt.Sprint(i)
		if i%3 == 0 && keptOrder[i/3] != event || i%3 > 0 && otherOrder[i/3*2+i%3-1] != event {
			w.Fatalf("message %d is not in its place among those of its kind", i)
		}
		if !w.suite.HistoryApart && order[i] != event {
			w.Fatalf("got %s where %d should be", order[i], i)
		}
	}
}

// testHistoryRead checks all answers to requests for one log.
func testHistoryRead(w *fixture) {
	room := w.name("log:room")
	a := w.historyNode(room)
	last := a.fill(room, 10)
	at := func(offset uint64) protocol.Position { return protocol.Position{Offset: offset, Epoch: last.Epoch} }
	foreign := protocol.Position{Offset: 5, Epoch: "foreign"}
	for _, tt := range []struct {
		name        string
		after       protocol.Position
		limit       int
		want        string
		unrecovered string
	}{
		{"newest", protocol.Position{}, 3, "8 9 10", ""},
		{"all", protocol.Position{}, 10, "1 2 3 4 5 6 7 8 9 10", ""},
		{"more than all", protocol.Position{}, 1000, "1 2 3 4 5 6 7 8 9 10", ""},
		{"position", protocol.Position{}, 0, "", ""},
		{"after the last", at(10), 5, "", ""},
		{"after the last, position", at(10), 0, "", ""},
		{"after", at(7), 5, "8 9 10", ""},
		{"after, exactly", at(7), 3, "8 9 10", ""},
		{"after, too many", at(6), 3, "", protocol.UnrecoveredLimit},
		{"after, position", at(9), 0, "", protocol.UnrecoveredLimit},
		{"from the start", at(0), 10, "1 2 3 4 5 6 7 8 9 10", ""},
		{"future", at(11), 5, "", protocol.UnrecoveredReset},
		{"future, position", at(11), 0, "", protocol.UnrecoveredReset},
		{"largest", at(protocol.MaxOffset), 5, "", protocol.UnrecoveredReset},
		{"foreign", foreign, 5, "", protocol.UnrecoveredReset},
		{"foreign, position", foreign, 0, "", protocol.UnrecoveredReset},
		{"foreign, start", protocol.Position{Epoch: "foreign"}, 5, "", protocol.UnrecoveredReset},
		{"no epoch", protocol.Position{Offset: 5}, 5, "", protocol.UnrecoveredReset},
	} {
		part := a.read(broker.HistoryRequest{Room: room, After: tt.after, Limit: tt.limit})
		if part.Position != last || events(part.Messages) != tt.want || part.Unrecovered != tt.unrecovered {
			w.Errorf("%s: %q, unrecovered %q, at %+v; want %q, %q, %+v", tt.name,
				events(part.Messages), part.Unrecovered, part.Position, tt.want, tt.unrecovered, last)
		}
		for i, m := range part.Messages {
			if want := last.Offset - uint64(len(part.Messages)-1-i); m.Position != at(want) {
				w.Errorf("%s: message %d is at %+v, want %d", tt.name, i, m.Position, want)
			}
		}
	}
}

// testHistoryBytes checks the bound on the data of the messages.
func testHistoryBytes(w *fixture) {
	room := w.name("log:room")
	a := w.historyNode(room)
	sizes := []int{1000, 10, 20, 30}
	for i, size := range sizes {
		m := a.room(room, fmt.Sprint(i+1))
		m.Data = bytes.Repeat([]byte("1"), size)
		a.publish(m)
		a.next()
	}
	epoch := a.newest(room).Epoch
	for _, tt := range []struct {
		after, bytes int // after -1: the newest
		want         string
		unrecovered  string
	}{
		{-1, 0, "1 2 3 4", ""},
		{-1, 1060, "1 2 3 4", ""},
		{-1, 1059, "2 3 4", ""},
		{-1, 60, "2 3 4", ""},
		{-1, 59, "3 4", ""},
		{-1, 30, "4", ""},
		{-1, 29, "", ""},
		{1, 60, "2 3 4", ""},
		{1, 59, "", protocol.UnrecoveredLimit},
		{3, 30, "4", ""},
		{3, 29, "", protocol.UnrecoveredLimit},
		{4, 1, "", ""},
	} {
		r := broker.HistoryRequest{Room: room, Limit: 100, Bytes: tt.bytes}
		if tt.after >= 0 {
			r.After = protocol.Position{Offset: uint64(tt.after), Epoch: epoch}
		}
		if part := a.read(r); events(part.Messages) != tt.want || part.Unrecovered != tt.unrecovered || part.Position.Offset != 4 {
			w.Errorf("after %d, %d bytes: %q, %q, at %d; want %q, %q, 4", tt.after, tt.bytes,
				events(part.Messages), part.Unrecovered, part.Position.Offset, tt.want, tt.unrecovered)
		}
	}
}

// testHistorySize checks that a log keeps the newest messages only.
func testHistorySize(w *fixture) {
	room := w.name("small:room")
	a := w.historyNode(room)
	for i := range 23 {
		a.publish(a.room(room, fmt.Sprint(i+1)))
		a.next()
		if got := len(a.read(broker.HistoryRequest{Room: room, Limit: 100}).Messages); got != min(i+1, 5) {
			w.Errorf("the log has %d messages after %d", got, i+1)
		}
	}
	part := a.read(broker.HistoryRequest{Room: room, Limit: 100})
	if events(part.Messages) != "19 20 21 22 23" || part.Position.Offset != 23 {
		w.Errorf("the log has %q at %d", events(part.Messages), part.Position.Offset)
	}
	for after, want := range map[uint64]string{17: protocol.UnrecoveredEvicted, 18: "", 0: protocol.UnrecoveredEvicted} {
		r := broker.HistoryRequest{Room: room, Limit: 100, After: protocol.Position{Offset: after, Epoch: part.Position.Epoch}}
		if got := a.read(r); got.Unrecovered != want || (want == "") != (len(got.Messages) == 5) {
			w.Errorf("after %d: %q, %d messages; want %q", after, got.Unrecovered, len(got.Messages), want)
		}
	}
}

// testHistoryAge checks that old messages are not returned, and that the room keeps its epoch.
func testHistoryAge(w *fixture) {
	room := w.name("brief:room")
	a := w.historyNode(room)
	last := a.fill(room, 3)
	w.eventually("the messages expire", func() bool {
		return len(a.read(broker.HistoryRequest{Room: room, Limit: 10}).Messages) == 0
	})
	part := a.read(broker.HistoryRequest{Room: room, Limit: 10, After: protocol.Position{Offset: 2, Epoch: last.Epoch}})
	if part.Unrecovered != protocol.UnrecoveredEvicted || part.Position != last {
		w.Errorf("after the second: %+v, want evicted at %+v", part, last)
	}
	if part := a.read(broker.HistoryRequest{Room: room, Limit: 10, After: last}); part.Unrecovered != "" || part.Position != last {
		w.Errorf("after the last: %+v", part)
	}
	if next := a.fill(room, 1); next.Offset != 4 || next.Epoch != last.Epoch {
		w.Errorf("the next message is at %+v, want 4 in the same epoch", next)
	}
}

// eventually waits until a condition holds.
func (w *fixture) eventually(what string, holds func() bool) {
	w.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(w.suite.Timeout); time.Now().Before(deadline); <-tick.C {
		if holds() {
			return
		}
	}
	w.Fatalf("it did not happen that %s", what)
}

// testHistoryRemove checks that a removed log is empty, with another epoch.
func testHistoryRemove(w *fixture) {
	room := w.name("log:room")
	a := w.historyNode(room)
	last := a.fill(room, 3)
	for range 2 { // it is no error to remove a log that is not there
		if err := a.history().RemoveHistory(w.ctx(), room); err != nil {
			w.Fatalf("remove: %v", err)
		}
	}
	for _, after := range []uint64{0, 2, 3} {
		part := a.read(broker.HistoryRequest{Room: room, Limit: 10, After: protocol.Position{Offset: after, Epoch: last.Epoch}})
		if part.Unrecovered != protocol.UnrecoveredReset || part.Position.Offset != 0 || part.Position.Epoch == last.Epoch {
			w.Errorf("after %d: %+v, want reset", after, part)
		}
	}
	if part := a.read(broker.HistoryRequest{Room: room, Limit: 10}); len(part.Messages) > 0 {
		w.Errorf("the log has messages: %+v", part)
	}
	current := a.newest(room)
	if next := a.fill(room, 1); next.Offset != 1 || next.Epoch != current.Epoch {
		w.Errorf("the next message is at %+v, want 1 in epoch %s", next, current.Epoch)
	}
}

// keyed returns a message with a key.
func (n *node) keyed(room, event, key string) protocol.Message {
	m := n.room(room, event)
	m.Key = key
	return m
}

// testHistoryKeys checks that a message with the key of an earlier one is not added.
func testHistoryKeys(w *fixture) {
	room, other := w.name("small:room"), w.name("small:room")
	a, b := w.historyNode(room, other), w.historyNode(room, other)
	long := strings.Repeat("k", protocol.MaxKey-1)
	if err := a.Publish(w.ctx(), a.keyed(room, "too long", long+"ab")); !errors.Is(err, protocol.ErrMessage) {
		w.Errorf("a key that is too long: error %v, want ErrMessage", err)
	}
	for _, m := range []protocol.Message{
		a.keyed(room, "1", "one"), a.keyed(room, "2", "two"), a.keyed(room, "again", "one"), a.keyed(room, "3", long+"a"),
		a.keyed(room, "4", long+"b"), a.keyed(room, "again", long+"a"), a.keyed(other, "5", "one"), a.keyed(room, "6", "{}%\"\n*ü"),
		a.keyed(room, "again", "{}%\"\n*ü"), a.keyed(room, "7", ""), a.keyed(room, "8", ""),
		a.keyed(room, "again", "one"), // its message is no longer in the log
		a.keyed(room, "9", "nine"),
	} {
		a.publish(m)
	}
	for _, n := range []*node{a, b} {
		got := map[string][]protocol.Message{}
		for range 9 {
			m := n.next()
			if m.Key != "" {
				w.Errorf("%q arrived with key %q", m.Event, m.Key)
			}
			got[m.Target] = append(got[m.Target], m)
		}
		if events(got[room]) != "1 2 3 4 6 7 8 9" || events(got[other]) != "5" {
			w.Errorf("got %q in one room and %q in the other", events(got[room]), events(got[other]))
		}
	}
	b.publish(b.keyed(room, "again", "nine")) // from another node
	b.publish(b.keyed(room, "10", "ten"))
	a.expect("10")
	if part := b.read(broker.HistoryRequest{Room: room, Limit: 3}); events(part.Messages) != "8 9 10" || part.Position.Offset != 9 {
		w.Errorf("the log has %q at %d, want 8 9 10 at 9", events(part.Messages), part.Position.Offset)
	}
	if err := a.history().RemoveHistory(w.ctx(), room); err != nil {
		w.Fatalf("remove: %v", err)
	}
	a.publish(a.keyed(room, "new log", "ten"))
	a.expect("new log")
}

// testHistoryKeysPublishAll checks that confirmed messages with keys can be published again.
func testHistoryKeysPublishAll(w *fixture) {
	const messages = 100
	c := w.confirmer()
	room := w.name("log:room")
	b := w.historyNode(room)
	ms := make([]protocol.Message, messages)
	for i := range ms {
		ms[i] = emitterMessage(fmt.Sprint(i))
		ms[i].Type, ms[i].Target, ms[i].Key = protocol.TypeRoom, room, fmt.Sprint("key ", i)
	}
	for _, part := range [][]protocol.Message{ms[:60], ms, ms} {
		if errs := c.PublishAll(w.ctx(), part); errs != nil {
			w.Fatalf("errors: %v", errors.Join(errs...))
		}
	}
	for i := range ms {
		if m := b.next(); m.Event != fmt.Sprint(i) || m.Position.Offset != uint64(i+1) {
			w.Fatalf("message %q has offset %d, want %d at %d", m.Event, m.Position.Offset, i, i+1)
		}
	}
	if p := b.newest(room); p.Offset != messages {
		w.Errorf("the log has %d messages, want %d", p.Offset, messages)
	}
}

// testHistoryReadMany checks that one call reads many rooms, in the order of the requests.
func testHistoryReadMany(w *fixture) {
	const rooms = 300
	a := w.node()
	requests := make([]broker.HistoryRequest, rooms+1)
	for i := range rooms {
		room := w.name("log:room")
		requests[i] = broker.HistoryRequest{Room: room, Limit: 10}
		a.hold(protocol.RoomChannel(room))
		for range i % 4 {
			a.publish(a.room(room, room))
			a.next()
		}
	}
	requests[rooms] = broker.HistoryRequest{Room: w.name("plain"), Limit: 10}
	parts, err := a.history().ReadHistory(w.ctx(), requests...)
	if err != nil || len(parts) != len(requests) {
		w.Fatalf("%d parts, error %v", len(parts), err)
	}
	for i, part := range parts[:rooms] {
		if part.Position.Offset != uint64(i%4) || len(part.Messages) != i%4 {
			w.Errorf("room %d has %d messages at %+v, want %d", i, len(part.Messages), part.Position, i%4)
		}
		for _, m := range part.Messages {
			if m.Event != requests[i].Room {
				w.Errorf("room %s has a message of %s", requests[i].Room, m.Event)
			}
		}
	}
	if parts[rooms].Unrecovered != protocol.UnrecoveredNoHistory {
		w.Errorf("the room without history: %+v", parts[rooms])
	}
	if parts, err := a.history().ReadHistory(w.ctx()); err != nil || len(parts) != 0 {
		w.Errorf("no requests: %d parts, error %v", len(parts), err)
	}
}

// testHistoryReadWhilePublishing checks that a node that holds a room, and then reads its history,
// misses nothing: the live messages that follow the position of the read are those after it.
func testHistoryReadWhilePublishing(w *fixture) {
	const messages, rounds = 2000, 20
	room := w.name("log:room")
	a := w.historyNode(room)
	ctx := w.ctx()
	var publisher sync.WaitGroup
	defer publisher.Wait()
	publisher.Go(func() {
		for i := range messages {
			if err := a.Publish(ctx, a.room(room, fmt.Sprint(i+1))); err != nil {
				w.Errorf("publish: %v", err)
			}
			if i%50 == 0 {
				a.next() // not much faster than messages are delivered
			}
		}
	})
	for range rounds {
		b := w.historyNode(room)
		part := b.read(broker.HistoryRequest{Room: room, Limit: 100})
		want := part.Position.Offset
		for i, m := range part.Messages {
			if m.Event != fmt.Sprint(m.Position.Offset) || m.Position.Offset != want-uint64(len(part.Messages)-1-i) {
				w.Fatalf("read message %s at %d", m.Event, m.Position.Offset)
			}
		}
		for end := min(messages, want+100); want < end; {
			m := b.next()
			if m.Position.Offset <= part.Position.Offset {
				continue // the read has returned it
			}
			if want++; m.Position.Offset != want || m.Event != fmt.Sprint(want) {
				w.Fatalf("after %d, the next live message is %s at %d, want %d", part.Position.Offset, m.Event, m.Position.Offset, want)
			}
		}
		if err := b.Close(); err != nil {
			w.Errorf("close: %v", err)
		}
	}
}

// testHistoryErrors checks the errors of contexts that are done and of brokers that are closed.
func testHistoryErrors(w *fixture) {
	a := w.node()
	room := w.name("log:room")
	done, cancel := context.WithCancel(context.Background())
	cancel()
	check := func(ctx context.Context, h broker.History, want error) {
		w.Helper()
		if _, err := h.ReadHistory(ctx, broker.HistoryRequest{Room: room}); !errors.Is(err, want) {
			w.Errorf("read: error %v, want %v", err, want)
		}
		if err := h.RemoveHistory(ctx, room); !errors.Is(err, want) {
			w.Errorf("remove: error %v, want %v", err, want)
		}
	}
	check(done, a.history(), context.Canceled)
	if err := a.Close(); err != nil {
		w.Errorf("close: %v", err)
	}
	check(w.ctx(), a.history(), broker.ErrClosed)
	if !a.history().HasHistory(room) {
		w.Error("the room has no history after close")
	}

	// A broker that was not started can read, too.
	idle := w.broker()
	h, ok := idle.(broker.History)
	if !ok {
		w.Fatalf("%T does not implement broker.History", idle)
	}
	if parts, err := h.ReadHistory(w.ctx(), broker.HistoryRequest{Room: room}); err != nil || parts[0].Position.Epoch == "" {
		w.Errorf("before start: %+v, error %v", parts, err)
	}
	if err := cmp.Or(h.RemoveHistory(w.ctx(), room), idle.Close()); err != nil {
		w.Errorf("before start: %v", err)
	}
}
