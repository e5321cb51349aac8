package hub

import (
	"runtime"
	"sync"
)

const (
	// batchMembers is for how many members a worker takes messages at a time.
	batchMembers = 32
	// yieldBytes is how many bytes a worker seals, which takes some tens of microseconds, before it
	// returns them to the loop and yields the processor.
	yieldBytes = 32 << 10
)

// A sealPool seals messages of members that have no Transform, on a few goroutines that exist while
// there is work. Each loop submits the queues of a turn at once.
type sealPool struct {
	maxWorkers int // set by New, then read-only

	mu      sync.Mutex // guards the fields below; before sealer.mu
	jobs    []sealJob  // oldest first
	waiting int        // queues in jobs
	workers int
	done    sync.WaitGroup // one for each worker

	buffers sync.Pool // of *[]byte with a capacity of maxSealBytes
}

// A sealJob is a set of queues of one lane. Nothing else uses them until the results are returned.
type sealJob struct {
	sealer *sealer
	queues []*sealQueue
}

// getBuffer returns an empty buffer for frames of that size. Large ones are reused.
func (p *sealPool) getBuffer(size int) []byte {
	if size <= maxSealBytes/2 || size > maxSealBytes {
		return make([]byte, 0, size)
	}
	if b, ok := p.buffers.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, maxSealBytes)
}

// putBuffer takes back a buffer that nothing refers to any more.
func (p *sealPool) putBuffer(frames []byte) {
	if cap(frames) == maxSealBytes {
		p.buffers.Put(&frames)
	}
}

// submit adds a job, if there are any queues, and starts workers, also for older jobs whose sealer
// was full. It is called on the loop of the lane.
func (p *sealPool) submit(s *sealer, queues []*sealQueue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(queues) > 0 {
		p.jobs = append(p.jobs, sealJob{s, queues})
		p.waiting += len(queues)
	}
	for n := min(p.maxWorkers, (p.waiting+batchMembers-1)/batchMembers); p.workers < n; p.workers++ {
		p.done.Go(p.work) // ends when there is no job that it may work on; Hub.Wait waits for it
	}
}

// work seals messages until next returns no queues.
func (p *sealPool) work() {
	results := make([]sealed, 0, batchMembers)
	for job := p.next(); len(job.queues) > 0; job = p.next() {
		bytes := 0
		for i, q := range job.queues {
			r := q.seal()
			results = append(results, r)
			if bytes += len(r.frames); bytes < yieldBytes && i < len(job.queues)-1 {
				continue
			}
			job.sealer.returnSealed(results...)
			clear(results)
			results, bytes = results[:0], 0
			// Without this, a loop that returns from the kernel while all processors seal would
			// wait ten milliseconds until the scheduler preempts a worker.
			runtime.Gosched()
		}
	}
}

// next returns queues of the oldest job whose sealer is not full, or none if the worker must end.
func (p *sealPool) next() sealJob {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, job := range p.jobs {
		if job.sealer.full() {
			continue
		}
		n := min(batchMembers, len(job.queues))
		p.waiting -= n
		if p.jobs[i].queues = job.queues[n:]; n == len(job.queues) {
			p.jobs = append(p.jobs[:i], p.jobs[i+1:]...)
		}
		return sealJob{job.sealer, job.queues[:n]}
	}
	p.workers--
	return sealJob{}
}
