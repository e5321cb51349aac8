package epoll

import (
	"encoding/binary"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/transport/outqueue"
	"golang.org/x/sys/unix"
)

const (
	bufferSize = 64 << 10 // of the buffers for reads, and for small pieces in one write
	maxEvents  = 128      // per turn
	minGather  = 4 << 10  // average size from which a write gathers pieces instead of copying them
	maxSpare   = 4096     // items that a loop keeps for reuse
)

// A loop owns its connections. All methods except wake and post are for the goroutine of run.
type loop struct {
	// Set by newLoop, then read-only.
	t     *Transport
	index int
	ep    int

	count      atomic.Int32  // connections
	backlogged atomic.Int32  // connections with a queue; written by run
	stopping   atomic.Bool   // set by Close
	sleepState atomic.Uint32 // awake, notified or asleep: see wake

	wakeMu sync.Mutex // guards wakeFD
	wakeFD int        // an eventfd that ends a sleep; -1 when the loop has stopped

	mu       sync.Mutex // guards commands
	commands []command
	stopped  bool // no commands are accepted any more

	// Owned by run.
	now           clock.Instant // read once a turn
	conns         table
	events        [maxEvents]unix.EpollEvent
	buffer        []byte // for reads
	scratch       []byte // for writes: small pieces, joined
	gather        gatherWriter
	spareCommands []command
	freeQueues    []*outqueue.Queue      // empty, for reuse
	dirty         []*connection          // to be flushed at the end of the turn
	peersClosed   []*connection          // the peer has closed its side since the last Tick
	drained       []transport.Handler    // Drained is called before the next Tick
	toClose       []closeItem            // closed at the end of the turn, after all writes
	heldEarly     map[*connection][]byte // early bytes of connections paused before register
	deadlines     outqueue.Deadlines
	acceptors     map[uint64]*acceptor // by id
	resumeAt      clock.Instant        // end of a pause in accepting; zero if there is none
}

// A closeItem is a connection that is to be closed, and the reason.
type closeItem struct {
	c   *connection
	err error
}

// A command asks the loop to do something. Any goroutine can post one.
type command struct {
	kind     commandKind
	c        *connection
	early    []byte    // register
	acceptor *acceptor // listen, unlisten
	f        func()    // do
}

type commandKind uint8

const (
	register commandKind = iota // a new connection
	apply                       // its requests have changed
	do                          // call f, unless the connection is closed
	listen                      // start a new acceptor
	unlisten                    // close an acceptor
)

func newLoop(t *Transport, index int) (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wakeFD, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(ep)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &loop{
		t: t, index: index, ep: ep, wakeFD: wakeFD,
		buffer:    make([]byte, bufferSize),
		scratch:   make([]byte, 0, bufferSize),
		heldEarly: make(map[*connection][]byte),
		acceptors: make(map[uint64]*acceptor),
	}
	// Edge-triggered: epoll reports each write once, and the eventfd never has to be read.
	ev := newEvent(readable|unix.EPOLLET, 0)
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, wakeFD, &ev); err != nil {
		l.closeDescriptors()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return l, nil
}

// closeDescriptors closes the descriptors that newLoop has opened.
func (l *loop) closeDescriptors() {
	l.wakeMu.Lock()
	defer l.wakeMu.Unlock()
	_ = unix.Close(l.wakeFD)
	l.wakeFD = -1
	_ = unix.Close(l.ep)
}

// The states of loop.sleepState.
const (
	awake    uint32 = iota // wake was not called since the turn began
	notified               // wake was called since
	asleep                 // the loop waits in the kernel, or is about to
)

// wake makes the loop take a turn. No call is lost. If its Swap comes before the loop's
// CompareAndSwap(awake, asleep), that fails and the loop does not sleep. If it comes after, it
// finds asleep and writes the eventfd. The turn sees everything that was done before the call: it
// checks stopping and the commands, and calls Tick, after a Swap that reads the value of this one.
// Of many callers, only one makes the system call, and calls within Data cause no further turn.
func (l *loop) wake() {
	if l.sleepState.Swap(notified) != asleep {
		return
	}
	l.wakeMu.Lock()
	defer l.wakeMu.Unlock()
	if l.wakeFD >= 0 { // otherwise the number may belong to another file by now
		// The kernel adds the value to a counter of 64 bits, which is never read. Adding 1 each
		// time, it does not overflow.
		_, _ = unix.Write(l.wakeFD, binary.NativeEndian.AppendUint64(nil, 1))
	}
}

// post makes the loop run cmd. It returns false if the loop has stopped.
func (l *loop) post(cmd command) bool {
	l.mu.Lock()
	stopped := l.stopped
	if !stopped {
		l.commands = append(l.commands, cmd)
	}
	l.mu.Unlock()
	l.wake()
	return !stopped
}

// run takes turns until Close. The package comment describes a turn.
func (l *loop) run() {
	for more := false; ; {
		n := l.wait(more)
		l.sleepState.Swap(awake) // calls from here on need no system call
		l.now = l.t.cfg.Clock.Now()
		for i := range l.events[:n] {
			l.handleEvent(&l.events[i])
		}
		// What earlier calls of wake announce is handled below, so they need no further turn.
		l.sleepState.Swap(awake)
		if l.stopping.Load() {
			l.shutdown()
			return
		}
		l.runCommands()
		l.resumeAccepting()
		l.notifyDrained()
		more = l.t.cfg.Tick(l.index)
		for i, c := range l.dirty {
			l.dirty[i] = nil
			c.state &^= dirty
			l.flush(c)
		}
		l.dirty = l.dirty[:0]
		l.closePending()
		more = more || len(l.drained) > 0
	}
}

// notifyDrained calls Drained for connections that have less queued than NotifyBelow asked for.
func (l *loop) notifyDrained() {
	for i, h := range l.drained {
		l.drained[i] = nil
		h.Drained()
	}
	l.drained = l.drained[:0]
}

// wait fills l.events and returns their number. It sleeps if there are none, unless the last turn
// has left more to do or wake was called since it began.
func (l *loop) wait(more bool) int {
	if n := waitEvents(l.ep, l.events[:], 0); n > 0 || more {
		return n
	}
	// Let the goroutines that this turn has started use this thread before it sleeps. The scheduler
	// takes a sleep in the kernel for work, and notices it only after tens of microseconds: a reply
	// from a callback took 44 µs without this call, 1.4 µs with it.
	runtime.Gosched()
	if !l.sleepState.CompareAndSwap(awake, asleep) {
		return 0
	}
	return waitEvents(l.ep, l.events[:], l.timeout())
}

// timeout returns how long to sleep. Negative means: until there is an event.
func (l *loop) timeout() time.Duration {
	d, ok := l.deadlines.Wait(l.now, l.alive)
	if l.resumeAt != 0 {
		if pause := max(l.resumeAt.Sub(l.now), 0); !ok || pause < d {
			d, ok = pause, true
		}
	}
	if !ok {
		return -1
	}
	return d
}

func (l *loop) alive(id uint64) bool { return l.conns.get(id) != nil }

// handleEvent handles one event.
func (l *loop) handleEvent(ev *unix.EpollEvent) {
	id := eventID(ev)
	c := l.conns.get(id)
	if c == nil {
		if a := l.acceptors[id]; a != nil { // otherwise the eventfd, or a connection that is closed
			l.accept(a)
		}
		return
	}
	if ev.Events&writable != 0 {
		l.flush(c)
	}
	if ev.Events&(readable|hungUp|broken) != 0 {
		l.read(c, ev.Events)
	}
}

// read reads once, so that one connection never delays the others for long.
func (l *loop) read(c *connection, events uint32) {
	if c.is(toBeClosed) {
		return
	}
	if !c.readEnabled() || c.requests.Load()&(pauseRequested|abortRequested) != 0 {
		// Epoll cannot be told to ignore these events, and would report them again at once.
		if events&(hungUp|broken) != 0 {
			l.fail(c, socketError(c.fd))
		}
		return
	}
	n, err := recv(c.fd, l.buffer)
	switch {
	case n > 0:
		c.handler.Data(l.buffer[:n], l.now)
	case err == nil:
		c.state |= peerClosed
		l.peersClosed = append(l.peersClosed, c)
		l.updateInterest(c)
	case err != unix.EAGAIN:
		l.fail(c, os.NewSyscallError("read", err))
	case events&broken != 0:
		l.fail(c, socketError(c.fd))
	}
}

// runCommands runs the posted commands.
func (l *loop) runCommands() {
	l.mu.Lock()
	commands := l.commands
	l.commands = l.spareCommands[:0]
	l.mu.Unlock()
	for _, cmd := range commands {
		switch cmd.kind {
		case register:
			l.register(cmd.c, cmd.early)
		case apply:
			l.applyRequests(cmd.c)
		case do:
			if cmd.c.is(registered) && !cmd.c.is(toBeClosed) {
				cmd.f()
			}
		case listen:
			l.startAccepting(cmd.acceptor)
		case unlisten:
			l.stopAccepting(cmd.acceptor)
		}
	}
	clear(commands)
	if l.spareCommands = commands; cap(commands) > maxSpare {
		l.spareCommands = nil
	}
}

// register adds c to the loop. c may have been written to, aborted or paused before.
func (l *loop) register(c *connection, early []byte) {
	c.state |= registered
	if c.is(toBeClosed) {
		return // closeAll has kept it in l.toClose, and closes it in this turn
	}
	if c.requests.Load()&abortRequested != 0 || l.stopping.Load() {
		l.closeLater(c, transport.ErrClosed)
		return
	}
	l.conns.add(c)
	c.interest = c.wantedEvents()
	ev := newEvent(uint32(c.interest), c.id())
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, int(c.fd), &ev); err != nil {
		l.closeLater(c, os.NewSyscallError("epoll_ctl", err))
		return
	}
	if c.is(closeRequested) {
		l.startCloseTimeout(c)
	}
	if len(early) == 0 {
		return
	}
	if !c.readEnabled() { // paused
		l.heldEarly[c] = early
		return
	}
	c.handler.Data(early, l.now)
}

// applyRequests applies the requests of c.
func (l *loop) applyRequests(c *connection) {
	requests := c.requests.And(^requestsPosted)
	if c.is(toBeClosed) || !c.is(registered) {
		return
	}
	if requests&abortRequested != 0 {
		l.closeLater(c, transport.ErrClosed)
		return
	}
	l.updateInterest(c)
	if early, ok := l.heldEarly[c]; ok && c.readEnabled() {
		delete(l.heldEarly, c)
		c.handler.Data(early, l.now)
	}
}

// wantedEvents returns the events that epoll should report for c. Epoll reports errors and the end
// of both directions in any case. The loop notices by reading that the peer has closed its side:
// epoll would report EPOLLRDHUP again and again while the connection is paused.
func (c *connection) wantedEvents() (events uint16) {
	if c.requests.Load()&pauseRequested == 0 && !c.is(peerClosed) {
		events |= uint16(readable)
	}
	if c.is(blocked) {
		events |= uint16(writable)
	}
	return events
}

// readEnabled reports whether epoll was asked to report arriving bytes.
func (c *connection) readEnabled() bool { return uint32(c.interest)&readable != 0 }

// updateInterest tells epoll which events of c are wanted, if they have changed.
func (l *loop) updateInterest(c *connection) {
	want := c.wantedEvents()
	if want == c.interest || !c.is(registered) || c.is(toBeClosed) {
		return
	}
	c.interest = want
	ev := newEvent(uint32(want), c.id())
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_MOD, int(c.fd), &ev); err != nil {
		l.closeLater(c, os.NewSyscallError("epoll_ctl", err))
	}
}

// startCloseTimeout makes the loop cut c if it is still open after CloseTimeout.
func (l *loop) startCloseTimeout(c *connection) {
	l.deadlines.Add(c.id(), l.now.Add(l.t.cfg.CloseTimeout))
}

// closeLater makes the loop close c at the end of the turn, with err as the reason. Queued bytes
// are lost.
func (l *loop) closeLater(c *connection, err error) {
	if c.is(toBeClosed) {
		return
	}
	c.state |= toBeClosed
	if c.out != nil {
		l.recycle(c)
	}
	l.toClose = append(l.toClose, closeItem{c, err})
}

// fail closes c because its socket failed. If the peer has closed its side before, that is the end
// in order.
func (l *loop) fail(c *connection, err error) {
	if c.is(peerClosed) {
		err = io.EOF
	}
	l.closeLater(c, err)
}

// afterPeerClosed continues with a connection whose peer has closed its side.
func (l *loop) afterPeerClosed(c *connection) {
	switch {
	case c.is(toBeClosed):
	case c.is(closeRequested):
		if c.is(writeShut) {
			l.closeLater(c, io.EOF)
		}
	case c.handler.PeerClosed():
		l.startCloseTimeout(c)
	default:
		l.closeLater(c, io.EOF)
	}
}

// closePending ends the turn: it closes connections whose peer has closed, whose deadline has
// passed, or that closeLater was called for.
func (l *loop) closePending() {
	for i, c := range l.peersClosed {
		l.peersClosed[i] = nil
		l.afterPeerClosed(c)
	}
	l.peersClosed = l.peersClosed[:0]
	for {
		id, ok := l.deadlines.Due(l.now)
		if !ok {
			break
		}
		if c := l.conns.get(id); c != nil {
			l.closeLater(c, os.ErrDeadlineExceeded)
		}
	}
	if len(l.toClose) > 0 {
		l.closeAll()
	}
}

// closeAll closes the connections in l.toClose and calls their handlers. A connection that is not
// registered yet has no handler, and stays in l.toClose.
func (l *loop) closeAll() {
	var unregistered []closeItem
	for _, item := range l.toClose {
		c := item.c
		if !c.is(registered) {
			unregistered = append(unregistered, item)
			continue
		}
		l.unregister(c)
		_ = unix.Close(int(c.fd))
		c.fd = -1
		handler := c.handler
		c.handler = nil
		handler.Closed(item.err)
	}
	clear(l.toClose)
	l.toClose = append(l.toClose[:0], unregistered...)
}

// unregister removes c from the loop. Call it before closing the descriptor.
func (l *loop) unregister(c *connection) {
	delete(l.heldEarly, c)
	if l.conns.get(c.id()) == c {
		l.conns.remove(c)
		_ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, int(c.fd), nil)
	}
	c.loop.count.Add(-1)
}

// shutdown closes everything.
func (l *loop) shutdown() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.runCommands()
	for _, a := range l.acceptors {
		l.stopAccepting(a)
	}
	l.conns.all(func(c *connection) { l.closeLater(c, transport.ErrClosed) })
	l.closeAll()
	l.closeDescriptors()
}
