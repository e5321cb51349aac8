package history

import (
	"context"
	"slices"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/protocol"
)

const (
	// maxReads is how many joins read from the history at a time. It bounds the memory for what
	// they have read.
	maxReads = 32

	// joinRooms is how many rooms one read of a join asks for.
	joinRooms = 16

	// maxRetries is how often a join reads a room again, because too many messages were sent during
	// the read before.
	maxRetries = 3
)

// A Request is the wish of a client that joins a room with history.
type Request struct {
	Room string

	// After is the client's position. The zero Position: the client has none.
	After protocol.Position

	// Last is how many of the newest messages a client without a position wants at most.
	Last int
}

// wants reports whether the client wants messages.
func (q Request) wants() bool { return q.After != protocol.Position{} || q.Last > 0 }

// A Result is what a client gets when it joins a room.
type Result struct {
	// Position is the position after which the live messages follow. Zero if it is not known.
	Position protocol.Position

	// Messages are those that the client wanted, in order, up to Position.
	Messages []protocol.Message

	// Unrecovered says why they are not there, as in protocol.Joined; empty if they are.
	Unrecovered string
}

// Limits bound what one join recovers in all its rooms. Both are positive.
type Limits struct {
	Messages int
	Bytes    int // of the messages, with their names
}

// less returns what is left of the limits after messages; a negative limit is exceeded.
func (l Limits) less(ms []protocol.Message) Limits {
	l.Messages -= len(ms)
	for _, m := range ms {
		l.Bytes -= Size(m)
	}
	return l
}

// A joining is one room of a join in progress.
type joining struct {
	Request
	room   *room
	part   broker.HistoryPart
	failed string // Result.Unrecovered
	ahead  bool   // After is a position that this node has not reached
}

// Join reads what a client wants of the rooms, and calls join with a result for each request. While
// join runs, no message of a room with history is passed to the hub: join makes the client a member
// and sends it the results, and must not block nor call methods of Rooms. So nothing is missing
// between the results and the messages that the client gets as a member, and nothing comes twice.
//
// The caller must hold all the rooms. Join waits for the history until ctx is done. If it cannot be
// read, the results say so, and join is called nevertheless.
func (r *Rooms) Join(ctx context.Context, limits Limits, requests []Request, join func([]Result)) {
	all := r.begin(requests)
	for range maxRetries {
		r.readFor(ctx, limits, all)
		if r.finish(all, join, false) {
			return
		}
		for _, j := range all {
			if j.ahead {
				r.catchUp(ctx, j.room)
			}
		}
	}
	r.finish(all, join, true)
}

// begin makes the rooms keep the messages that are sent from now on.
func (r *Rooms) begin(requests []Request) []*joining {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*joining, len(requests))
	for i, q := range requests {
		j := &joining{Request: q, room: r.rooms[q.Room]}
		all[i] = j
		if j.room == nil { // the caller does not hold it
			j.failed = protocol.UnrecoveredUnavailable
			continue
		}
		j.room.joins++
	}
	return all
}

// readFor reads what the joins want, until the limit of bytes is used up.
func (r *Rooms) readFor(ctx context.Context, limits Limits, all []*joining) {
	var missing []*joining
	for _, j := range all {
		if j.wants() && j.failed == "" && j.part.Position == (protocol.Position{}) {
			missing = append(missing, j)
		}
	}
	if len(missing) == 0 {
		return
	}
	select {
	case r.reads <- struct{}{}:
		defer func() { <-r.reads }()
	case <-ctx.Done():
	}
	for batch := range slices.Chunk(missing, joinRooms) {
		requests := make([]broker.HistoryRequest, len(batch))
		for i, j := range batch { // each may use all that is left
			requests[i] = broker.HistoryRequest{Room: j.Room, After: j.After, Limit: limits.Messages, Bytes: max(1, limits.Bytes)}
			if j.After == (protocol.Position{}) {
				requests[i].Limit = min(j.Last, limits.Messages)
			}
		}
		parts, err := r.read(ctx, requests)
		if err != nil { // no other read is tried: each might wait for its timeout
			r.cfg.Log.Warn("history not read for a client", "rooms", len(missing), "error", err)
			for _, j := range missing {
				if j.part.Position == (protocol.Position{}) {
					j.failed = protocol.UnrecoveredUnavailable
				}
			}
			return
		}
		for i, j := range batch {
			j.part = parts[i]
			if used := limits.less(j.part.Messages); used.Messages < 0 || used.Bytes < 0 {
				j.part.Messages, j.part.Unrecovered = nil, protocol.UnrecoveredLimit
			} else {
				limits = used
			}
		}
	}
}

// finish calls join with the results. If messages are missing in one of them, it does nothing and
// returns false, so that they can be read; with anyway it says so in the result.
func (r *Rooms) finish(all []*joining, join func([]Result), anyway bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	results := make([]Result, len(all))
	complete := true
	for i, j := range all {
		var ok bool
		if results[i], ok = r.resultLocked(j); !ok {
			complete = false
			results[i].Messages, results[i].Unrecovered = nil, protocol.UnrecoveredUnavailable
			j.part = broker.HistoryPart{} // read again
		}
	}
	if !complete && !anyway {
		return false
	}
	for _, j := range all {
		if j.room == nil {
			continue
		}
		if j.room.joins--; j.room.joins == 0 {
			j.room.recent.takeAll()
		}
	}
	for _, result := range results {
		r.stats.Recovered.Add(uint64(len(result.Messages)))
		if result.Unrecovered != "" {
			r.stats.Unrecovered.Add(1)
		}
	}
	join(results)
	return true
}

// resultLocked returns the result of one room. ok is false if messages are missing in it that were
// sent during the read.
func (r *Rooms) resultLocked(j *joining) (result Result, ok bool) {
	if j.room == nil {
		return Result{Unrecovered: j.failed}, true
	}
	at := j.room.at
	result.Position = at
	switch {
	case !j.wants():
		return result, true
	case j.failed != "":
		result.Unrecovered = j.failed
		return result, true
	case j.part.Unrecovered != "":
		result.Unrecovered = j.part.Unrecovered
		return result, true
	case at == protocol.Position{}:
		result.Unrecovered = protocol.UnrecoveredUnavailable
		return result, true
	case at.Epoch != j.part.Position.Epoch:
		// The node has not noticed yet that there is a new log, or the log is new since the read.
		result.Unrecovered = protocol.UnrecoveredReset
		r.fetchLocked(j.room)
		return result, true
	case j.After.Offset > at.Offset:
		// The client has got messages on another node that have not arrived here. They would come
		// twice.
		j.ahead = true
		return result, false
	}
	for _, m := range j.part.Messages {
		if m.Position.Offset <= at.Offset {
			result.Messages = append(result.Messages, m)
		}
	}
	// The messages that were sent since the read.
	last := min(j.part.Position.Offset, at.Offset)
	for _, m := range j.room.recent.ms {
		if m.Position.Offset > last && m.Position.Epoch == at.Epoch {
			if m.Position.Offset != last+1 {
				return result, false
			}
			result.Messages = append(result.Messages, m)
			last++
		}
	}
	if last != at.Offset {
		return result, false
	}
	if j.After == (protocol.Position{}) && len(result.Messages) > j.Last {
		result.Messages = result.Messages[len(result.Messages)-j.Last:]
	}
	return result, true
}
