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
	eventsMax  = 128      // that one turn takes from the kernel
	vectorFrom = 4 << 10  // average size from which pieces are not copied together
	spareMax   = 4096     // how much of what a loop keeps for reuse stays
)

// A loop owns its connections. Everything but wake and post is for the goroutine of run.
type loop struct {
	// Set by newLoop, then read-only.
	t     *Transport
	index int
	ep    int

	count    atomic.Int32  // connections
	owing    atomic.Int32  // those of them that have a queue; written by run
	stopping atomic.Bool   // set by Close
	attend   atomic.Uint32 // awake, notified or asleep: see wake

	eventMu sync.Mutex // guards event
	event   int        // an eventfd that ends a sleep; -1 when the loop is over

	mu       sync.Mutex // guards commands
	commands []command
	over     bool // nobody will look at commands any more

	// Owned by run.
	now       clock.Instant          // read once a turn
	conns     map[uint64]*connection // by id
	events    [eventsMax]unix.EpollEvent
	buffer    []byte // what a read fills
	scratch   []byte // what a write gathers
	vectors   vectors
	spare     []command
	queues    []*outqueue.Queue      // free
	dirty     []*connection          // to be written at the end of the turn
	ended     []*connection          // whose peer has closed its side since the last Tick
	drained   []transport.Handler    // to be told so before the next Tick
	closing   []closed               // to be closed at the very end of the turn
	held      map[*connection][]byte // early bytes of those that were paused at once
	deadlines outqueue.Deadlines
	doors     map[uint64]*door // by id
	reopen    clock.Instant    // the end of a pause in accepting; zero when there is none
}

// closed is a connection that is to be closed, and the reason.
type closed struct {
	c   *connection
	err error
}

// A command is what another goroutine wants the loop to do.
type command struct {
	kind  commandKind
	c     *connection
	early []byte // register
	door  *door  // listen, unlisten
	f     func() // do
}

type commandKind uint8

const (
	register commandKind = iota // a new connection
	obey                        // its orders have changed
	do                          // call f, unless it has ended
	listen                      // a new door
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
		buffer:  make([]byte, bufferSize),
		scratch: make([]byte, 0, bufferSize),
		held:    make(map[*connection][]byte),
		doors:   make(map[uint64]*door),
		conns:   make(map[uint64]*connection),
	}
	// Edge-triggered: each write to it is told once, and it never has to be read.
	ev := interestIn(readable|unix.EPOLLET&(1<<32-1), 0)
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, event, &ev); err != nil {
		l.free()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return l, nil
}

// free closes what newLoop opened.
func (l *loop) free() {
	l.eventMu.Lock()
	defer l.eventMu.Unlock()
	_ = unix.Close(l.event)
	l.event = -1
	_ = unix.Close(l.ep)
}

// The states of loop.attend.
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
	if l.attend.Swap(notified) != asleep {
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
	over := l.over
	if !over {
		l.commands = append(l.commands, cmd)
	}
	l.mu.Unlock()
	l.wake()
	return !over
}

func (l *loop) run() {
	for more := false; ; {
		n := l.wait(more)
		l.attend.Swap(awake) // from here on nobody has to end a sleep
		l.now = l.t.cfg.Clock.Now()
		for i := range l.events[:n] {
			l.ready(&l.events[i])
		}
		l.attend.Swap(awake) // whoever has called so far is served now: all that they may have set is looked at below
		if l.stopping.Load() {
			l.end()
			return
		}
		l.obey()
		l.reopenDoors()
		l.tell()
		more = l.t.cfg.Tick(l.index)
		for i, c := range l.dirty {
			l.dirty[i] = nil
			c.state &^= dirty
			l.flush(c)
		}
		l.dirty = l.dirty[:0]
		l.close()
		more = more || len(l.drained) > 0
	}
}

// tell lets those know that have waited for a connection to drain.
func (l *loop) tell() {
	for i, h := range l.drained {
		l.drained[i] = nil
		h.Drained()
	}
	l.drained = l.drained[:0]
}

// wait returns how many events there are, without sleeping when there is something to do.
func (l *loop) wait(more bool) int {
	if n := poll(l.ep, l.events[:]); n > 0 || more {
		return n
	}
	// Whom this turn has set going may use this thread before it sleeps: for Go's scheduler a sleep in the kernel is work,
	// of which it hears only after tens of microseconds (a reply from a callback took 44 µs without this, 1.4 µs with it).
	runtime.Gosched()
	if !l.attend.CompareAndSwap(awake, asleep) {
		return 0
	}
	return wait(l.ep, l.events[:], l.timeout())
}

// timeout is how long to sleep; negative: until there is an event.
func (l *loop) timeout() time.Duration {
	d, ok := l.deadlines.Wait(l.now, l.alive)
	if l.reopen != 0 {
		if pause := max(l.reopen.Sub(l.now), 0); !ok || pause < d {
			d, ok = pause, true
		}
	}
	if !ok {
		return -1
	}
	return d
}

func (l *loop) alive(id uint64) bool { return l.conns[id] != nil }

// ready serves one event.
func (l *loop) ready(ev *unix.EpollEvent) {
	id := idOf(ev)
	c := l.conns[id]
	if c == nil {
		l.accept(l.doors[id]) // or the eventfd, or a connection that is gone
		return
	}
	if ev.Events&writable != 0 {
		l.flush(c)
	}
	if ev.Events&(readable|hungUp|broken) != 0 {
		l.receive(c, ev.Events)
	}
}

// receive reads once, so that one connection never holds up the others for long.
func (l *loop) receive(c *connection, events uint32) {
	if c.is(closing) {
		return
	}
	if !c.reading() || c.orders.Load()&(paused|aborted) != 0 {
		if events&(hungUp|broken) != 0 { // cannot be turned off, and would come again at once
			l.lose(c, hangup(c.fd))
		}
		return
	}
	n, err := recv(c.fd, l.buffer)
	switch {
	case n > 0:
		c.handler.Data(l.buffer[:n], l.now)
	case err == nil:
		c.state |= ended
		l.ended = append(l.ended, c)
		l.watch(c)
	case err != unix.EAGAIN:
		l.drop(c, os.NewSyscallError("read", err))
	case events&broken != 0:
		l.lose(c, hangup(c.fd))
	}
}

// obey carries out the commands that have come.
func (l *loop) obey() {
	l.mu.Lock()
	commands := l.commands
	l.commands = l.spare[:0]
	l.mu.Unlock()
	for _, cmd := range commands {
		switch cmd.kind {
		case register:
			l.register(cmd.c, cmd.early)
		case obey:
			l.carryOut(cmd.c)
		case do:
			if cmd.c.is(registered) && !cmd.c.is(closing) {
				cmd.f()
			}
		case listen:
			l.openDoor(cmd.door)
		case unlisten:
			l.closeDoor(cmd.door)
		}
	}
	clear(commands)
	if l.spare = commands; cap(commands) > spareMax {
		l.spare = nil
	}
}

// register makes c one of the loop's. It may have been written to, aborted or paused before.
func (l *loop) register(c *connection, early []byte) {
	c.state |= registered
	if c.is(closing) {
		return // close has been waiting for this
	}
	if c.orders.Load()&aborted != 0 || l.stopping.Load() {
		l.drop(c, transport.ErrClosed)
		return
	}
	l.conns[c.id] = c
	c.interest = c.wants()
	ev := interestIn(uint32(c.interest), c.id)
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, int(c.fd), &ev); err != nil {
		l.drop(c, os.NewSyscallError("epoll_ctl", err))
		return
	}
	if c.is(finishing) {
		l.expire(c)
	}
	if len(early) == 0 {
		return
	}
	if !c.reading() { // paused
		l.held[c] = early
		return
	}
	c.handler.Data(early, l.now)
}

// carryOut does what others want of c.
func (l *loop) carryOut(c *connection) {
	orders := c.orders.And(^ordered)
	if c.is(closing) || !c.is(registered) {
		return
	}
	if orders&aborted != 0 {
		l.drop(c, transport.ErrClosed)
		return
	}
	l.watch(c)
	if early, ok := l.held[c]; ok && c.reading() {
		delete(l.held, c)
		c.handler.Data(early, l.now)
	}
}

// wants is what epoll should tell of c. It always tells of the end of a connection, and that of the peer's side is
// read like data: asking for EPOLLRDHUP would only have it come again and again while nobody reads.
func (c *connection) wants() (events uint16) {
	if c.orders.Load()&paused == 0 && !c.is(ended) {
		events |= uint16(readable)
	}
	if c.is(blocked) {
		events |= uint16(writable)
	}
	return events
}

// reading reports whether epoll has been asked for what arrives.
func (c *connection) reading() bool { return uint32(c.interest)&readable != 0 }

// watch tells epoll what is wanted of c now, if that has changed.
func (l *loop) watch(c *connection) {
	want := c.wants()
	if want == c.interest || !c.is(registered) || c.is(closing) {
		return
	}
	c.interest = want
	ev := interestIn(uint32(want), c.id)
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_MOD, int(c.fd), &ev); err != nil {
		l.drop(c, os.NewSyscallError("epoll_ctl", err))
	}
}

// expire gives c the time of CloseTimeout from now.
func (l *loop) expire(c *connection) { l.deadlines.Add(c.id, l.now.Add(l.t.cfg.CloseTimeout)) }

// drop has c closed at the end of the turn, because of err.
func (l *loop) drop(c *connection, err error) {
	if c.is(closing) {
		return
	}
	c.state |= closing
	if c.out != nil {
		l.recycle(c)
	}
	l.closing = append(l.closing, closed{c, err})
}

// lose drops c because its socket failed, which is no more than the end when the peer has gone in order before.
func (l *loop) lose(c *connection, err error) {
	if c.is(ended) {
		err = io.EOF
	}
	l.drop(c, err)
}

// part goes on with a connection whose peer has closed its side.
func (l *loop) part(c *connection) {
	switch {
	case c.is(closing):
	case c.is(finishing):
		if c.is(shut) {
			l.drop(c, io.EOF)
		}
	case c.handler.PeerClosed():
		l.expire(c)
	default:
		l.drop(c, io.EOF)
	}
}

// close ends the turn: it closes what is to be closed.
func (l *loop) close() {
	for i, c := range l.ended {
		l.ended[i] = nil
		l.part(c)
	}
	l.ended = l.ended[:0]
	for {
		id, ok := l.deadlines.Due(l.now)
		if !ok {
			break
		}
		if c := l.conns[id]; c != nil {
			l.drop(c, os.ErrDeadlineExceeded)
		}
	}
	if len(l.closing) > 0 {
		l.bury()
	}
}

// bury closes the sockets, and tells the handlers. A connection that is not registered yet has no handler, and stays.
func (l *loop) bury() {
	var early []closed
	for _, d := range l.closing {
		c := d.c
		if !c.is(registered) {
			early = append(early, d)
			continue
		}
		l.forget(c)
		_ = unix.Close(int(c.fd))
		c.fd = -1
		handler := c.handler
		c.handler = nil
		handler.Closed(d.err)
	}
	clear(l.closing)
	l.closing = append(l.closing[:0], early...)
}

// forget takes c out of the loop, while its number is still its own.
func (l *loop) forget(c *connection) {
	delete(l.held, c)
	if l.conns[c.id] == c {
		delete(l.conns, c.id)
		_ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, int(c.fd), nil)
	}
	c.loop.count.Add(-1)
}

// end closes everything.
func (l *loop) end() {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	l.obey()
	for _, d := range l.doors {
		l.closeDoor(d)
	}
	for _, c := range l.conns {
		l.drop(c, transport.ErrClosed)
	}
	l.bury()
	l.free()
}
