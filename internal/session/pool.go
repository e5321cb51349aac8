package session

import (
	"sync"
	"time"
)

// stall is how long work may wait before the pool grows.
const stall = time.Millisecond

// A Pool runs the callbacks of sessions on goroutines that exist only while there is work. A turn's worth of sessions
// is picked up by one goroutine, for as long as it keeps up: waking a goroutine for each message would cost more than
// most callbacks do. When what was queued a moment ago is still waiting, because callbacks block, the number of
// goroutines doubles, up to one for each waiting session: so a session waits for others' callbacks a few milliseconds
// at most, however long those take.
type Pool struct {
	mu       sync.Mutex // guards the fields below
	queue    []*Session
	head     int    // queue[head:] waits
	taken    uint64 // sessions taken from the queue, ever
	mark     uint64 // taken, when all that waited at the last check has gone
	workers  int
	watching bool // watch is scheduled
	watch    *time.Timer
	done     sync.WaitGroup // one for each worker
}

// Submit has s.run called soon, on another goroutine. Never blocks.
func (p *Pool) Submit(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, s)
	if p.workers == 0 {
		p.startLocked(1)
	}
	if !p.watching {
		p.watching = true
		p.mark = p.taken + uint64(p.waitingLocked())
		if p.watch == nil {
			p.watch = time.AfterFunc(stall, p.check)
		} else {
			p.watch.Reset(stall)
		}
	}
}

func (p *Pool) waitingLocked() int { return len(p.queue) - p.head }

// startLocked adds n workers. Each ends when it finds the queue empty; Wait waits for them.
func (p *Pool) startLocked(n int) {
	p.workers += n
	p.done.Add(n)
	for range n {
		go p.work()
	}
}

func (p *Pool) work() {
	defer p.done.Done()
	for s := p.next(); s != nil; s = p.next() {
		s.run()
	}
}

// next takes the session that has waited longest, or signs the worker off.
func (p *Pool) next() *Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.head == len(p.queue) {
		p.queue, p.head = p.queue[:0], 0
		if cap(p.queue) > 4096 {
			p.queue = nil
		}
		p.workers--
		return nil
	}
	s := p.queue[p.head]
	p.queue[p.head] = nil
	p.head++
	p.taken++
	return s
}

// check grows the pool when something that waited at the last check is waiting still. It runs while there is work.
func (p *Pool) check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := p.waitingLocked()
	if waiting == 0 {
		p.watching = false
		return
	}
	if p.taken < p.mark {
		p.startLocked(min(waiting, max(p.workers, 1)))
	}
	p.mark = p.taken + uint64(waiting)
	p.compactLocked()
	p.watch.Reset(stall)
}

// compactLocked drops the part of the queue that is done, when the queue never runs empty.
func (p *Pool) compactLocked() {
	if p.head > 1024 && p.head > len(p.queue)/2 {
		p.queue = append(p.queue[:0], p.queue[p.head:]...)
		clear(p.queue[len(p.queue):cap(p.queue)])
		p.head = 0
	}
}

// Wait blocks until there is no work and no worker. Submit must not be called concurrently by anyone but the workers.
func (p *Pool) Wait() {
	p.done.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watch != nil {
		p.watch.Stop()
	}
}
