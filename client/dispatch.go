package client

import "sync"

// call is a call of callbacks.
type call struct {
	f    func()
	size int // bytes of the message
}

// dispatcher calls callbacks one after the other, on one goroutine.
type dispatcher struct {
	limit int
	done  chan struct{} // closed when run returns

	mu     sync.Mutex
	wake   *sync.Cond // of mu: a call was added or taken, or closed has changed
	queue  []call     // guarded by mu
	size   int        // of queue; guarded by mu
	closed bool       // no call is added anymore; guarded by mu
}

func newDispatcher(limit int) *dispatcher {
	d := &dispatcher{limit: limit, done: make(chan struct{})}
	d.wake = sync.NewCond(&d.mu)
	return d
}

// add adds a call. It does not block.
func (d *dispatcher) add(c call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.queue = append(d.queue, c)
	d.size += c.size
	d.wake.Broadcast()
}

// full reports whether as many bytes wait as may.
func (d *dispatcher) full() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fullLocked()
}

func (d *dispatcher) fullLocked() bool {
	const most = 1 << 16 // calls
	return !d.closed && (d.size >= d.limit || len(d.queue) >= most)
}

// wait blocks while the queue is full.
func (d *dispatcher) wait() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.fullLocked() {
		d.wake.Wait()
	}
}

// close ends run: at once if now is set, and otherwise after the calls that wait.
func (d *dispatcher) close(now bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if now {
		d.queue = nil
	}
	d.wake.Broadcast()
}

// run calls the callbacks until close.
func (d *dispatcher) run() {
	defer close(d.done)
	for {
		d.mu.Lock()
		for len(d.queue) == 0 && !d.closed {
			d.wake.Wait()
		}
		if len(d.queue) == 0 {
			d.mu.Unlock()
			return
		}
		c := d.queue[0]
		d.queue[0] = call{}
		d.queue = d.queue[1:]
		d.size -= c.size
		d.wake.Broadcast()
		d.mu.Unlock()
		c.f()
	}
}
