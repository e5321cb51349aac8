package history

import (
	"context"
	"fmt"
	"time"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

// read reads from the history, with a deadline. It returns a part for each request, or an error.
func (r *Rooms) read(ctx context.Context, requests []broker.HistoryRequest) ([]broker.HistoryPart, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	parts, err := r.cfg.History.ReadHistory(ctx, requests...)
	if err == nil && len(parts) != len(requests) {
		err = fmt.Errorf("read history: %d parts for %d rooms", len(parts), len(requests))
	}
	return parts, err
}

// fetchLocked makes the fetcher read the messages after rm.at. There must be no gap that it could
// not see, so it does nothing before the first message of a room whose position is not known.
func (r *Rooms) fetchLocked(rm *room) {
	switch {
	case rm.at == protocol.Position{} || r.closed:
		return
	case rm.behind:
		rm.again = true
		return
	}
	rm.behind = true
	r.late = append(r.late, rm)
	if !r.fetching {
		r.fetching = true
		r.goroutines.Go(r.fetch) // ends when no room is behind, or with Close, which waits for it
	}
}

// A fetch is one read of the fetcher.
type fetch struct {
	rooms    []*room
	requests []broker.HistoryRequest
	arrived  []uint64 // what was pushed to room.waiting before the read
}

// fetch reads missing messages until no room is behind.
func (r *Rooms) fetch() {
	for {
		f, ok := r.nextFetch()
		if !ok {
			return
		}
		parts, err := r.read(r.ctx, f.requests)
		failed := err != nil
		r.mu.Lock()
		for i, rm := range f.rooms {
			switch {
			case r.rooms[rm.name] != rm: // it lost its members meanwhile, and may have new ones
				continue
			case err != nil:
				r.failedLocked(rm, err)
			case isUnavailable(parts[i]):
				failed = true
				r.failedLocked(rm, parts[i].Err())
			default:
				r.applyLocked(rm, f.requests[i].After, parts[i], f.arrived[i])
			}
		}
		r.mu.Unlock()
		if err != nil {
			r.cfg.Log.Warn("missed messages of rooms not read from the history: retrying", "rooms", len(f.rooms), "error", err)
		}
		if failed {
			r.pause(readPause)
		}
	}
}

// isUnavailable reports whether the history of one room could not be read, while that of others
// could.
func isUnavailable(part broker.HistoryPart) bool {
	return part.Unrecovered == protocol.UnrecoveredUnavailable
}

// pause waits before the next read.
func (r *Rooms) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.ctx.Done():
	}
}

// nextFetch takes rooms that are behind. ok is false, and the fetcher counts as ended, if there is
// none.
func (r *Rooms) nextFetch() (f fetch, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.late) > 0 && len(f.rooms) < fetchRooms && !r.closed {
		rm := r.late[0]
		r.late = r.late[1:]
		if r.rooms[rm.name] != rm {
			continue // it has no members any more
		}
		rm.again = false
		f.rooms = append(f.rooms, rm)
		f.requests = append(f.requests, broker.HistoryRequest{Room: rm.name, After: rm.at, Limit: fetchMessages, Bytes: fetchBytes})
		f.arrived = append(f.arrived, rm.waiting.pushed)
	}
	if len(f.rooms) == 0 {
		r.late, r.fetching = nil, false
	}
	return f, len(f.rooms) > 0
}

// failedLocked handles that the messages after rm.at could not be read. The fetcher tries again,
// unless newer messages have waited for too long: then it delivers them and reports the gap.
func (r *Rooms) failedLocked(rm *room, cause error) {
	now := time.Now()
	if rm.failing.IsZero() {
		rm.failing = now
	}
	if now.Sub(rm.failing) < giveUpAfter || len(rm.waiting.ms) == 0 {
		r.late = append(r.late, rm)
		return
	}
	r.interruptLocked(rm, 0, cause)
	rm.behind, rm.failing = false, time.Time{}
	for rest := rm.waiting.takeAll(); len(rest) > 0; {
		rm.at = protocol.Position{}
		rest = r.sendLocked(rm, rest)
	}
}

// applyLocked delivers the messages that a read after a position has found, and then those that
// wait, of which as many as arrived had arrived before the read.
func (r *Rooms) applyLocked(rm *room, after protocol.Position, part broker.HistoryPart, arrived uint64) {
	again := rm.again || rm.at != after // another read has moved it meanwhile
	rm.behind, rm.again, rm.failing = false, false, time.Time{}
	switch {
	case rm.at != after:
	case part.Unrecovered == "":
		r.stats.Fetched.Add(uint64(len(part.Messages)))
		r.sendLocked(rm, part.Messages)
		r.sendWaitingLocked(rm, arrived)
	default:
		r.interruptLocked(rm, 0, unrecoveredError{part.Unrecovered})
		rm.at = part.Position
		r.sendWaitingLocked(rm, arrived)
	}
	if again {
		r.fetchLocked(rm)
	}
}

// catchUp reads the missing messages of one room, for a join that waits for them.
func (r *Rooms) catchUp(ctx context.Context, rm *room) {
	r.mu.Lock()
	request := broker.HistoryRequest{Room: rm.name, After: rm.at, Limit: fetchMessages, Bytes: fetchBytes}
	arrived, wasBehind := rm.waiting.pushed, rm.behind
	rm.behind = true // what arrives meanwhile waits
	r.mu.Unlock()
	parts, err := r.read(ctx, []broker.HistoryRequest{request})
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil && !isUnavailable(parts[0]):
		r.applyLocked(rm, request.After, parts[0], arrived)
	case !wasBehind:
		rm.behind = false
		r.fetchLocked(rm)
	}
}

// sendWaitingLocked delivers the messages that wait. arrived is how many were added to them before
// the room's position was read.
func (r *Rooms) sendWaitingLocked(rm *room, arrived uint64) {
	pushed := rm.waiting.pushed
	ms := rm.waiting.takeAll()
	for rest := r.sendLocked(rm, ms); len(rest) > 0; rest = r.sendLocked(rm, rest) {
		switch before := pushed-uint64(len(rest)) < arrived; {
		case !before:
			rm.waiting.push(rest)
			r.fetchLocked(rm)
			return
		case rest[0].Position.Epoch != rm.at.Epoch:
			rest = rest[1:] // it is older than the read: its log was removed
		default:
			// The log lacks messages that were published.
			r.interruptLocked(rm, 0, unrecoveredError{protocol.UnrecoveredReset})
			rm.at = protocol.Position{}
		}
	}
}

// checkLoop looks for messages that were lost without a trace.
func (r *Rooms) checkLoop() {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.check()
		case <-r.ctx.Done():
			return
		}
	}
}

// check compares the positions of all rooms with those of the history.
func (r *Rooms) check() {
	var all []broker.HistoryRequest
	r.mu.Lock()
	for name, rm := range r.rooms {
		if !rm.behind && rm.at != (protocol.Position{}) {
			all = append(all, broker.HistoryRequest{Room: name, After: rm.at})
		}
	}
	r.mu.Unlock()
	pause := min(readPause, checkTime/time.Duration(1+len(all)/fetchRooms))
	for len(all) > 0 {
		n := min(len(all), fetchRooms)
		parts, err := r.read(r.ctx, all[:n])
		if err != nil {
			r.cfg.Log.Warn("positions of rooms not checked", "rooms", len(all), "error", err)
			return
		}
		r.mu.Lock()
		for i, part := range parts {
			rm := r.rooms[all[i].Room]
			if rm != nil && !isUnavailable(part) && (rm.at.Epoch != part.Position.Epoch || rm.at.Offset < part.Position.Offset) {
				r.fetchLocked(rm) // or the messages are about to arrive; then they arrive twice
			}
		}
		r.mu.Unlock()
		if all = all[n:]; len(all) > 0 {
			r.pause(pause) // the checks of many rooms must not keep Redis busy
		}
	}
}
