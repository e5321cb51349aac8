package node

import (
	"sync"
	"testing"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/protocol"
)

// TestIDs: every id is a UUID of version 4 that is recognized as the id of a client, no two are
// equal, and all bits except those of the version and the variant vary.
func TestIDs(t *testing.T) {
	t.Parallel()
	const goroutines, each = 4, 5*idBatch + 1
	var source idSource
	var got [goroutines][each]hub.ID
	var done sync.WaitGroup
	for g := range got {
		done.Go(func() {
			for i := range got[g] {
				got[g][i] = source.next()
			}
		})
	}
	done.Wait()
	seen := make(map[hub.ID]bool)
	var ever, always hub.ID
	for i := range always {
		always[i] = 0xff
	}
	for _, all := range got {
		for _, id := range all {
			if seen[id] || !protocol.IsID(id.String()) || !protocol.IsClientID(id.String()) {
				t.Fatalf("%v: duplicate %v", id, seen[id])
			}
			seen[id] = true
			for i, b := range id {
				ever[i] |= b
				always[i] &= b
			}
		}
	}
	for i := range ever {
		random := byte(0xff)
		switch i {
		case 6:
			random = 0x0f
		case 8:
			random = 0x3f
		}
		if ever[i]&^always[i] != random {
			t.Errorf("byte %d: bits %08b vary, want %08b", i, ever[i]&^always[i], random)
		}
	}
}
