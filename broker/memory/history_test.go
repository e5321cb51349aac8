package memory_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/protocol"
)

const (
	minutes = "minutes:"
	seconds = "seconds:"
)

func historyBus() *memory.Bus {
	return memory.NewBus(memory.Config{History: broker.HistoryRules{
		{Rooms: minutes + "*", Size: 10, Age: 5 * time.Minute},
		{Rooms: seconds + "*", Size: 10, Age: 5 * time.Second},
	}})
}

func publish(t *testing.T, n *memory.Broker, room, key string) {
	t.Helper()
	m := protocol.Message{ServerID: "a", Type: protocol.TypeRoom, Target: room, Event: "e", Key: key}
	if err := n.Publish(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, n *memory.Broker, room string) broker.HistoryPart {
	t.Helper()
	parts, err := n.ReadHistory(t.Context(), broker.HistoryRequest{Room: room, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	return parts[0]
}

// TestHistoryTimes checks, second by second, when messages, keys and positions expire. The room of
// another rule, and its use, make no difference.
func TestHistoryTimes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		room     string
		age      time.Duration
		idle     time.Duration // until the log has neither messages nor keys
		otherUse bool
	}{
		{minutes + "room", 5 * time.Minute, 5 * time.Minute, false},
		{minutes + "room", 5 * time.Minute, 5 * time.Minute, true},
		{seconds + "room", 5 * time.Second, broker.KeyLifetime, false},
		{seconds + "room", 5 * time.Second, broker.KeyLifetime, true},
	} {
		t.Run(fmt.Sprint(tt.room, tt.otherUse), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := historyBus().Broker()
				start := time.Now()
				until := func(at time.Duration) {
					time.Sleep(time.Until(start.Add(at)))
					if tt.otherUse {
						read(t, n, minutes+"other")
						publish(t, n, seconds+"other", "")
					}
				}
				publish(t, n, tt.room, "k")
				until(time.Second)
				publish(t, n, tt.room, "")
				first := read(t, n, tt.room)
				if len(first.Messages) != 2 {
					t.Errorf("%d messages, want 2", len(first.Messages))
				}
				for _, step := range []struct {
					at   time.Duration
					want int
				}{{tt.age - 1, 2}, {tt.age, 1}, {tt.age + time.Second - 1, 1}, {tt.age + time.Second, 0}} {
					until(step.at)
					if part := read(t, n, tt.room); len(part.Messages) != step.want || part.Position != first.Position {
						t.Errorf("after %v: %d messages at %+v, want %d at %+v", step.at, len(part.Messages), part.Position, step.want, first.Position)
					}
				}
				used := max(tt.idle+time.Second, 6*time.Minute)
				until(used)
				if got := read(t, n, tt.room).Position; got != first.Position {
					t.Errorf("position %+v, want %+v", got, first.Position)
				}
				until(used + 24*time.Hour - 1)
				if got := read(t, n, tt.room).Position; got != first.Position {
					t.Errorf("a day later: position %+v, want %+v", got, first.Position)
				}
				until(used + 48*time.Hour)
				if got := read(t, n, tt.room).Position; got.Offset != 0 || got.Epoch == first.Position.Epoch {
					t.Errorf("a day after the last use: position %+v, want a new one", got)
				}
			})
		})
	}
}

// TestHistoryKeyLifetime checks how long a key counts, also when the messages expire earlier.
func TestHistoryKeyLifetime(t *testing.T) {
	t.Parallel()
	for _, room := range []string{minutes + "room", seconds + "room"} {
		t.Run(room, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := historyBus().Broker()
				publish(t, n, room, "k")
				time.Sleep(broker.KeyLifetime - 1)
				publish(t, n, room, "k")
				if got := read(t, n, room).Position.Offset; got != 1 {
					t.Errorf("just within the lifetime: offset %d, want 1", got)
				}
				time.Sleep(time.Nanosecond)
				publish(t, n, room, "k")
				if got := read(t, n, room).Position.Offset; got != 2 {
					t.Errorf("after the lifetime: offset %d, want 2", got)
				}
				publish(t, n, room, "k")
				if got := read(t, n, room).Position.Offset; got != 2 {
					t.Errorf("repeated: offset %d, want 2", got)
				}
			})
		})
	}
}

// TestHistoryEmptyLogsAreBounded checks that reading the histories of very many rooms keeps the
// positions of a bounded number of them, and never drops messages.
func TestHistoryEmptyLogsAreBounded(t *testing.T) {
	t.Parallel()
	n := historyBus().Broker()
	publish(t, n, minutes+"kept", "")
	kept, first := read(t, n, minutes+"kept"), read(t, n, minutes+"first")
	const others = 1 << 16
	for i := range others - 1 {
		read(t, n, fmt.Sprint(minutes, i))
	}
	if got := read(t, n, minutes+"first"); got.Position != first.Position {
		t.Errorf("%d empty logs: position %+v, want %+v", others, got.Position, first.Position)
	}
	for i := range others {
		read(t, n, fmt.Sprint(minutes, "more", i))
	}
	if got := read(t, n, minutes+"first"); got.Position == first.Position {
		t.Error("the position of an empty log is still known, after as many others as are kept")
	}
	if got := read(t, n, minutes+"kept"); got.Position != kept.Position || len(got.Messages) != 1 {
		t.Errorf("the log with a message: %+v, want %+v", got, kept)
	}
}

// TestHistoryInvalidRules checks that a broker with invalid rules does nothing.
// TestHistoryHeldLogsAreKept: the log of a room that a node holds is kept, however many others
// there are, and however long it is not used.
func TestHistoryHeldLogsAreKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bus := historyBus()
		n, other := bus.Broker(), bus.Broker()
		const rooms = 1<<16 + 1000
		name := func(i int) string { return fmt.Sprint(minutes, i) }
		first := make([]protocol.Position, rooms)
		for i := range first {
			_ = n.Hold(t.Context(), protocol.RoomChannel(name(i)), protocol.UserChannel("u"))
			first[i] = read(t, n, name(i)).Position
		}
		publish(t, n, name(0), "")
		first[0].Offset++
		_ = other.Hold(t.Context(), protocol.RoomChannel(name(1)), protocol.RoomChannel(name(1)))
		time.Sleep(48 * time.Hour)
		for i, want := range first {
			if got := read(t, n, name(i)).Position; got != want {
				t.Fatalf("room %d of %d: position %+v, want %+v", i, rooms, got, want)
			}
		}
		for i := range first {
			n.Release(protocol.RoomChannel(name(i)), protocol.UserChannel("u"))
		}
		other.Release(protocol.RoomChannel(name(1)))
		time.Sleep(24 * time.Hour)
		for i, want := range first {
			if got := read(t, n, name(i)).Position; (got == want) != (i == 1) {
				t.Fatalf("a day after the release of room %d: position %+v, was %+v", i, got, want)
			}
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if got := read(t, n, name(1)).Position; got == first[1] {
			t.Errorf("a day after the end of the node that held the room: position %+v", got)
		}
	})
}

func TestHistoryInvalidRules(t *testing.T) {
	t.Parallel()
	rules := broker.HistoryRules{{Rooms: "*", Size: -1, Age: time.Hour}}
	want := rules.Check()
	n := memory.NewBus(memory.Config{History: rules}).Broker()
	r := broker.Receiver{ServerID: "a", Deliver: func(protocol.Message) { t.Error("delivered") }}
	_, readErr := n.ReadHistory(t.Context(), broker.HistoryRequest{Room: "a"})
	for what, err := range map[string]error{
		"start":   n.Start(t.Context(), r),
		"publish": n.Publish(t.Context(), broadcast("b", "e", 10)),
		"read":    readErr,
		"remove":  n.RemoveHistory(t.Context(), "a"),
	} {
		if err == nil || err.Error() != want.Error() {
			t.Errorf("%s: error %v, want %v", what, err, want)
		}
	}
}

func TestHistoryNoRules(t *testing.T) {
	t.Parallel()
	n := memory.New()
	if n.KeepsHistory() || n.HasHistory("a") {
		t.Error("a broker without rules keeps history")
	}
}
