package hub

import (
	"runtime"
	"sync"
)

const (
	// sheet is how many members a worker of the press takes at a time, and pace how many bytes it seals before others get the
	// processor, and the loop what is sealed: some tens of microseconds.
	sheet = 32
	pace  = 32 << 10
)

// A press seals the messages of members whose encryption is nothing but computing, on a few goroutines that exist while
// there is work. The loops hand over a turn's worth of members at once.
type press struct {
	most int // workers; set by New, then read-only

	mu      sync.Mutex // guards the fields below; before Lane.mu
	jobs    []*job     // oldest first
	waiting int        // members in jobs
	workers int
	done    sync.WaitGroup // one for each worker

	used sync.Pool // of *[]byte with room for sealMax
}

// paper is for frames of that size. Where many are sealed at once it has been used before.
func (p *press) paper(size int) []byte {
	if size <= sealMax/2 || size > sealMax {
		return make([]byte, 0, size)
	}
	if b, ok := p.used.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, sealMax)
}

// reuse takes back paper that nobody refers to any more.
func (p *press) reuse(frames []byte) {
	if cap(frames) == sealMax {
		p.used.Put(&frames)
	}
}

// A job is what one turn of a lane has to be sealed.
type job struct {
	lane    *Lane
	outlets []*outlet // what is left of them
}

// submit has the members' messages sealed. On the lane's loop.
func (p *press) submit(l *Lane, outlets []*outlet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jobs = append(p.jobs, &job{l, outlets})
	p.waiting += len(outlets)
	p.startLocked()
}

// resume goes on with what was left because a lane was overripe. On a loop.
func (p *press) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.startLocked()
}

// startLocked sees to it that enough workers are there. Each ends when there is nothing that it may seal; wait waits for them.
func (p *press) startLocked() {
	for n := min(p.most, (p.waiting+sheet-1)/sheet); p.workers < n; p.workers++ {
		p.done.Add(1)
		go p.work()
	}
}

func (p *press) work() {
	defer p.done.Done()
	results := make([]sealed, 0, sheet)
	for {
		l, outlets := p.take()
		if l == nil {
			return
		}
		bytes := 0
		for i, o := range outlets {
			r := o.seal()
			results = append(results, r)
			if bytes += len(r.frames); bytes < pace && i < len(outlets)-1 {
				continue
			}
			l.bring(results...)
			clear(results)
			results, bytes = results[:0], 0
			// A loop that comes back from the kernel while all processors seal would wait until the scheduler takes one away, ten
			// milliseconds.
			runtime.Gosched()
		}
	}
}

// take returns the next members to seal for, or signs the worker off.
func (p *press) take() (*Lane, []*outlet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, j := range p.jobs {
		if j.lane.overripe() {
			continue
		}
		n := min(sheet, len(j.outlets))
		outlets := j.outlets[:n:n]
		p.waiting -= n
		if j.outlets = j.outlets[n:]; len(j.outlets) == 0 {
			p.jobs = append(p.jobs[:i], p.jobs[i+1:]...)
		}
		return j.lane, outlets
	}
	p.workers--
	return nil, nil
}
