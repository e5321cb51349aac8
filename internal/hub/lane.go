package hub

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hearthws/hearth/internal/ws"
)

const (
	// maxBatchBytes bounds what consecutive messages to one group are joined to, for one write to each member.
	maxBatchBytes = 64 << 10
	// maxTurnBytes bounds the bytes of messages that one turn carries, so that a loop under a flood still reads.
	maxTurnBytes = 256 << 10
	// largeFanOut is how many members make a crowd, for which a message waits for others (coalescer).
	largeFanOut = 128
	// busyItems is how many items a loop may have waiting before those who produce them as answers wait
	// for its next turn.
	busyItems = 256
	// prefetchWidth is how many members are fetched at a time.
	prefetchWidth = 16
)

// A Lane is the way from any goroutine to the connections of one event loop.
type Lane struct {
	// Set by New, then read-only.
	hub   *Hub
	index int
	limit int

	waiting  atomic.Int64 // bytes of messages pushed and not yet handed to connections
	messages atomic.Int64 // how many they are

	mu       sync.Mutex // guards the fields below; innermost
	inbox    []item
	pushed   uint64        // items, ever
	carrying bool          // items were taken from the inbox and not yet carried
	resumers []Resumer     // to be resumed at the end of the turn
	ended    bool          // the loop has ended: nobody is held any more
	changes  membershipLog // changed with Hub.mu held too, or by the loop: the loop reads it under either

	// Owned by the loop.
	work    []item    // taken from the inbox
	next    int       // work[next:] is still to do
	first   uint64    // how many items were pushed before work[0]; written under mu
	members []*Member // scratch for a fan-out

	coalescer coalescer // owned by the loop
	sealer    sealer    // its fields have owners of their own
}

// An item is one thing for the loop to do.
type item struct {
	kind      itemKind
	large     bool    // fanOut: to so many that waiting for another message pays
	member    *Member // for all but fanOut
	group     *group  // fanOut
	msg       *ws.Message
	raw       []byte      // control, finish: a whole frame
	exclude   []*Member   // fanOut
	semaphore *semaphore  // fanOut, if a member may transform it
	change    *Switchover // encrypt
}

type itemKind uint8

const (
	direct  itemKind = iota // a message to a member
	fanOut                  // a message to a group
	welcome                 // a message to a member that is live from then on
	notice                  // a message to a member, live or not
	control                 // a frame that is no message to a member, live or not
	finish                  // the last frame to a member
	encrypt                 // no message to a member in clear from then on
)

// push queues it and reports whether there was room. Welcomes, notices, control and last frames always have: they are
// few, and a connection could not be closed without them.
func (l *Lane) push(it item) bool {
	size := int64(0)
	if it.msg != nil {
		size = int64(len(it.msg.Frame()))
		waiting := l.waiting.Load()
		if waiting > 0 && waiting+size > int64(l.limit) && it.kind != welcome && it.kind != notice { // an empty lane takes one of any size
			return false
		}
		l.waiting.Add(size)
		l.messages.Add(int64(it.msg.Count()))
	}
	l.mu.Lock()
	l.inbox = append(l.inbox, it)
	l.pushed++
	first := len(l.inbox) == 1
	l.mu.Unlock()
	if first { // whoever pushed first has woken the loop, and it takes all
		l.wake()
	}
	return true
}

// A Resumer waits for a lane's next turn.
type Resumer interface {
	// Resume is called on the loop, or by Hub.ResumeAll: must not block.
	Resume()
}

// WaitTurn has r resumed at the end of the loop's next turn, if so much waits for the loop that it is
// better to wait with further answers: input must not be handled faster than the loop sends what comes
// of it, or its queue would grow without bound. False: it is not, and r is not resumed. Any goroutine;
// never blocks.
func (m *Member) WaitTurn(r Resumer) bool {
	l := m.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(l.inbox) < busyItems { // else a turn is certain to follow
		return false
	}
	l.resumers = append(l.resumers, r)
	return true
}

// resume lets those go on that were held.
func (l *Lane) resume() {
	l.mu.Lock()
	resumers := l.resumers
	l.resumers = nil
	l.mu.Unlock()
	for _, r := range resumers {
		r.Resume()
	}
}

// Notice queues a message for m, admitted or not: an error. Any goroutine; never blocks.
func (m *Member) Notice(msg *ws.Message) {
	m.lane.push(item{kind: notice, member: m, msg: msg})
}

// Control queues bytes that are no message for m, admitted or not: a ping, a pong, the answer to a handshake. They are
// sent as they are to encrypted members, too. Any goroutine; never blocks.
func (m *Member) Control(frame []byte) {
	m.lane.push(item{kind: control, member: m, raw: frame})
}

// CloseAfterFlush queues the last frame for m, or none, after which its connection is closed in order. Nothing that is queued for it
// later is written. Any goroutine; never blocks.
func (m *Member) CloseAfterFlush(frame []byte) {
	m.lane.push(item{kind: finish, member: m, raw: frame})
}

// Buffered is how many bytes m's peer has not taken yet, what is to be encrypted for it included.
func (m *Member) Buffered() int {
	if q := m.queue.Load(); q != nil {
		return q.pending()
	}
	n := m.link.Buffered()
	if q := m.queue.Load(); q != nil { // has become encrypted, and the link's bytes may have been taken back before they were counted
		n = q.pending()
	}
	return n
}

// Tick hands what is queued to the connections. It is the loop's, once a turn; more says that there is work left for
// the next turn, which should come at once.
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
	// What was written this turn goes to the sockets only after Tick: who waits for that is told by another turn.
	return l.endWork() || more || (worked || wrote) && l.hub.waiters.any()
}

// coalesce lets a message to a crowd wait for those right behind it. Its writes will take milliseconds; a publisher that is
// under way needs microseconds for the next message, which then goes out in the same writes. Without this the first of a
// burst, which wakes the loop, would always travel atOnce.
func (l *Lane) coalesce() {
	l.mu.Lock()
	large := len(l.inbox) > 0 && l.inbox[len(l.inbox)-1].large
	l.mu.Unlock()
	if large {
		l.coalescer.wait(l)
	}
}

// endWork empties the work list; the memory of a flood is given back. It reports whether the inbox has something: a turn
// that carries what an earlier one left does not take it, and may have been the one that it woke.
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

// nextRun finds how many items from l.next on can be carried as one, and their size in bytes: consecutive messages to one
// group, or a single item of any other sort.
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

// handle brings one run to its connections; atOnce says that it is all that this turn has.
func (l *Lane) handle(run []item, size int, atOnce bool) {
	it := &run[0]
	m := it.member
	switch it.kind {
	case fanOut:
		l.fanOut(run, size, atOnce)
	case direct:
		if m.live { // else it is finished: no longer anybody's destination
			l.deliver(run)
		}
	case welcome:
		m.live = true
		l.deliver(run)
		m.sealed = m.queue.Load() != nil // this was the last message in clear
	case notice:
		if m.sealed {
			l.sealer.accept(m, &fanOutBatch{run: run})
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

// deliver brings one message, or a series, to one member.
func (l *Lane) deliver(run []item) {
	m := run[0].member
	switch {
	case m.sealed:
		l.sealer.accept(m, &fanOutBatch{run: run})
	case m.link.Write(m.frameOf(run[0].msg)):
		l.record(m, countMessages(run), true)
	default:
		l.writeIndividually(m, splitSeries(run))
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
		m.owner.Dropped(n)
	}
}

// wake makes the loop run a turn soon. Any goroutine.
func (l *Lane) wake() { l.hub.wake(l.index) }

// fanOut writes a run of messages to each member that the group had in this lane when they were sent.
func (l *Lane) fanOut(run []item, size int, atOnce bool) {
	g := run[0].group
	for at := l.first + uint64(l.next); len(run) > 0; {
		// The copy is what lets everybody else join and leave while thousands of sockets are written.
		l.hub.mu.RLock()
		l.members = g.sets[l.index].appendTo(l.members[:0])
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

// writeRun brings a run of messages to l.members.
func (l *Lane) writeRun(run []item, size int, atOnce bool) {
	l.setExcluded(run[0].exclude, true)
	var deflated []byte
	plain := joinFrames(run, size, (*ws.Message).Frame)
	messages, delivered := countMessages(run), 0
	apart := fanOutBatch{run: run}
	for i, m := range l.members {
		if i%prefetchWidth == 0 {
			prefetch(l.members[i:min(i+prefetchWidth, len(l.members))])
		}
		if !m.live || m.excluded {
			continue
		}
		if m.sealed {
			l.sealer.accept(m, &apart)
			continue
		}
		p := plain
		if m.Deflate {
			if deflated == nil {
				deflated = joinFrames(run, size, (*ws.Message).Deflated)
			}
			p = deflated
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
			l.writeIndividually(m, apart.single())
		}
	}
	l.setExcluded(run[0].exclude, false)
	l.hub.delivered.Add(uint64(delivered))
}

// prefetch reads what writes to the members will need, for all of them before the first write: the
// processor loads many lines of memory in the time that it takes to load one.
func prefetch(members []*Member) {
	for _, m := range members {
		if m.live {
			m.link.Buffered()
		}
	}
}

// setExcluded marks, or unmarks, those of the members that are this lane's.
func (l *Lane) setExcluded(members []*Member, excluded bool) {
	for _, m := range members {
		if m.lane == l {
			m.excluded = excluded
		}
	}
}

// writeIndividually writes the messages of a rejected batch up to the first that does not fit: no later message
// may overtake a dropped one. None of them is a series.
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

// countMessages is how many messages a run is.
func countMessages(run []item) (n int) {
	for i := range run {
		if run[i].msg != nil {
			n += run[i].msg.Count()
		}
	}
	return n
}

// splitSeries are a run with each message of a series as an item of its own: for members that do not get all at once, or not
// as it is.
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

// joinFrames makes one buffer of a run's frames; one alone is not copied.
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
