package node

import (
	"crypto/rand"
	"sync"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/protocol"
)

// idBatch is for how many ids random bytes are read at a time. Reading them for each id would need
// a system call each time, on a deep stack that net/http's goroutine would have to grow for it: a
// fourteenth of the cost of a connect.
const idBatch = 64

// idSource makes the ids of clients, which protocol.IsClientID recognizes. Its zero value is ready
// to use. Any goroutine.
type idSource struct {
	mu        sync.Mutex // guards the fields below
	random    [idBatch * len(hub.ID{})]byte
	remaining int // unused bytes, at the end of random
}

// next returns a new id.
func (s *idSource) next() (id hub.ID) {
	s.mu.Lock()
	if s.remaining == 0 {
		_, _ = rand.Read(s.random[:]) // never fails
		s.remaining = len(s.random)
	}
	unused := s.random[len(s.random)-s.remaining:][:len(id)]
	copy(id[:], unused)
	clear(unused)
	s.remaining -= len(id)
	s.mu.Unlock()
	protocol.StampClientID((*[16]byte)(&id))
	return id
}
