package redis

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A fakeRedis is the set of channels that a connection is subscribed to.
type fakeRedis map[string]bool

// TestChannelsMatchModel holds and releases channels in any order, before, between and within
// rounds, and loses connections. Held channels must be subscribed unless they are in progress, and
// in the end no others are. Every request ends, and not before its last channel was subscribed.
func TestChannelsMatchModel(t *testing.T) {
	t.Parallel()
	const grace = 10
	rapid.Check(t, func(t *rapid.T) {
		var h channels
		redis, held := fakeRedis{}, map[string]int{}
		var ask, give []string           // the current round
		var last []*request              // requests that end with it
		asked := map[*request][]string{} // channels of the requests that have not ended
		under, down := false, false
		now := time.Duration(100)
		finish := func(refuse func(string) bool) {
			for _, c := range give {
				delete(redis, c)
			}
			h.unsubscribed(give)
			for _, c := range ask {
				if refuse(c) {
					h.reject(c, now)
				} else {
					redis[c] = true
				}
			}
			h.confirm(ask, now)
			for _, r := range last {
				delete(asked, r)
			}
			under = false
		}
		begin := func() {
			some := rapid.IntRange(0, 3)
			ask, last = h.nextRound(some.Draw(t, "channels"), some.Draw(t, "pending channels"))
			for _, r := range last {
				for _, c := range asked[r] {
					if h.states.Get(c).phase == phasePending {
						t.Fatalf("a request ends with this round, which does not subscribe %s", c)
					}
				}
			}
			give = h.expired(now-grace, rapid.IntRange(0, 6).Draw(t, "idle channels"), rapid.IntRange(0, 6).Draw(t, "channels to give up"))
			under = true
		}
		check := func() {
			for c, n := range held {
				v := h.states.Get(c)
				if int(v.count) != n {
					t.Fatalf("%s is held %d times, counted %d", c, n, v.count)
				}
				if v.phase == phaseSubscribed && !redis[c] && !down {
					t.Fatalf("%s counts as subscribed, but is not", c)
				}
				requested := slices.ContainsFunc(slices.Collect(maps.Keys(asked)), func(r *request) bool {
					return slices.Contains(r.channels, c)
				})
				if n > 0 && v.phase == phasePending && !down && !slices.Contains(h.unrequested, c) && !requested {
					t.Fatalf("%s is pending, and no round will subscribe it", c)
				}
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			some := rapid.SliceOfN(rapid.StringMatching("[0-5]"), 1, 3).Draw(t, "channels")
			now++
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1:
				var open []string
				for _, c := range some {
					if h.hold(c) {
						open = append(open, c)
					}
					held[c]++
				}
				if len(open) > 0 && !down {
					asked[h.request(open)] = open
				}
			case 2, 3:
				for _, c := range some {
					h.release(c, now)
					held[c] = max(held[c]-1, 0)
				}
			case 4:
				if !under && !down {
					begin()
				}
			case 5:
				if under {
					odd := rapid.Bool().Draw(t, "refuse some")
					finish(func(c string) bool { return odd && c == "0" })
				}
			case 6:
				if down = !down; down {
					under = false
					clear(redis)
					h.fail(nil)
					clear(asked)
				} else {
					h.reset()
				}
			}
			check()
		}
		if down {
			down = false
			h.reset()
		}
		if under {
			finish(func(string) bool { return false })
		}
		for range 3 {
			h.retryRejected(100)
			now += 2 * grace
			ask, last = h.nextRound(1000, 1000)
			give, under = h.expired(now-grace, 100, 100), true
			finish(func(string) bool { return false })
			check()
		}
		maps.DeleteFunc(held, func(_ string, n int) bool { return n == 0 })
		if got, want := slices.Sorted(maps.Keys(redis)), slices.Sorted(maps.Keys(held)); !slices.Equal(got, want) {
			t.Fatalf("subscribed to %v, holding %v", got, want)
		}
		if h.states.Len() != len(held) || h.idle.Len() > 0 || len(h.rejected) > 0 || len(asked) > 0 || h.hasWork() {
			t.Fatalf("left: %v", h)
		}
	})
}

// TestLossPending checks that a loss is reported for a channel once it is subscribed, if Hold
// returned an error for it, whatever happened to the channel in between.
func TestLossPending(t *testing.T) {
	t.Parallel()
	var h channels
	channels := []string{"late", "no", "fine"}
	for _, c := range channels {
		h.hold(c)
	}
	h.request(channels)
	h.setLossPending("late", 5)
	asked, _ := h.nextRound(10, 0)
	h.reject("no", 7)
	if owed, since := h.confirm(asked, 8); !slices.Equal(owed, []string{"late"}) || since != 5 {
		t.Errorf("losses of %v since %v, want those of the late channels, since 5", owed, since)
	}
	h.setLossPending("fine", 9) // it is subscribed: nothing is missing
	h.retryRejected(10)
	asked, _ = h.nextRound(0, 10)
	if owed, since := h.confirm(asked, 10); !slices.Equal(owed, []string{"no"}) || since != 7 {
		t.Errorf("losses of %v since %v, want that of the rejected channel, since 7", owed, since)
	}
}

// TestTurns checks that a request waits for a few channels of each one before it, however many
// these name, and that a round is bounded. So a client that connects is not delayed by clients that
// join many rooms.
func TestTurns(t *testing.T) {
	t.Parallel()
	const holders, each, round = 100, 1000, 256
	var h channels
	request := func(name string, n int) *request {
		channels := make([]string, n)
		for i := range channels {
			channels[i] = fmt.Sprint(name, " ", i)
			h.hold(channels[i])
		}
		return h.request(channels)
	}
	for i := range holders {
		request(fmt.Sprint("many ", i), each)
	}
	few := request("few", turnChannels)
	asked, done := 0, false
	for !done {
		ask, last := h.nextRound(round, 0)
		if len(ask) == 0 || len(ask) >= round+turnChannels {
			t.Fatalf("a round subscribes %d channels, want about %d", len(ask), round)
		}
		asked += len(ask)
		h.confirm(ask, 0)
		done = slices.Contains(last, few)
	}
	if most := (holders+1)*turnChannels + round; asked > most {
		t.Errorf("%d channels were requested before the last of the few, want at most %d", asked, most)
	}
	for h.hasWork() {
		ask, _ := h.nextRound(round, 0)
		asked += len(ask)
		h.confirm(ask, 0)
	}
	if want := holders*each + turnChannels; asked != want {
		t.Errorf("%d channels were requested, want each of %d once", asked, want)
	}
}
