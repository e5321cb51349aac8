// Package shrinkmap is a map that gives memory back after it was large for a while. Go's maps keep
// the memory of their largest size until the map itself is dropped.
package shrinkmap

import (
	"iter"
	"maps"
)

// keep is the size up to which a map keeps its memory.
const keep = 1024

// A Map is a map[K]V that is copied into a smaller one once less than an eighth of it is used. The
// copy takes as long as inserting what is left. The zero value is empty. Not safe for concurrent
// use.
type Map[K comparable, V any] struct {
	m    map[K]V
	peak int // most entries since m was made
}

// Len is the number of entries.
func (m *Map[K, V]) Len() int { return len(m.m) }

// Get returns the value of key, or the zero value if there is none.
func (m *Map[K, V]) Get(key K) V { return m.m[key] }

// Lookup returns the value of key, and whether there is one.
func (m *Map[K, V]) Lookup(key K) (V, bool) {
	v, ok := m.m[key]
	return v, ok
}

// Put sets the value of key.
func (m *Map[K, V]) Put(key K, v V) {
	if m.m == nil {
		m.m = make(map[K]V)
	}
	m.m[key] = v
	m.peak = max(m.peak, len(m.m))
}

// Delete removes key, which need not be there. It must not be called while All is being ranged
// over.
func (m *Map[K, V]) Delete(key K) {
	delete(m.m, key)
	if m.peak < keep || len(m.m) > m.peak/8 {
		return
	}
	small := make(map[K]V, len(m.m))
	maps.Copy(small, m.m)
	m.m, m.peak = small, len(small)
}

// All are the entries, in no order.
func (m *Map[K, V]) All() iter.Seq2[K, V] { return maps.All(m.m) }
