package session

import (
	"sync"
	"time"

	"github.com/hearthws/hearth/internal/fifo"
)

const (
	// stall is how long work may wait before the pool grows.
	stall = time.Millisecond

	// lendMax is how long an event loop stands back for callbacks that keep coming, lendShy for how many turns it does
	// not when a callback did not come back in time; twice as many each time, up to lendShyest.
	lendMax    = 200 * time.Microsecond
	lendShy    = 64
	lendShyest = 1 << 16
)

// A Pool runs the callbacks of sessions on goroutines that exist only while there is work. A turn's worth of sessions
// is picked up by one goroutine, for as long as it keeps up: waking a goroutine for each message would cost more than
// most callbacks do. When what was queued a moment ago is still waiting, because callbacks block, more goroutines come,
// twice as many each time, up to one for each waiting session: so a session waits for others' callbacks a few
// milliseconds at most, however long those take.
type Pool struct {
	mu       sync.Mutex // guards the fields below
	queue    fifo.Queue[*Session]
	taken    uint64 // sessions taken from the queue, ever
	mark     uint64 // taken, when all that waited at the last check has gone
	seen     uint64 // taken at the last check
	workers  int    // of this generation
	age      uint64 // the generation: it ends when all its workers are found to be stuck in callbacks
	watching bool   // check is scheduled
	watch    *time.Timer
	lenders  []*Lender      // standing back
	resting  bool           // a worker waits for more
	rest     chan bool      // what it waits for: true is work, false the end
	done     sync.WaitGroup // one for each worker
}

// A Lender is an event loop that stands back for the callbacks of what it has read. They mostly take a microsecond each,
// and answer: side by side with them the loop would be woken for the first answer and write it alone, on another
// processor. Standing back it finds them all.
//
// It is never long: callbacks that go on for lendMax go on beside the loop, and one that blocks keeps it until the pool
// looks next (stall) and makes it shy. Make it with NewLender; it is the loop's.
type Lender struct {
	free chan struct{} // has room for one

	// Guarded by Pool.mu.
	since time.Time
	shy   int // turns in which it does not stand back
	shyer int // what shy is set to when the next callback blocks
}

// NewLender makes the Lender of one loop.
func NewLender() *Lender { return &Lender{free: make(chan struct{}, 1), shyer: lendShy} }

// Submit has s.run called soon, on another goroutine. Never blocks.
func (p *Pool) Submit(s *Session) {
	p.mu.Lock()
	p.queue.Push(s)
	p.attendLocked()
	p.mu.Unlock()
}

// Defer is Submit for the goroutine of an event loop, which calls Lend in the same turn: nothing runs before that.
func (p *Pool) Defer(s *Session) {
	p.mu.Lock()
	p.queue.Push(s)
	p.mu.Unlock()
}

// Attend sets going what was deferred by loops that have ended before they could lend themselves.
func (p *Pool) Attend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queue.Len() > 0 {
		p.attendLocked()
	}
}

// Lend sets going what was deferred, and lets it run first. For event loops, once a turn. It blocks as a Lender does.
func (p *Pool) Lend(l *Lender) {
	p.mu.Lock()
	if p.queue.Len() == 0 {
		p.mu.Unlock()
		return
	}
	p.attendLocked()
	if l.shy > 0 {
		l.shy--
		p.mu.Unlock()
		return
	}
	l.since = time.Now()
	p.lenders = append(p.lenders, l)
	p.mu.Unlock()
	<-l.free
}

// releaseLocked lets the lenders go on that have stood back for that long; blocked says that it was in vain.
func (p *Pool) releaseLocked(since time.Duration, blocked bool) {
	if len(p.lenders) == 0 {
		return
	}
	now := time.Now()
	kept := p.lenders[:0]
	for _, l := range p.lenders {
		if now.Sub(l.since) < since {
			kept = append(kept, l)
			continue
		}
		if blocked {
			l.shy, l.shyer = l.shyer, min(2*l.shyer, lendShyest)
		} else {
			l.shyer = max(l.shyer/2, lendShy)
		}
		l.free <- struct{}{}
	}
	clear(p.lenders[len(kept):])
	p.lenders = kept
}

// attendLocked sees to it that somebody works, and that somebody looks whether that is enough.
func (p *Pool) attendLocked() {
	if p.workers == 0 {
		p.startLocked(1)
	}
	if p.watching {
		return
	}
	p.watching = true
	p.seen = p.taken
	p.mark = p.taken + uint64(p.queue.Len())
	if p.watch == nil {
		p.watch = time.AfterFunc(stall, p.check)
	} else {
		p.watch.Reset(stall)
	}
}

// startLocked adds n workers, of whom the first may have been resting. Each ends when it finds nothing to do; Wait waits
// for them.
func (p *Pool) startLocked(n int) {
	p.workers += n
	if p.resting && n > 0 {
		p.resting = false
		p.rest <- true
		n--
	}
	p.done.Add(n)
	for range n {
		go p.work(p.age)
	}
}

func (p *Pool) work(age uint64) {
	var s *Session
	defer func() {
		if s != nil {
			p.exited(s, age)
		}
		p.done.Done()
	}()
	for {
		if s = p.next(&age); s == nil {
			return
		}
		s.run()
	}
}

// exited is the end of a worker whose callback has called runtime.Goexit: another one goes on with its session.
func (p *Pool) exited(s *Session, age uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if age == p.age {
		p.workers--
	}
	p.queue.Push(s)
	p.attendLocked()
}

// next takes the session that has waited longest; when there is none it waits a little, or signs the worker off. age is
// the worker's generation.
func (p *Pool) next(age *uint64) *Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *age != p.age { // back from a callback that others have been started for
		if p.workers > 0 {
			return nil
		}
		*age = p.age
		p.workers++
	}
	for p.queue.Len() == 0 {
		if !p.restLocked() {
			return nil
		}
		*age = p.age
	}
	s := p.queue.Pop()
	p.taken++
	if p.taken%8 == 0 {
		p.releaseLocked(lendMax, false)
	}
	return s
}

// restLocked is what a worker does that finds the queue empty. The last one stays for a millisecond or two, until check
// ends it: a loop under load sets a worker going every few microseconds, and a new goroutine's stack has to grow first.
// It reports whether there is work again.
func (p *Pool) restLocked() bool {
	if p.workers--; p.workers == 0 {
		p.releaseLocked(0, false)
	}
	if p.resting || !p.watching {
		return false
	}
	if p.rest == nil {
		p.rest = make(chan bool, 1)
	}
	p.resting = true
	p.mu.Unlock()
	more := <-p.rest
	p.mu.Lock()
	return more
}

// check grows the pool when something that waited at the last check is waiting still. It runs while there is work.
func (p *Pool) check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.releaseLocked(lendMax, p.taken == p.seen)
	waiting := p.queue.Len()
	if waiting == 0 && len(p.lenders) == 0 && p.taken == p.seen {
		p.watching = false
		if p.resting {
			p.resting = false
			p.rest <- false
		}
		return
	}
	if p.taken < p.mark {
		n := min(waiting, max(p.workers, 1))
		if p.taken == p.seen { // nobody has moved: who is to come counts for itself
			n = min(waiting, max(2*p.workers, 1))
			p.age++
			p.workers = 0
		}
		p.startLocked(n)
	}
	p.seen = p.taken
	p.mark = p.taken + uint64(waiting)
	p.watch.Reset(stall)
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
