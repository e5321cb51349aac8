package hub

import "sync/atomic"

const (
	// harvestMax is how many members' sealed messages a turn hands to connections, so that the loop reads in between.
	harvestMax = 256
	// hereMax is how many short messages of a turn, of up to shortMax bytes sealed, the loop seals itself: a reply, an error. To hand
	// one over takes it longer, and the client waits for two more goroutines.
	hereMax  = 32
	shortMax = 1 << 10
	// ripeMax is how many sealed bytes may wait for a loop to take them before nothing more is sealed for it.
	ripeMax = 4 << 20
)

// sealing is what a lane keeps for its encrypted members.
type sealing struct {
	// Any goroutine; changed by the loop.
	owing   atomic.Int32 // members for whom something waits to be sealed, or to be written then
	changes atomic.Int32 // members that have become encrypted, so that what their connections held was taken back

	// Guarded by Lane.mu.
	ripe  []sealed // is to be written
	bytes int      // of ripe

	// Owned by the loop.
	here    int       // short messages that this turn may still seal by itself
	crop    []sealed  // taken from ripe
	next    int       // crop[next:] is still to be written
	ready   []*outlet // have something to be sealed, as soon as this turn is over
	drained []*outlet // were held, until their connections had taken enough
}

// accept queues a run of messages for an encrypted member, or as many of them as may wait for it.
func (l *Lane) accept(m *Member, p *parcels) {
	if !m.live {
		return // finished
	}
	o, taken := m.outlet.Load(), 0
	if o.Transform == nil {
		taken = o.push(p.all())
	} else {
		for _, b := range p.single(&l.hub.transformers) {
			n := o.push(b)
			if n == 0 {
				break // nothing later may overtake what is dropped
			}
			taken += n
		}
	}
	if taken < len(p.run) {
		l.refuse(m, len(p.run)-taken)
	}
	if taken == 0 || o.busy {
		return
	}
	o.busy = true
	if p.few && o.Transform == nil && p.whole.size <= shortMax && l.sealing.here > 0 && m.link.Buffered() < windowMax {
		l.sealing.here--
		o.work, o.from = o.queue, o.at
		r := o.seal()
		l.handed(&r, r.messages == 0 || m.link.Write(r.frames))
		return
	}
	l.proceed(o)
}

// proceed does what comes next for a busy member: has more sealed, waits for the connection, or ends.
func (l *Lane) proceed(o *outlet) {
	if o.member.link.Closing() {
		o.discard()
	}
	switch {
	case len(o.queue) == 0:
		o.busy = false
		if o.ending {
			o.member.link.CloseAfterFlush(o.last)
		}
	case o.member.link.NotifyBelow(windowMax):
		o.held = true // until Drained
	default:
		o.work, o.from = o.queue, o.at
		if o.Transform != nil {
			l.hub.transformers.begin(o)
		} else {
			l.sealing.ready = append(l.sealing.ready, o)
		}
	}
}

// finish ends a member with its last frame, behind what waits to be sealed.
func (l *Lane) finish(m *Member, frame []byte) {
	m.live = false
	if !m.sealed || !m.outlet.Load().busy {
		m.link.CloseAfterFlush(frame)
		return
	}
	if o := m.outlet.Load(); !o.ending {
		o.ending, o.last = true, frame
		m.owner.Lingers()
	}
}

// bring hands sealed messages to the loop. Any goroutine.
func (l *Lane) bring(results ...sealed) {
	bytes := 0
	for i := range results {
		bytes += len(results[i].frames)
	}
	l.mu.Lock()
	first := len(l.sealing.ripe) == 0
	l.sealing.ripe = append(l.sealing.ripe, results...)
	l.sealing.bytes += bytes
	l.mu.Unlock()
	if first { // whoever came first has woken the loop, and it takes all
		l.wake()
	}
}

// overripe reports whether the loop should first take what has been sealed for it. Any goroutine.
func (l *Lane) overripe() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sealing.bytes >= ripeMax
}

// harvest writes what has been sealed, and has more sealed. It is the last thing in a turn, behind
// what goes out in clear. It reports whether it wrote something, and whether there is more to write.
func (l *Lane) harvest() (worked, more bool) {
	s := &l.sealing
	if s.next == len(s.crop) {
		s.next = 0
		if cap(s.crop) > 4096 {
			s.crop = nil
		}
		l.mu.Lock()
		s.crop, s.ripe, s.bytes = s.ripe, s.crop[:0], 0
		l.mu.Unlock()
	}
	s.here = hereMax
	end := min(len(s.crop), s.next+harvestMax)
	worked = s.next < end
	for ; s.next < end; s.next++ {
		l.hand(&s.crop[s.next])
		s.crop[s.next] = sealed{} // or the lane would keep it until the next harvest
	}
	l.release()
	switch {
	case len(s.ready) > 0:
		l.hub.press.submit(l, s.ready)
		s.ready = make([]*outlet, 0, len(s.ready))
	case worked:
		l.hub.press.resume()
	}
	return worked, s.next < len(s.crop) || l.ripened()
}

// ripened reports whether something has been sealed that no turn has taken. A turn that writes what an earlier one left does
// not take it, and may have been the one that it woke.
func (l *Lane) ripened() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sealing.ripe) > 0
}

// hand writes a member's sealed messages to its connection.
func (l *Lane) hand(r *sealed) {
	link := r.member.link
	written := r.messages == 0 || link.WriteNow(r.frames)
	if written && link.Buffered() == 0 { // the kernel has all of it
		l.hub.press.reuse(r.frames)
	}
	l.handed(r, written)
}

// handed counts messages that the connection has taken or rejected, and goes on with the member.
func (l *Lane) handed(r *sealed, written bool) {
	o := r.outlet
	if written {
		l.hub.delivered.Add(uint64(r.messages))
	} else {
		l.refuse(o.member, r.messages)
	}
	o.advance(r.taken)
	o.count(-r.reserved)
	if r.done {
		l.proceed(o)
	}
}

// Drained lets what is held for m go on: its connection has taken enough, or is closed. By the lane's loop, before Tick.
func (m *Member) Drained() {
	if o := m.outlet.Load(); o != nil && o.held {
		o.held = false
		m.lane.sealing.drained = append(m.lane.sealing.drained, o)
	}
}

// release goes on with members whose connections have taken enough.
func (l *Lane) release() {
	s := &l.sealing
	for i, o := range s.drained {
		s.drained[i] = nil
		l.proceed(o)
	}
	s.drained = s.drained[:0]
}
