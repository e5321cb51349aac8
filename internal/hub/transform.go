package hub

import (
	"errors"
	"sync"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/fifo"
)

// errExit is the error of a Transform that called runtime.Goexit.
var errExit = errors.New("transformer ended its goroutine (runtime.Goexit)")

// transformers run the Transforms of members, which may block: one goroutine for each member whose
// message is being transformed. Each fan-out may use a limited number of them. A member that waits
// for one needs no goroutine.
type transformers struct {
	limit int            // of one fan-out; set by New, then read-only
	done  sync.WaitGroup // one for each goroutine
}

// A semaphore bounds for how many members the message of one fan-out is transformed at a time.
type semaphore struct {
	mu      sync.Mutex // guards the fields below; innermost
	free    int
	waiting fifo.Queue[*sealQueue]
}

func (t *transformers) semaphore() *semaphore { return &semaphore{free: t.limit} }

// start transforms the oldest message of q, now or when a member with the same message is done. It
// is called on the lane's loop.
func (t *transformers) start(q *sealQueue) {
	if !q.work[0].semaphore.acquire(q) {
		return
	}
	// The goroutine ends when no member waits for its place; Hub.Wait waits for it.
	callback.Go(&t.done, func(exited bool) {
		for q != nil {
			r := sealed{queue: q, taken: 1, size: q.work[0].size}
			if exited {
				q.failed(errExit)
			} else {
				r = q.transform()
			}
			exited = false
			s := q.work[0].semaphore
			q.sealer().returnSealed(r) // then q belongs to the loop
			q = s.release()
		}
	})
}

// acquire takes a place and reports true. If none is free, a later release returns q.
func (s *semaphore) acquire(q *sealQueue) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free > 0 {
		s.free--
		return true
	}
	s.waiting.Push(q)
	return false
}

// release frees a place, or returns the queue that has it now.
func (s *semaphore) release() *sealQueue {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting.Len() == 0 {
		s.free++
		return nil
	}
	return s.waiting.Pop()
}
