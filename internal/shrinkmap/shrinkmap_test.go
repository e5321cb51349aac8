package shrinkmap_test

import (
	"maps"
	"runtime"
	"testing"

	"github.com/hearthws/hearth/internal/shrinkmap"
	"pgregory.net/rapid"
)

func TestMapIsAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var m shrinkmap.Map[int, int]
		want := make(map[int]int)
		keys := rapid.IntRange(0, 3000)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				for from := keys.Draw(t, "from"); from < 3000 && rapid.IntRange(0, 500).Draw(t, "more") > 0; from++ {
					m.Put(from, len(want))
					want[from] = len(want)
				}
			},
			"fill": func(*rapid.T) {
				for key := range 2000 {
					m.Put(key, key)
					want[key] = key
				}
			},
			"delete": func(t *rapid.T) {
				for key := range rapid.IntRange(0, 3000).Draw(t, "below") {
					m.Delete(key)
					delete(want, key)
				}
			},
			"": func(t *rapid.T) {
				if got := maps.Collect(m.All()); !maps.Equal(got, want) || m.Len() != len(want) {
					t.Fatalf("%d entries, Len %d, want %d", len(got), m.Len(), len(want))
				}
				key := keys.Draw(t, "key")
				v, ok := want[key]
				if got, found := m.Lookup(key); got != v || found != ok || m.Get(key) != v {
					t.Fatalf("Lookup(%d) = %d, %v and Get %d, want %d, %v", key, got, found, m.Get(key), v, ok)
				}
			},
		})
	})
}

// TestMapShrinks is not parallel: it measures the heap.
func TestMapShrinks(t *testing.T) {
	heap := func() int {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int(s.HeapAlloc)
	}
	const entries = 1 << 18
	var m shrinkmap.Map[int, [4]int]
	before := heap()
	for i := range entries {
		m.Put(i, [4]int{i})
	}
	large := heap() - before
	for i := range entries - 10 {
		m.Delete(i)
	}
	if small := heap() - before; small > large/100 {
		t.Errorf("a map of 10 entries takes %d bytes, one of %d took %d", small, entries, large)
	}
	runtime.KeepAlive(&m)
}
