package node

import (
	"crypto/rand"
	"sync"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/protocol"
)

// idsAtOnce is for how many ids random bytes are fetched at a time. For each alone it would be a system call, and on a deep
// stack, which net/http's goroutine would have to grow for it: a fourteenth of what a connect costs.
const idsAtOnce = 64

// ids makes the ids of clients, which protocol.IsClientID recognises. Its zero value is ready; any goroutine.
type ids struct {
	mu    sync.Mutex // guards the fields below
	fresh [idsAtOnce * len(hub.ID{})]byte
	left  int // bytes of fresh, its last, that are nobody's yet
}

func (s *ids) next() (id hub.ID) {
	s.mu.Lock()
	if s.left == 0 {
		_, _ = rand.Read(s.fresh[:]) // never fails
		s.left = len(s.fresh)
	}
	taken := s.fresh[len(s.fresh)-s.left:][:len(id)]
	copy(id[:], taken)
	clear(taken)
	s.left -= len(id)
	s.mu.Unlock()
	protocol.StampClientID((*[16]byte)(&id))
	return id
}
