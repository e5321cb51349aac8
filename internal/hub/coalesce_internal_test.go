package hub

import "testing"

// TestCoalescerPolls checks that poll waits while messages arrive, until they are enough for one
// write, or until a sender waits for the loop.
func TestCoalescerPolls(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		comes  []int64 // bytes that arrive in each round
		want   int64
		passed int // rounds
	}{
		"nothing":          {nil, 100, 3},
		"at once":          {[]int64{5}, 105, 4},
		"after a while":    {[]int64{0, 0, 5}, 105, 6},
		"too late":         {[]int64{0, 0, 0, 5}, 100, 3},
		"again and again":  {[]int64{5, 0, 5, 0, 0, 5}, 115, 9},
		"more than enough": {[]int64{5, maxBatchBytes, 5}, 105 + maxBatchBytes, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := New(Config{Wake: func(int) {}}).Lane(0)
			l.waiting.Store(100)
			passed := 0
			got := l.coalescer.poll(l, 100, 3, func() {
				if passed < len(tt.comes) {
					l.waiting.Add(tt.comes[passed])
				}
				passed++
			})
			if got != tt.want || passed != tt.passed {
				t.Errorf("%d bytes after %d rounds, want %d after %d", got, passed, tt.want, tt.passed)
			}
		})
	}
	h := New(Config{Wake: func(int) {}})
	h.waiters.n.Add(1)
	if got := h.Lane(0).coalescer.poll(h.Lane(0), 0, 3, func() { t.Error("waited while a sender waits for the loop") }); got != 0 {
		t.Errorf("%d bytes", got)
	}
}

// TestCoalescerSkips checks that pauses without a message become rare, and never stop.
func TestCoalescerSkips(t *testing.T) {
	t.Parallel()
	l := New(Config{Wake: func(int) {}}).Lane(0)
	c := &l.coalescer
	paused := 0
	for range 1000 {
		due := c.skip == 0
		c.wait(l)
		if due {
			paused++
		}
	}
	// A pause after 1, 2, 4 … 64 large fan-outs, and after each 64 from then on.
	if want := 20; paused < want-1 || paused > want+1 || c.lastSkip != maxSkip {
		t.Errorf("paused %d times in 1000 large fan-outs, want %d; lastSkip is %d", paused, want, c.lastSkip)
	}
	c.skip = 0
	l.hub.waiters.n.Add(1)
	if c.wait(l); c.skip != 0 {
		t.Error("a waiting sender made the loop skip pauses")
	}
}
