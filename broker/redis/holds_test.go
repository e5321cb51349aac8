package redis

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A fakeRedis is the set of channels that a connection is subscribed to: what the rounds are for.
type fakeRedis map[string]bool

// TestHoldsFollow has channels held and released in any order, before, between and within rounds, and connections lost.
// What is held and not on its way must be subscribed, and in the end nothing else is.
func TestHoldsFollow(t *testing.T) {
	t.Parallel()
	const grace = 10
	rapid.Check(t, func(t *rapid.T) {
		var h holds
		redis, held := fakeRedis{}, map[string]int{}
		var ask, give []string // the round under way
		under, down := false, false
		now := time.Duration(100)
		finish := func(refuse func(string) bool) {
			for _, c := range give {
				delete(redis, c)
			}
			h.left(give)
			for _, c := range ask {
				if refuse(c) {
					h.refuse(c, now)
				} else {
					redis[c] = true
				}
			}
			h.confirm(ask, now)
			under = false
		}
		begin := func() {
			ask = h.take(rapid.IntRange(0, 3).Draw(t, "channels"))
			give = h.expired(now-grace, rapid.IntRange(0, 6).Draw(t, "idle channels"), rapid.IntRange(0, 6).Draw(t, "channels to give up"))
			under = true
		}
		check := func() {
			for c, n := range held {
				v := h.m[c]
				if int(v.count) != n {
					t.Fatalf("%s is held %d times, counted %d", c, n, v.count)
				}
				if v.phase == there && !redis[c] && !down {
					t.Fatalf("%s counts as subscribed, and is not", c)
				}
				if n > 0 && v.phase == wanted && !down && !slices.Contains(h.pending, c) && !slices.Contains(h.urgent, c) {
					t.Fatalf("%s is wanted, and nobody will ask for it", c)
				}
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			c := fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "channel"))
			now++
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1:
				if h.hold(c, down) == wanted && !down && rapid.Bool().Draw(t, "urgent") {
					h.hurry(c)
				}
				held[c]++
			case 2, 3:
				h.release(c, now)
				held[c] = max(held[c]-1, 0)
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
				} else {
					h.restart()
				}
			}
			check()
		}
		if down {
			down = false
			h.restart()
		}
		if under {
			finish(func(string) bool { return false })
		}
		for range 3 {
			h.again(100)
			now += 2 * grace
			ask, give, under = h.take(100), h.expired(now-grace, 100, 100), true
			finish(func(string) bool { return false })
			check()
		}
		maps.DeleteFunc(held, func(_ string, n int) bool { return n == 0 })
		if got, want := slices.Sorted(maps.Keys(redis)), slices.Sorted(maps.Keys(held)); !slices.Equal(got, want) {
			t.Fatalf("subscribed to %v, held are %v", got, want)
		}
		if len(h.m) != len(held) || h.idle.Len() > 0 || len(h.refused) > 0 {
			t.Fatalf("left: %v", h)
		}
	})
}

// TestHoldsOwe: whoever was given an error is told once the channel is there, whatever became of it in between.
func TestHoldsOwe(t *testing.T) {
	t.Parallel()
	var h holds
	h.hold("late", false)
	h.hold("no", false)
	h.hold("fine", false)
	h.owe("late", 5)
	asked := h.take(10)
	h.refuse("no", 7)
	if owed, since := h.confirm(asked, 8); !slices.Equal(owed, []string{"late"}) || since != 5 {
		t.Errorf("owed %v since %v, want what was late, since 5", owed, since)
	}
	h.owe("fine", 9) // it is there: nothing is missing
	h.again(10)
	if owed, since := h.confirm(h.take(10), 10); !slices.Equal(owed, []string{"no"}) || since != 7 {
		t.Errorf("owed %v since %v, want what was refused, since 7", owed, since)
	}
}
