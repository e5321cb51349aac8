package hub

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/ws"
)

const (
	// maxBatchBytes bounds the consecutive messages to one group that are joined into one write for
	// each member.
	maxBatchBytes = 64 << 10
	// maxTurnBytes bounds the messages that one turn handles, in bytes, so that a loop under a
	// flood still reads.
	maxTurnBytes = 256 << 10
	// largeFanOut is the number of members from which on a message to a group waits for more
	// messages (see coalescer).
	largeFanOut = 128
	// busyItems is the number of waiting items from which on WaitTurn makes the handlers of input
	// wait.
	busyItems = 256
	// prefetchWidth is the number of members that one call of prefetch loads.
	prefetchWidth = 16
)

// A Lane is the queue from all goroutines to the connections of one event loop.
type Lane struct {
	// Set by New, then read-only.
	hub   *Hub
	index int
	limit int

	waiting  atomic.Int64 // bytes of messages that were pushed and not yet passed to connections
	messages atomic.Int64 // their number

	mu       sync.Mutex // guards the fields below; innermost
	inbox    []item
	pushed   uint64        // total number of items
	carrying bool          // the loop has taken items and not yet handled all of them
	resumers []Resumer     // to be resumed at the end of the turn
	ended    bool          // the loop has ended, so WaitTurn accepts no resumer
	changes  membershipLog // written with Hub.mu too, or by the loop, which reads it under either

	// Owned by the loop.
	work    []item    // taken from the inbox
	next    int       // work[next:] is still to be handled
	first   uint64    // number of items pushed before work[0]; written under mu
	members []*Member // scratch for a fan-out

	coalescer coalescer // owned by the loop
	sealer    sealer    // documents the owner of each of its fields
}

// An item is one task for the loop.
type item struct {
	kind      itemKind
	large     bool    // fanOut: to largeFanOut members or more
	member    *Member // all kinds except fanOut
	group     *group  // fanOut
	msg       *ws.Message
	raw       []byte      // control, finish: a frame
	exclude   []*Member   // fanOut
	semaphore *semaphore  // fanOut, if a member may transform it
	change    *Switchover // encrypt
}

type itemKind uint8

const (
	direct  itemKind = iota // a message to a member
	fanOut                  // a message to a group
	welcome                 // the first message to a member, which makes it live
	notice                  // a message to a member, live or not
	control                 // a frame that carries no message, to a member, live or not
	finish                  // the last frame to a member
	encrypt                 // the switch of a member to encryption
)

// push queues an item, and reports whether it fitted. Welcomes, notices, control frames and last
// frames always fit: they are few, and connections cannot be closed without them.
func (l *Lane) push(it item) bool {
	if it.msg != nil && it.kind != welcome && it.kind != notice && !l.fits(it.msg) {
		return false
	}
	l.queue(it)
	return true
}

// fits reports whether a message fits now. An empty lane takes a message of any size.
func (l *Lane) fits(msg *ws.Message) bool {
	waiting := l.waiting.Load()
	return waiting == 0 || waiting+int64(len(msg.Frame())) <= int64(l.limit)
}

// queue queues an item, even if it does not fit.
func (l *Lane) queue(it item) {
	if it.msg != nil {
		l.waiting.Add(int64(len(it.msg.Frame())))
		l.messages.Add(int64(it.msg.Count()))
	}
	l.mu.Lock()
	l.inbox = append(l.inbox, it)
	l.pushed++
	first := len(l.inbox) == 1
	l.mu.Unlock()
	if first { // otherwise the first item has woken the loop, which takes all of them
		l.wake()
	}
}

// A Resumer waits for a lane's next turn.
type Resumer interface {
	// Resume is called on the loop, or by Hub.ResumeAll. It must not block.
	Resume()
}

// WaitTurn reports whether the loop of m has so many items waiting that r must not handle more
// input now. If so, r is resumed at the end of the loop's next turn. Input must not be handled
// faster than the loop sends the answers, or its queue would grow without bound. WaitTurn never
// blocks, and may be called from any goroutine.
func (m *Member) WaitTurn(r Resumer) bool {
	l := m.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(l.inbox) < busyItems { // with items in the inbox a turn is certain to follow
		return false
	}
	l.resumers = append(l.resumers, r)
	return true
}

// resume resumes all resumers.
func (l *Lane) resume() {
	l.mu.Lock()
	resumers := l.resumers
	l.resumers = nil
	l.mu.Unlock()
	for _, r := range resumers {
		r.Resume()
	}
}

// Fits reports whether a message for m fits into the send queue now.
func (m *Member) Fits(msg *ws.Message) bool { return m.lane.fits(msg) }

// Notice queues a message for m, such as an error, whether m was admitted or not. It never blocks,
// and may be called from any goroutine.
func (m *Member) Notice(msg *ws.Message) {
	m.lane.push(item{kind: notice, member: m, msg: msg})
}

// Control queues bytes for m that are not a message: a ping, a pong, the answer to a handshake. m
// may be admitted or not. The bytes are not encrypted, whatever m is. Control never blocks, and may
// be called from any goroutine.
func (m *Member) Control(frame []byte) {
	m.lane.push(item{kind: control, member: m, raw: frame})
}

// CloseAfterFlush queues the last frame for m, which may be empty. After it, the connection is
// closed in order. Nothing that is queued later is written. CloseAfterFlush never blocks, and may
// be called from any goroutine.
func (m *Member) CloseAfterFlush(frame []byte) {
	m.lane.push(item{kind: finish, member: m, raw: frame})
}

// Buffered returns how many bytes wait for m's peer, including messages that are still to be
// encrypted. It may be called from any goroutine.
func (m *Member) Buffered() int {
	if q := m.queue.Load(); q != nil {
		return q.pending()
	}
	n := m.link.Buffered()
	// If m was switched to encryption meanwhile, the link's bytes may have been recalled before
	// they were counted here.
	if q := m.queue.Load(); q != nil {
		n = q.pending()
	}
	return n
}

// Tick passes queued messages to the connections. The loop calls it once in each turn. more means
// that work is left, and that the next turn should follow at once.
func (l *Lane) Tick() (more bool) {
	defer l.resume()
	if len(l.work) == 0 {
		l.coalesce()
		l.mu.Lock()
		l.work, l.inbox = l.inbox, l.work
		l.first, l.carrying = l.pushed-uint64(len(l.work)), len(l.work) > 0
		l.pruneLocked()
		l.mu.Unlock()
	}
	worked, bytes, messages := len(l.work) > 0, 0, 0
	for began := l.next; l.next < len(l.work) && bytes < maxTurnBytes; {
		if l.work[l.next].kind == encrypt && l.next > began {
			break
		}
		n, size := l.nextRun()
		run, atOnce := l.work[l.next:l.next+n], l.next == 0 && n == len(l.work)
		l.handle(run, size, atOnce)
		l.next += n
		bytes += size
		messages += countMessages(run)
	}
	wrote, more := l.sealer.writeSealed()
	l.waiting.Add(-int64(bytes))
	l.messages.Add(-int64(messages))
	l.hub.waiters.wake()
	if l.next < len(l.work) {
		return true
	}
	// The sockets get the messages of this turn only after Tick, so goroutines in WaitPending need
	// another turn.
	return l.endWork() || more || (worked || wrote) && l.hub.waiters.any()
}

// coalesce waits for more messages if the newest one is for a large group. Its writes take
// milliseconds. A sender in the middle of a burst needs microseconds for its next message, which
// then shares these writes. Without the wait, the first message of a burst, which wakes the loop,
// would always be written alone.
func (l *Lane) coalesce() {
	l.mu.Lock()
	large := len(l.inbox) > 0 && l.inbox[len(l.inbox)-1].large
	l.mu.Unlock()
	if large {
		l.coalescer.wait(l)
	}
}

// endWork empties the work list, and frees the memory of a flood. It reports whether the inbox has
// items: a turn that handles the items that an earlier one left does not take them, and may be the
// one that they have woken.
func (l *Lane) endWork() (waiting bool) {
	clear(l.work)
	l.work, l.next = l.work[:0], 0
	if cap(l.work) > 4096 {
		l.work = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.carrying = false
	l.pruneLocked()
	return len(l.inbox) > 0
}

// nextRun returns how many items from l.next on can be handled together, and their size in bytes.
// They are consecutive messages to one group, or one item of another kind.
func (l *Lane) nextRun() (n, size int) {
	first := &l.work[l.next]
	if first.msg != nil {
		size = len(first.msg.Frame())
	}
	if first.kind != fanOut || first.exclude != nil {
		return 1, size
	}
	n = 1
	for _, it := range l.work[l.next+1:] {
		if it.kind != fanOut || it.group != first.group || it.exclude != nil {
			break
		}
		s := len(it.msg.Frame())
		if size+s > maxBatchBytes {
			break
		}
		size += s
		n++
	}
	return n, size
}

// handle handles one run. atOnce means that the turn has no other items, so messages can be written
// at once instead of at its end.
func (l *Lane) handle(run []item, size int, atOnce bool) {
	it := &run[0]
	m := it.member
	switch it.kind {
	case fanOut:
		l.fanOut(run, size, atOnce)
	case direct:
		if m.live { // otherwise its last frame was queued
			l.deliver(run)
		}
	case welcome:
		m.live = true
		l.deliver(run)
		m.sealed = m.queue.Load() != nil // the welcome is the last unencrypted message
	case notice:
		if m.sealed {
			l.sealer.accept(m, newFanOutBatch(run, m.Positions))
		} else {
			l.record(m, 1, m.link.Write(it.msg.Frame()))
		}
	case control:
		m.link.Write(it.raw)
	case finish:
		m.live = false
		if m.sealed {
			l.sealer.finish(m, it.raw)
		} else {
			m.link.CloseAfterFlush(it.raw)
		}
	case encrypt:
		l.switchOver(m, it.change)
	}
}

// deliver writes one message, or a series, to one member.
func (l *Lane) deliver(run []item) {
	m := run[0].member
	switch {
	case m.sealed:
		l.sealer.accept(m, newFanOutBatch(run, m.Positions))
	case m.link.Write(m.frameOf(run[0].msg)):
		l.record(m, countMessages(run), true)
	default:
		l.writeIndividually(m, newFanOutBatch(run, m.Positions).single())
	}
}

// record counts n messages that were written to m's connection, or rejected. A connection that is
// closing is not full: its member is about to be removed, and the messages are lost with the
// connection.
func (l *Lane) record(m *Member, n int, written bool) {
	switch {
	case written:
		l.hub.delivered.Add(uint64(n))
	case !m.link.Closing():
		l.hub.dropped.Add(uint64(n))
		if m.owner.Dropped(n) {
			m.live = false // until its last frame, which closes the connection
		}
	}
}

// wake makes the loop run a turn soon. Any goroutine.
func (l *Lane) wake() { l.hub.wake(l.index) }

// fanOut writes a run of messages to each member that the group had in this lane when they were
// sent.
func (l *Lane) fanOut(run []item, size int, atOnce bool) {
	g := run[0].group
	for at := l.first + uint64(l.next); len(run) > 0; {
		// With a copy, members can join and leave while thousands of sockets are written.
		l.hub.mu.RLock()
		l.members = append(l.members[:0], g.sets[l.index]...)
		changes := l.changes[g]
		l.hub.mu.RUnlock()
		n := len(run)
		if len(changes) > 0 {
			n = runUntil(changes, at, n)
			atOnce = atOnce && n == len(run)
			l.members = membersAt(l.members, changes, at)
		}
		l.writeRun(run[:n], size, atOnce)
		run, at = run[n:], at+uint64(n)
	}
	clear(l.members)
	if cap(l.members) > 64<<10 {
		l.members = nil
	}
}

// writeRun writes a run of messages to l.members.
func (l *Lane) writeRun(run []item, size int, atOnce bool) {
	l.setExcluded(run[0].exclude, true)
	plain := joinFrames(run, size, (*ws.Message).Frame) // the form that nearly all members need
	others := otherForms{run: run, size: size}
	messages, delivered := countMessages(run), 0
	for i, m := range l.members {
		if i%prefetchWidth == 0 {
			prefetch(l.members[i:min(i+prefetchWidth, len(l.members))])
		}
		if !m.live || m.excluded {
			continue
		}
		if m.sealed {
			l.sealer.accept(m, others.batch(m.Positions))
			continue
		}
		p := plain
		if m.Deflate || m.Positions {
			p = others.frames(m)
		}
		ok := false
		if atOnce {
			ok = m.link.WriteNow(p)
		} else {
			ok = m.link.Write(p)
		}
		if ok {
			delivered += messages
		} else {
			l.writeIndividually(m, others.batch(m.Positions).single())
		}
	}
	l.setExcluded(run[0].exclude, false)
	l.hub.delivered.Add(uint64(delivered))
}

// otherForms has the messages of a run in the forms that some members need. Each is made for the
// first of them.
type otherForms struct {
	run     []item
	size    int
	joined  [4][]byte       // by form
	batches [2]*fanOutBatch // the second for members that get positions
}

// frames returns the frames of the run in the form for m.
func (f *otherForms) frames(m *Member) []byte {
	form := 0
	if m.Deflate {
		form++
	}
	if m.Positions {
		form += 2
	}
	if f.joined[form] == nil {
		f.joined[form] = joinFrames(f.run, f.size, m.frameOf)
	}
	return f.joined[form]
}

// batch returns the run for members that get positions, or for those that do not.
func (f *otherForms) batch(positions bool) *fanOutBatch {
	i := 0
	if positions {
		i = 1
	}
	if f.batches[i] == nil {
		f.batches[i] = newFanOutBatch(f.run, positions)
	}
	return f.batches[i]
}

// prefetch reads the memory that the writes to several members will need, before the first write.
// The processor loads many lines of memory in parallel.
func prefetch(members []*Member) {
	for _, m := range members {
		if m.live {
			m.link.Buffered()
		}
	}
}

// setExcluded sets or clears the mark of those members that belong to this lane.
func (l *Lane) setExcluded(members []*Member, excluded bool) {
	for _, m := range members {
		if m.lane == l {
			m.excluded = excluded
		}
	}
}

// writeIndividually writes the messages of a rejected run up to the first that does not fit. It
// drops the rest, because no later message may overtake a dropped one. None of them is a series.
func (l *Lane) writeIndividually(m *Member, run []item) {
	fit := 0
	for len(run) > 1 && fit < len(run) && m.link.Write(m.frameOf(run[fit].msg)) {
		fit++
	}
	l.record(m, fit, true)
	if fit < len(run) {
		l.record(m, len(run)-fit, false)
	}
}

// countMessages returns the number of messages in a run.
func countMessages(run []item) (n int) {
	for i := range run {
		if run[i].msg != nil {
			n += run[i].msg.Count()
		}
	}
	return n
}

// splitSeries returns a run with each message of a series as an item of its own, for members that
// do not get all of them, or get them in another form.
func splitSeries(run []item) []item {
	n := countMessages(run)
	if n == len(run) {
		return run
	}
	each := make([]item, 0, n)
	var msgs []*ws.Message
	for i := range run {
		msgs = run[i].msg.Split(msgs[:0])
		for _, msg := range msgs {
			it := run[i]
			it.msg = msg
			each = append(each, it)
		}
	}
	return each
}

// joinFrames returns the frames of a run in one buffer. It does not copy a single frame.
func joinFrames(run []item, size int, frame func(*ws.Message) []byte) []byte {
	if len(run) == 1 {
		return frame(run[0].msg)
	}
	b := make([]byte, 0, size)
	for i := range run {
		b = append(b, frame(run[i].msg)...)
	}
	return slices.Clip(b)
}
