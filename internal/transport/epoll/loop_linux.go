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
	bufferSize = 64 << 10 // of a read, and of what is gathered for a write
	maxEvents  = 128      // that one turn takes from the kernel
	minGather  = 4 << 10  // average size from which pieces are not copied together
	maxSpare   = 4096     // how much of what a loop keeps for reuse stays
)

// A loop owns its connections. Everything but wake and post is for the goroutine of run.
type loop struct {
	// Set by newLoop, then read-only.
	t     *Transport
	index int
	ep    int

	count      atomic.Int32  // connections
	backlogged atomic.Int32  // those of them that have a queue; written by run
	stopping   atomic.Bool   // set by Close
	sleepState atomic.Uint32 // awake, notified or asleep: see wake

	eventMu sync.Mutex // guards event
	event   int        // an eventfd that ends a sleep; -1 when the loop is over

	mu       sync.Mutex // guards commands
	commands []command
	stopped  bool // nobody will look at commands any more

	// Owned by run.
	now           clock.Instant // read once a turn
	conns         table
	events        [maxEvents]unix.EpollEvent
	buffer        []byte // what a read fills
	scratch       []byte // what a write gathers
	gather        gatherWriter
	spareCommands []command
	freeQueues    []*outqueue.Queue      // free
	dirty         []*connection          // to be written at the end of the turn
	peersClosed   []*connection          // whose peer has closed its side since the last Tick
	drained       []transport.Handler    // to be told so before the next Tick
	toClose       []closeItem            // to be closed at the very end of the turn
	heldEarly     map[*connection][]byte // early bytes of those that were paused at once
	deadlines     outqueue.Deadlines
	acceptors     map[uint64]*acceptor // by id
	resumeAt      clock.Instant        // the end of a pause in accepting; zero when there is none
}

// closed is a connection that is to be closed, and the reason.
type closeItem struct {
	c   *connection
	err error
}

// A command is what another goroutine wants the loop to do.
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
	do                          // call f, unless it has peerClosed
	listen                      // a new acceptor
	unlisten                    // to be closed
)

func newLoop(t *Transport, index int) (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(ep)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &loop{
		t: t, index: index, ep: ep, event: event,
		buffer:    make([]byte, bufferSize),
		scratch:   make([]byte, 0, bufferSize),
		heldEarly: make(map[*connection][]byte),
		acceptors: make(map[uint64]*acceptor),
	}
	// Edge-triggered: each write to it is told once, and it never has to be read.
	ev := newEvent(readable|unix.EPOLLET&(1<<32-1), 0)
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, event, &ev); err != nil {
		l.closeDescriptors()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return l, nil
}

// free closes what newLoop opened.
func (l *loop) closeDescriptors() {
	l.eventMu.Lock()
	defer l.eventMu.Unlock()
	_ = unix.Close(l.event)
	l.event = -1
	_ = unix.Close(l.ep)
}

// The states of loop.sleepState.
const (
	awake    uint32 = iota // nobody has called since the turn began
	notified               // somebody has
	asleep                 // the loop waits in the kernel, or is about to
)

// wake makes the loop take a turn. No call is lost: its Swap comes either before the loop's CompareAndSwap(awake,
// asleep), which then fails, so that the loop does not sleep; or after, and then finds asleep and writes the eventfd.
// And what was done before the call is seen in that turn: before stopping, the commands and Tick are looked at, a Swap
// reads what this one wrote. Of many callers one pays for the system call, and those within Data cause no further turn.
func (l *loop) wake() {
	if l.sleepState.Swap(notified) != asleep {
		return
	}
	l.eventMu.Lock()
	defer l.eventMu.Unlock()
	if l.event >= 0 { // else the number may be somebody else's by now
		// The number is added to a counter which nobody reads, and which must not run over: 1 lasts for ever.
		_, _ = unix.Write(l.event, binary.NativeEndian.AppendUint64(nil, 1))
	}
}

// post has the loop carry out cmd. It reports false when the loop is over.
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

func (l *loop) run() {
	for more := false; ; {
		n := l.wait(more)
		l.sleepState.Swap(awake) // from here on nobody has to end a sleep
		l.now = l.t.cfg.Clock.Now()
		for i := range l.events[:n] {
			l.handleEvent(&l.events[i])
		}
		l.sleepState.Swap(awake) // whoever has called so far is served now: all that they may have set is looked at below
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

// tell lets those know that have waited for a connection to drain.
func (l *loop) notifyDrained() {
	for i, h := range l.drained {
		l.drained[i] = nil
		h.Drained()
	}
	l.drained = l.drained[:0]
}

// wait returns how many events there are, without sleeping when there is something to do.
func (l *loop) wait(more bool) int {
	if n := pollEvents(l.ep, l.events[:]); n > 0 || more {
		return n
	}
	// Whom this turn has set going may use this thread before it sleeps: for Go's scheduler a sleep in the kernel is work,
	// of which it hears only after tens of microseconds (a reply from a callback took 44 µs without this, 1.4 µs with it).
	runtime.Gosched()
	if !l.sleepState.CompareAndSwap(awake, asleep) {
		return 0
	}
	return waitEvents(l.ep, l.events[:], l.timeout())
}

// timeout is how long to sleep; negative: until there is an event.
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

// ready serves one event.
func (l *loop) handleEvent(ev *unix.EpollEvent) {
	id := eventID(ev)
	c := l.conns.get(id)
	if c == nil {
		l.accept(l.acceptors[id]) // or the eventfd, or a connection that is gone
		return
	}
	if ev.Events&writable != 0 {
		l.flush(c)
	}
	if ev.Events&(readable|hungUp|broken) != 0 {
		l.read(c, ev.Events)
	}
}

// receive reads once, so that one connection never holds up the others for long.
func (l *loop) read(c *connection, events uint32) {
	if c.is(closing) {
		return
	}
	if !c.readEnabled() || c.requests.Load()&(pauseRequested|abortRequested) != 0 {
		if events&(hungUp|broken) != 0 { // cannot be turned off, and would come again at once
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
		l.closeLater(c, os.NewSyscallError("read", err))
	case events&broken != 0:
		l.fail(c, socketError(c.fd))
	}
}

// obey carries out the commands that have come.
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
			if cmd.c.is(registered) && !cmd.c.is(closing) {
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

// register makes c one of the loop's. It may have been written to, abortRequested or paused before.
func (l *loop) register(c *connection, early []byte) {
	c.state |= registered
	if c.is(closing) {
		return // close has been waiting for this
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

// applyRequests does what others want of c.
func (l *loop) applyRequests(c *connection) {
	requests := c.requests.And(^requestsPosted)
	if c.is(closing) || !c.is(registered) {
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

// wants is what epoll should tell of c. It always tells of the end of a connection, and that of the peer's side is
// read like data: asking for EPOLLRDHUP would only have it come again and again while nobody reads.
func (c *connection) wantedEvents() (events uint16) {
	if c.requests.Load()&pauseRequested == 0 && !c.is(peerClosed) {
		events |= uint16(readable)
	}
	if c.is(blocked) {
		events |= uint16(writable)
	}
	return events
}

// reading reports whether epoll has been asked for what arrives.
func (c *connection) readEnabled() bool { return uint32(c.interest)&readable != 0 }

// watch tells epoll what is wanted of c now, if that has changed.
func (l *loop) updateInterest(c *connection) {
	want := c.wantedEvents()
	if want == c.interest || !c.is(registered) || c.is(closing) {
		return
	}
	c.interest = want
	ev := newEvent(uint32(want), c.id())
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_MOD, int(c.fd), &ev); err != nil {
		l.closeLater(c, os.NewSyscallError("epoll_ctl", err))
	}
}

// expire gives c the time of CloseTimeout from now.
func (l *loop) startCloseTimeout(c *connection) {
	l.deadlines.Add(c.id(), l.now.Add(l.t.cfg.CloseTimeout))
}

// drop has c closed at the end of the turn, because of err.
func (l *loop) closeLater(c *connection, err error) {
	if c.is(closing) {
		return
	}
	c.state |= closing
	if c.out != nil {
		l.recycle(c)
	}
	l.toClose = append(l.toClose, closeItem{c, err})
}

// lose drops c because its socket failed, which is no more than the end when the peer has gone in order before.
func (l *loop) fail(c *connection, err error) {
	if c.is(peerClosed) {
		err = io.EOF
	}
	l.closeLater(c, err)
}

// part goes on with a connection whose peer has closed its side.
func (l *loop) afterPeerClosed(c *connection) {
	switch {
	case c.is(closing):
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

// close ends the turn: it closes what is to be closed.
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

// closeAll closes the sockets, and tells the handlers. A connection that is not registered yet has no handler, and stays.
func (l *loop) closeAll() {
	var early []closeItem
	for _, d := range l.toClose {
		c := d.c
		if !c.is(registered) {
			early = append(early, d)
			continue
		}
		l.unregister(c)
		_ = unix.Close(int(c.fd))
		c.fd = -1
		handler := c.handler
		c.handler = nil
		handler.Closed(d.err)
	}
	clear(l.toClose)
	l.toClose = append(l.toClose[:0], early...)
}

// forget takes c out of the loop, while its number is still its own.
func (l *loop) unregister(c *connection) {
	delete(l.heldEarly, c)
	if l.conns.get(c.id()) == c {
		l.conns.remove(c)
		_ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, int(c.fd), nil)
	}
	c.loop.count.Add(-1)
}

// end closes everything.
func (l *loop) shutdown() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.runCommands()
	for _, a := range l.acceptors {
		l.stopAccepting(a)
	}
	l.conns.all(func(c *connection) {
		l.closeLater(c, transport.ErrClosed)
	})
	l.closeAll()
	l.closeDescriptors()
}
