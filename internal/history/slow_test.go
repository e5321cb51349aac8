package history_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/history"
	"github.com/hearthws/hearth/protocol"
)

// A slowLog has history for all rooms, each with the log of one, and takes its time for each answer.
type slowLog struct {
	*roomLog
	delay *atomic.Int64 // a time.Duration
}

func (h slowLog) HasHistory(string) bool { return true }

func (h slowLog) ReadHistory(ctx context.Context, requests ...broker.HistoryRequest) ([]broker.HistoryPart, error) {
	delay := time.Duration(h.delay.Load())
	parts, err := h.roomLog.ReadHistory(ctx, requests...)
	select {
	case <-time.After(delay):
		return parts, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// slow runs a test whose reads take a time.
func slow(t *testing.T, delay time.Duration, test func(w *world, delay *atomic.Int64)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, roomLog: &roomLog{}}
		d := new(atomic.Int64)
		d.Store(int64(delay))
		w.Rooms = history.New(w.config(slowLog{w.roomLog, d}))
		w.Start()
		defer w.Close()
		test(w, d)
	})
}

func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = "room" + strconv.Itoa(i)
	}
	return all
}

// TestFirstClientLeaves has the first client of a room leave while the position of the room is read.
// Another client that joins meanwhile recovers what it has missed nevertheless.
func TestFirstClientLeaves(t *testing.T) {
	slow(t, time.Second, func(w *world, _ *atomic.Int64) {
		w.publish(5)
		c := w.client()
		c.at = protocol.Position{Offset: 2, Epoch: w.position().Epoch}
		ctx, leave := context.WithCancel(w.Context())
		go func() {
			w.Hold(ctx, roomName)
			w.Release(roomName)
		}()
		synctest.Wait()
		go func() {
			time.Sleep(time.Second / 2)
			leave()
		}()
		w.enter(c, 0)
		if c.unrecovered != "" || c.got != 3 || c.at != w.position() {
			w.Errorf("got %d messages, at %v (%s)", c.got, c.at, c.unrecovered)
		}
	})
}

// TestForgottenBeforeFirstRead has a room lose its members while its position is read, and get new
// ones. They do not get the messages that waited for the old ones.
func TestForgottenBeforeFirstRead(t *testing.T) {
	slow(t, time.Second, func(w *world, delay *atomic.Int64) {
		ctx, leave := context.WithCancel(w.Context())
		left := make(chan struct{})
		go func() {
			w.Hold(ctx, roomName)
			w.Release(roomName)
			close(left)
		}()
		synctest.Wait()
		w.Deliver(w.publish(3))
		leave()
		<-left
		delay.Store(0)
		c := w.client()
		w.enter(c, 0)
		wait(2 * time.Second)
		if c.check(w); c.got != 0 || c.at != w.position() {
			w.Errorf("got %d messages, at %v", c.got, c.at)
		}
	})
}

// TestHoldTimes has a history that does not answer. A client waits for one timeout, not for one per
// read, also if it joins from positions, and no longer than it wants.
func TestHoldTimes(t *testing.T) {
	slow(t, time.Hour, func(w *world, _ *atomic.Int64) {
		begun := time.Now()
		wants := func(what string, want time.Duration) {
			w.Helper()
			if took := time.Since(begun); took != want {
				w.Errorf("%s took %v, want %v", what, took, want)
			}
			begun = time.Now()
		}
		rooms := names(1000)
		done := make(chan struct{})
		go func() {
			w.Hold(w.Context(), rooms...)
			close(done)
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(w.Context(), time.Second)
		defer cancel()
		w.Hold(ctx, rooms[999])
		wants("a shorter wait", time.Second)
		<-done
		wants("the rest of the wait", 4*time.Second)
		requests := make([]history.Request, len(rooms))
		for i, room := range rooms {
			requests[i] = history.Request{Room: room, Last: 1}
		}
		w.Join(w.Context(), history.Limits{Messages: 10, Bytes: 1000}, requests, func(results []history.Result) {
			for i, result := range results {
				if result.Unrecovered != protocol.UnrecoveredUnavailable {
					w.Errorf("room %d: %+v", i, result)
				}
			}
		})
		wants("the join", 5*time.Second)
	})
}

// TestCheckManyRooms reads the positions of all rooms before a broker forgets those without
// messages, however many rooms there are.
func TestCheckManyRooms(t *testing.T) {
	slow(t, time.Millisecond, func(w *world, _ *atomic.Int64) {
		const rooms = 130_000
		w.Hold(w.Context(), names(rooms)...)
		first := w.countReads()
		wait(3 * time.Minute)
		if reads := w.countReads() - first; reads < rooms/64 {
			w.Errorf("%d reads of at most 64 rooms in 3 minutes, for %d rooms", reads, rooms)
		}
	})
}

// A partLog has history for all rooms. One of them can become unreadable.
type partLog struct {
	*roomLog
	broken *atomic.Bool
}

const brokenRoom = "broken"

func (h partLog) HasHistory(string) bool { return true }

func (h partLog) ReadHistory(ctx context.Context, requests ...broker.HistoryRequest) ([]broker.HistoryPart, error) {
	parts, err := h.roomLog.ReadHistory(ctx, requests...)
	for i, q := range requests {
		if err == nil && q.Room == brokenRoom && h.broken.Load() {
			parts[i] = broker.HistoryPart{Unrecovered: protocol.UnrecoveredUnavailable}
		}
	}
	return parts, err
}

// TestUnreadableRoom has the history of one room unreadable. The others are not affected, and
// clients are told that they cannot recover.
func TestUnreadableRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, roomLog: &roomLog{}}
		broken := new(atomic.Bool)
		w.Rooms = history.New(w.config(partLog{w.roomLog, broken}))
		w.Start()
		defer w.Close()
		w.Hold(t.Context(), brokenRoom)
		c := w.client()
		w.enter(c, 0)
		broken.Store(true)
		w.publish(3)
		w.Lost(nil)
		synctest.Wait()
		if c.got != 3 {
			t.Errorf("got %d missed messages", c.got)
		}
		reads := w.countReads()
		wait(5 * time.Second)
		if n := w.countReads() - reads; n > 60 {
			t.Errorf("%d reads within 5 s", n)
		}
		w.publish(2)
		wait(time.Minute) // until the next check
		if c.got != 5 {
			t.Errorf("got %d messages after a check", c.got)
		}
		all := []history.Request{{Room: brokenRoom, Last: 1}, {Room: roomName, Last: 1}}
		w.Join(t.Context(), history.Limits{Messages: 10, Bytes: 10_000}, all, func(results []history.Result) {
			if results[0].Unrecovered != protocol.UnrecoveredUnavailable || len(results[0].Messages) != 0 || len(results[1].Messages) != 1 {
				t.Errorf("joined: %+v", results)
			}
		})
		broken.Store(false)
		wait(time.Second)
		if !w.Tracks(brokenRoom) || w.losses != 0 {
			t.Errorf("tracked: %v, losses: %d", w.Tracks(brokenRoom), w.losses)
		}
	})
}
