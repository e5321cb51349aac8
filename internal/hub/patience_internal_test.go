package hub

import "testing"

// TestPatienceGrows: who waits goes on while something comes, until it is enough, or until a publisher waits in its turn.
func TestPatienceGrows(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		comes  []int64 // bytes, in each moment
		want   int64
		passed int // moments
	}{
		"nothing":          {nil, 100, 3},
		"at once":          {[]int64{5}, 105, 4},
		"after a while":    {[]int64{0, 0, 5}, 105, 6},
		"too late":         {[]int64{0, 0, 0, 5}, 100, 3},
		"again and again":  {[]int64{5, 0, 5, 0, 0, 5}, 115, 9},
		"more than enough": {[]int64{5, batchMax, 5}, 105 + batchMax, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := New(Config{Wake: func(int) {}}).Lane(0)
			l.waiting.Store(100)
			passed := 0
			got := l.patience.grow(l, 100, 3, func() {
				if passed < len(tt.comes) {
					l.waiting.Add(tt.comes[passed])
				}
				passed++
			})
			if got != tt.want || passed != tt.passed {
				t.Errorf("%d bytes after %d moments, want %d after %d", got, passed, tt.want, tt.passed)
			}
		})
	}
	h := New(Config{Wake: func(int) {}})
	h.waiters.n.Add(1)
	if got := h.Lane(0).patience.grow(h.Lane(0), 0, 3, func() { t.Error("waited for a publisher who waits for us") }); got != 0 {
		t.Errorf("%d bytes", got)
	}
}

// TestPatienceGetsShy: pauses in vain become rare, but never cease.
func TestPatienceGetsShy(t *testing.T) {
	t.Parallel()
	l := New(Config{Wake: func(int) {}}).Lane(0)
	p := &l.patience
	paused := 0
	for range 1000 {
		due := p.shy == 0
		p.gather(l)
		if due {
			paused++
		}
	}
	// After 1, 2, 4 … 64 crowds, and after each 64 from then on.
	if want := 20; paused < want-1 || paused > want+1 || p.shyer != shyest {
		t.Errorf("paused %d times in 1000 crowds, want %d; at last each %d", paused, want, p.shyer)
	}
	p.shy = 0
	l.hub.waiters.n.Add(1)
	if p.gather(l); p.shy != 0 {
		t.Error("a publisher who waits has made the loop shy")
	}
}
