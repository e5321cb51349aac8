// Package workpool runs tasks that may block, such as the callbacks of the application, on
// goroutines that exist only while there is work.
package workpool

import (
	"sync"
	"time"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/fifo"
)

// A Task is a piece of work.
type Task interface {
	// Run does the work and may block. If it ends its goroutine with runtime.Goexit, the pool calls
	// it again on another one.
	Run()
}

// checkInterval is the time between two checks whether the pool must grow. A task that was queued
// at one check and still waits at the next one has waited too long.
const checkInterval = time.Millisecond

// A Pool runs tasks. The zero value is ready to use. All methods may be called from any goroutine.
//
// One goroutine runs the tasks as long as it keeps up, since waking a goroutine for each task would
// cost more than most tasks do. If tasks that waited at the last check still wait, because others
// block, the pool adds workers: twice as many at each check, up to one for each waiting task. So a
// task waits for others a few milliseconds at most, however long those take.
type Pool struct {
	mu         sync.Mutex // guards the fields below; innermost
	queue      fifo.Queue[Task]
	taken      uint64 // tasks taken from the queue, ever
	seen       uint64 // taken at the last check
	expected   uint64 // taken, once all tasks that waited at the last check have been taken
	workers    int    // of this generation
	generation uint64 // a new one begins when all workers are found to be blocked
	checking   bool   // check is scheduled
	timer      *time.Timer
	yielders   []*Yielder     // blocked in RunDeferred
	spare      bool           // a worker without work waits for wake
	wake       chan bool      // true is work, false the end; has room for one
	done       sync.WaitGroup // one for each worker
}

// Submit queues t to be run soon on another goroutine. It never blocks.
func (p *Pool) Submit(t Task) {
	p.mu.Lock()
	p.queue.Push(t)
	p.startWorkLocked()
	p.mu.Unlock()
}

// SubmitDeferred queues t, but starts no worker for it. The caller is an event loop, which calls
// RunDeferred in the same turn. SubmitDeferred never blocks.
func (p *Pool) SubmitDeferred(t Task) {
	p.mu.Lock()
	p.queue.Push(t)
	p.mu.Unlock()
}

// Kick starts work on deferred tasks whose event loop ended before it could call RunDeferred.
func (p *Pool) Kick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queue.Len() > 0 {
		p.startWorkLocked()
	}
}

// startWorkLocked makes sure that there is a worker, and that check runs.
func (p *Pool) startWorkLocked() {
	if p.workers == 0 {
		p.startWorkersLocked(1)
	}
	if p.checking {
		return
	}
	p.checking = true
	p.seen = p.taken
	p.expected = p.taken + uint64(p.queue.Len())
	if p.timer == nil {
		p.timer = time.AfterFunc(checkInterval, p.check)
	} else {
		p.timer.Reset(checkInterval)
	}
}

// startWorkersLocked adds n workers. The spare worker, if there is one, is the first of them. Each
// ends when it finds no task; Wait waits for them.
func (p *Pool) startWorkersLocked(n int) {
	p.workers += n
	if p.spare && n > 0 {
		p.spare = false
		p.wake <- true
		n--
	}
	for range n {
		p.startWorker(p.generation)
	}
}

// startWorker starts a worker of that generation, which runs tasks until there are none.
func (p *Pool) startWorker(generation uint64) {
	var t Task
	callback.Go(&p.done, func(exited bool) {
		if exited {
			p.Submit(t) // it has not finished
		}
		for t = p.next(&generation); t != nil; t = p.next(&generation) {
			t.Run()
		}
	})
}

// next returns the task that has waited longest. If there is none, it may wait for one for a short
// time. It returns nil if the worker, of that generation, must end.
func (p *Pool) next(generation *uint64) Task {
	p.mu.Lock()
	defer p.mu.Unlock()
	if *generation != p.generation { // the worker was blocked, and others have replaced it
		if p.workers > 0 {
			return nil
		}
		*generation = p.generation
		p.workers++
	}
	for p.queue.Len() == 0 {
		if !p.waitLocked() {
			return nil
		}
		*generation = p.generation
	}
	t := p.queue.Pop()
	p.taken++
	if p.taken%8 == 0 {
		p.releaseLocked(maxYield, false)
	}
	return t
}

// waitLocked takes a worker that found no task off the count. The last worker waits as the spare
// one for a millisecond or two, until check ends it: a busy loop submits tasks every few
// microseconds, and a new goroutine would have to grow its stack each time. waitLocked reports
// whether the worker is to go on.
func (p *Pool) waitLocked() bool {
	if p.workers--; p.workers == 0 {
		p.releaseLocked(0, false)
	}
	if p.spare || !p.checking {
		return false
	}
	if p.wake == nil {
		p.wake = make(chan bool, 1)
	}
	p.spare = true
	p.mu.Unlock()
	more := <-p.wake
	p.mu.Lock()
	return more
}

// check adds workers if a task that waited at the last check still waits. It runs at intervals
// while there is work.
func (p *Pool) check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	stuck := p.taken == p.seen
	p.releaseLocked(maxYield, stuck)
	waiting := p.queue.Len()
	if waiting == 0 && len(p.yielders) == 0 && stuck {
		p.checking = false
		if p.spare {
			p.spare = false
			p.wake <- false
		}
		return
	}
	if p.taken < p.expected {
		n := min(waiting, max(p.workers, 1))
		if stuck { // all workers are blocked: replace them by twice as many
			n = min(waiting, max(2*p.workers, 1))
			p.generation++
			p.workers = 0
		}
		p.startWorkersLocked(n)
	}
	p.seen = p.taken
	p.expected = p.taken + uint64(waiting)
	p.timer.Reset(checkInterval)
}

// Wait blocks until there is no task and no worker. During Wait only tasks may call Submit.
func (p *Pool) Wait() {
	p.done.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
}
