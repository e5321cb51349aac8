package node

import (
	"crypto/rand"
	"sync"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/protocol"
)

// idBatch is for how many ids random bytes are fetched at a time. For each alone it would be a system call, and on a deep
// stack, which net/http's goroutine would have to grow for it: a fourteenth of what a connect costs.
const idBatch = 64

// idSource makes the ids of clients, which protocol.IsClientID recognises. Its zero value is ready; any goroutine.
type idSource struct {
	mu        sync.Mutex // guards the fields below
	random    [idBatch * len(hub.ID{})]byte
	remaining int // bytes of fresh, its last, that are nobody's yet
}

func (s *idSource) next() (id hub.ID) {
	s.mu.Lock()
	if s.remaining == 0 {
		_, _ = rand.Read(s.random[:]) // never fails
		s.remaining = len(s.random)
	}
	taken := s.random[len(s.random)-s.remaining:][:len(id)]
	copy(id[:], taken)
	clear(taken)
	s.remaining -= len(id)
	s.mu.Unlock()
	protocol.StampClientID((*[16]byte)(&id))
	return id
}
