package history_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/protocol"
)

// run runs a test with one node in a bubble.
func run(t *testing.T, test func(w *world)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.Start()
		defer w.Close()
		test(w)
		synctest.Wait()
		w.mu.Lock()
		members := append([]*client{}, w.members...)
		w.mu.Unlock()
		for _, c := range members {
			c.check(t)
		}
	})
}

// wait lets d pass, and then waits for the goroutines.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestGap loses messages between the history and the node.
func TestGap(t *testing.T) {
	run(t, func(w *world) {
		c := w.client()
		w.enter(c, 0)
		w.Deliver(w.publish(3))
		lost := w.publish(2)
		w.Deliver(w.publish(1))
		w.Deliver(w.publish(1)) // waits
		synctest.Wait()
		w.Deliver(lost) // late
		if c.got != 7 || w.Stats().Fetched.Load() != 4 {
			t.Errorf("got %d messages, %d of them fetched", c.got, w.Stats().Fetched.Load())
		}
	})
}

// TestSilentLoss loses the last message of a room. The periodic check finds it.
func TestSilentLoss(t *testing.T) {
	run(t, func(w *world) {
		c := w.client()
		w.enter(c, 0)
		w.Deliver(w.publish(1))
		w.publish(1)
		wait(time.Minute)
		if c.got != 2 {
			t.Errorf("got %d messages", c.got)
		}
	})
}

// TestLost has the broker report losses.
func TestLost(t *testing.T) {
	run(t, func(w *world) {
		c := w.client()
		w.enter(c, 0)
		for _, channels := range [][]string{nil, {protocol.RoomChannel(roomName)}, {protocol.UserChannel("u"), protocol.RoomChannel(roomName)}} {
			w.publish(2)
			others, report := w.Lost(channels)
			synctest.Wait()
			if want := channels == nil || len(channels) > 1; report != want || len(others) > 1 {
				t.Errorf("loss of %v: %v, %v", channels, others, report)
			}
		}
		if c.got != 6 {
			t.Errorf("got %d messages", c.got)
		}
		if others, report := w.Lost([]string{protocol.RoomChannel("other")}); !report || len(others) != 1 {
			t.Errorf("loss in a room without history: %v, %v", others, report)
		}
	})
}

// TestUnrecoverable loses messages that the history does not have either.
func TestUnrecoverable(t *testing.T) {
	for name, lose := range map[string]func(w *world){
		"evicted": func(w *world) { w.publish(5); w.evict(1) },
		"removed": func(w *world) { w.publish(5); w.remove() },
		"shorter": func(w *world) { // the log lost messages that were delivered
			w.Deliver(w.publish(1))
			w.roomLog.mu.Lock()
			w.top--
			w.roomLog.mu.Unlock()
			w.Lost(nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(w *world) {
				c, plain := w.client(), w.client()
				plain.positions = false
				w.enter(c, 0)
				w.enter(plain, 0)
				w.Deliver(w.publish(2))
				lose(w)
				synctest.Wait()
				w.Deliver(w.publish(1))
				synctest.Wait()
				if !c.interrupted || w.losses != 1 {
					t.Fatalf("interrupted: %v, losses: %d", c.interrupted, w.losses)
				}
				if c.rejoin(w); c.unrecovered == "" && name != "shorter" { // which a log should never be
					t.Error("recovered")
				}
				w.Deliver(w.publish(1))
				if c.at != w.position() {
					t.Errorf("client is at %v, the room at %v", c.at, w.position())
				}
			})
		})
	}
}

// rejoin makes the client join again from its position, as it must after an interruption.
func (c *client) rejoin(w *world) {
	w.exit(c)
	w.enter(c, 0)
}

// TestHistoryFails cannot read missing messages for a time: newer messages wait, and in the end they
// are delivered and the gap is reported.
func TestHistoryFails(t *testing.T) {
	run(t, func(w *world) {
		c := w.client()
		w.enter(c, 0)
		w.Deliver(w.publish(1))
		w.publish(1)
		w.fail(errBroken)
		w.Deliver(w.publish(1))
		wait(5 * time.Second)
		if c.got != 1 || c.interrupted {
			t.Fatalf("got %d messages, interrupted: %v", c.got, c.interrupted)
		}
		w.fail(nil)
		wait(time.Second)
		if c.got != 3 {
			t.Fatalf("got %d messages", c.got)
		}
		w.publish(1)
		w.fail(errBroken)
		w.Deliver(w.publish(1))
		w.publish(1)
		w.Deliver(w.publish(1))
		wait(time.Minute)
		if !c.interrupted || w.losses == 0 {
			t.Fatalf("interrupted: %v, losses: %d", c.interrupted, w.losses)
		}
		w.fail(nil)
		if c.rejoin(w); c.unrecovered != "" || c.at != w.position() {
			t.Errorf("joined at %v (%s)", c.at, c.unrecovered)
		}
	})
}

// TestFirstReadFails joins a room whose position is not known.
func TestFirstReadFails(t *testing.T) {
	run(t, func(w *world) {
		w.publish(3)
		w.fail(errBroken)
		c := w.client()
		c.at = w.position()
		w.enter(c, 0)
		if c.unrecovered != protocol.UnrecoveredUnavailable || c.at != (protocol.Position{}) {
			t.Errorf("joined at %v (%s)", c.at, c.unrecovered)
		}
		w.fail(nil)
		if others, report := w.Lost([]string{protocol.RoomChannel(roomName)}); !report || len(others) != 1 || w.Tracks(roomName) {
			t.Errorf("loss without a position: %v, %v", others, report)
		}
		w.Deliver(w.publish(1))
		if c.got != 1 || c.at.Offset != 4 || !w.Tracks(roomName) {
			t.Errorf("got %d messages, at %v", c.got, c.at)
		}
	})
}

// TestJoinWhilePublishing joins from a position while messages are published and delivered.
func TestJoinWhilePublishing(t *testing.T) {
	run(t, func(w *world) {
		other := w.client()
		w.enter(other, 0)
		w.Deliver(w.publish(5))
		c := w.client()
		w.enter(c, 0)
		w.exit(c)
		w.Deliver(w.publish(5))
		reads := w.countReads()
		w.onRead = func() { // after the read and before its result is used
			if w.countReads() == reads+1 {
				w.Deliver(w.publish(4))
			}
		}
		w.enter(c, 0)
		w.Deliver(w.publish(1))
		if c.got != 10 || other.got != 15 {
			t.Errorf("got %d and %d messages", c.got, other.got)
		}
	})
}

// TestJoinWhileFlooding has more messages sent during each read than are kept.
func TestJoinWhileFlooding(t *testing.T) {
	run(t, func(w *world) {
		c, other := w.client(), w.client()
		w.enter(c, 0)
		w.enter(other, 0)
		w.Deliver(w.publish(1))
		w.exit(c)
		w.onRead = func() {
			for range 30 {
				w.Deliver(w.publish(100))
			}
		}
		w.enter(c, 0)
		if c.unrecovered == "" {
			t.Error("recovered")
		}
		w.onRead = nil
		w.Deliver(w.publish(1))
		synctest.Wait()
		if c.at != w.position() || other.at != w.position() {
			t.Errorf("clients are at %v and %v, the room at %v", c.at, other.at, w.position())
		}
	})
}

// TestJoinAhead has a client join that has got messages on another node which have not arrived
// here.
func TestJoinAhead(t *testing.T) {
	run(t, func(w *world) {
		other := w.client()
		w.enter(other, 0)
		w.Deliver(w.publish(2))
		late := w.publish(3)
		c := w.client()
		c.at = w.position()
		w.enter(c, 0)
		w.Deliver(late)
		w.Deliver(w.publish(1))
		if c.got != 1 || other.got != 6 || c.unrecovered != "" {
			t.Errorf("got %d and %d messages (%s)", c.got, other.got, c.unrecovered)
		}
	})
}

// TestJoinLast asks for the newest messages.
func TestJoinLast(t *testing.T) {
	run(t, func(w *world) {
		w.publish(10)
		for _, tt := range []struct{ last, want int }{{3, 3}, {0, 0}, {100, 10}} {
			c := w.client()
			w.enter(c, tt.last)
			if c.got != tt.want || c.at != w.position() {
				t.Errorf("last %d: got %d messages, at %v", tt.last, c.got, c.at)
			}
		}
	})
}

// TestJoinInvalid joins from positions that do not exist.
func TestJoinInvalid(t *testing.T) {
	run(t, func(w *world) {
		w.publish(10)
		for _, tt := range []struct {
			at   protocol.Position
			want string
		}{
			{protocol.Position{Offset: 11, Epoch: "e0"}, protocol.UnrecoveredReset},
			{protocol.Position{Offset: protocol.MaxOffset, Epoch: "e0"}, protocol.UnrecoveredReset},
			{protocol.Position{Offset: 3, Epoch: "e1"}, protocol.UnrecoveredReset},
			{protocol.Position{Offset: 0, Epoch: "e0"}, ""},
		} {
			c := w.client()
			c.at = tt.at
			w.enter(c, 0)
			if c.unrecovered != tt.want || c.at != w.position() {
				t.Errorf("from %v: at %v (%q)", tt.at, c.at, c.unrecovered)
			}
		}
	})
}

// TestSendFails has the hub reject messages for some members.
func TestSendFails(t *testing.T) {
	run(t, func(w *world) {
		c := w.client()
		w.enter(c, 0)
		w.sendErr = errBroken
		w.Deliver(w.publish(2))
		if !c.interrupted || w.losses != 1 {
			t.Errorf("interrupted: %v, losses: %d", c.interrupted, w.losses)
		}
	})
}

// TestSendFailsPartly has the hub reject one of several messages for some members. Members that
// recover get none after it: their positions would hide the gap.
func TestSendFailsPartly(t *testing.T) {
	run(t, func(w *world) {
		c, plain := w.client(), w.client()
		plain.positions = false
		w.enter(c, 0)
		w.enter(plain, 0)
		w.sendErr, w.fits = errBroken, 2
		w.Deliver(w.publish(5))
		if !c.interrupted || c.got != 2 || plain.got != 5 || w.losses != 3 {
			t.Errorf("interrupted: %v, got %d messages and %d, %d losses", c.interrupted, c.got, plain.got, w.losses)
		}
	})
}

// TestForget checks that a room without members costs nothing.
func TestForget(t *testing.T) {
	run(t, func(w *world) {
		c := w.client()
		w.enter(c, 0)
		w.exit(c)
		w.publish(3)
		reads := w.countReads()
		wait(time.Hour)
		w.Lost(nil)
		w.Deliver(w.publish(1))
		if w.countReads() != reads || c.got != 0 {
			t.Errorf("%d reads, %d messages", w.countReads()-reads, c.got)
		}
	})
}
