package session

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/hearthws/hearth/internal/history"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// History has the rooms with history, and recovers what clients have missed. history.Rooms
// implements it.
type History interface {
	// Has reports whether the room has history.
	Has(room string) bool
	// Join reads what a client wants of rooms, and calls join with the results at a moment when no
	// message of these rooms is being sent.
	Join(ctx context.Context, limits history.Limits, requests []history.Request, join func([]history.Result))
}

// Interrupt takes a client out of a room because messages of the room are missing, and tells it. It
// returns false if the client is not in the room. The caller releases the channel of the room.
// Interrupt never blocks.
func Interrupt(m *hub.Member, room string) bool {
	s := Of(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.env.Hub.Leave(&s.member, room) {
		return false
	}
	s.changedLocked(room, false)
	s.member.Notice(ws.NewMessage(protocol.AppendInterrupted(nil, []string{room}, protocol.InterruptedGap)))
	return true
}

// recoveryLimits bounds what one join recovers. All of it must fit into the connection, or the
// client would be closed as too slow, and would ask for the same again.
func (e *Env) recoveryLimits() history.Limits {
	return history.Limits{Messages: e.Limits.BackpressureLimit / 512, Bytes: e.Limits.BackpressureLimit / 2}
}

// A recoverer is a Session on the goroutine of its worker, for a client that joins rooms from
// positions.
type recoverer struct {
	*Session
	request protocol.JoinRequest
	id      json.RawMessage // of the join, or nil
}

// join asks the validator, joins the rooms that it allows, and sends the reply and the messages
// that the client has missed.
func (r recoverer) join() {
	outcome := joinOutcome{code: protocol.RejectInternal}
	validated := false
	defer func() {
		if !validated && !r.ended() { // the validator has ended the goroutine
			r.reply(outcome, nil, nil, nil)
		}
	}()
	allowed, outcome := worker{r.Session}.validate(r.request.Rooms, r.id)
	validated = true
	if !outcome.answered && !r.ended() {
		r.joinRooms(allowed, outcome)
	}
}

// joinRooms joins rooms that are allowed.
func (r recoverer) joinRooms(allowed []string, outcome joinOutcome) {
	channels := r.env.roomChannels(&r.member, allowed...)
	r.env.hold(sessionContext{r.Session}, channels)
	requests := r.requests(allowed)
	var unused []string
	join := func(results []history.Result) {
		n, already, err := membership{r.Session}.joinHeld(allowed)
		unused = append(already, allowed[n:]...)
		worker{r.Session}.settle(&outcome, allowed, n, err)
		if !r.ended() {
			r.reply(outcome, already, requests, results)
		}
	}
	if len(requests) > 0 {
		r.env.History.Join(sessionContext{r.Session}, r.env.recoveryLimits(), requests, join)
	} else {
		join(nil)
	}
	r.env.release(r.env.roomChannels(&r.member, unused...))
}

// requests returns what the client wants of the rooms with history.
func (r recoverer) requests(rooms []string) (requests []history.Request) {
	for _, room := range rooms {
		if isOwnRoom(&r.member, room) || !r.env.History.Has(room) {
			continue
		}
		request := history.Request{Room: room}
		if !r.In(room) {
			after, from := r.request.Positions[room]
			if request.After = after; !from {
				request.Last = r.request.Last[room]
			}
		}
		requests = append(requests, request)
	}
	return requests
}

// reply sends the reply to a join, and after it the recovered messages.
func (r recoverer) reply(outcome joinOutcome, already []string, requests []history.Request, results []history.Result) {
	joined, rejected, recovered := r.collect(outcome, already, requests, results)
	payload := func() []byte { return protocol.AppendJoin(nil, joined, rejected, r.request.Ignored, r.id) }
	if len(recovered) > 0 {
		// Compressing takes time, and no message of a room with history is sent meanwhile.
		err := r.env.Hub.SendTo(&r.member, recoveredSeries(payload(), recovered).Uncompressed())
		if !errors.Is(err, hub.ErrQueueFull) {
			return // or the client has disconnected
		}
		notRecovered(joined)
	}
	r.member.Notice(ws.NewMessage(payload()))
}

// collect returns the lists of the reply, and the messages to send after it.
func (r recoverer) collect(outcome joinOutcome, already []string, requests []history.Request, results []history.Result) (
	joined []protocol.Joined, rejected []protocol.Rejected, recovered []protocol.Message,
) {
	byRoom := make(map[string]history.Result, len(results))
	for i := range results {
		byRoom[requests[i].Room] = results[i]
	}
	wasIn := make(map[string]bool, len(already)) // a search in the list for each room would take long
	for _, room := range already {
		wasIn[room] = true
	}
	id := r.ID()
	joined, rejected = outcome.reply(r.request)
	for i := range joined {
		j := &joined[i]
		result, has := byRoom[j.Room]
		j.Position = result.Position
		after, from := r.request.Positions[j.Room]
		switch {
		case wasIn[j.Room] || !from && r.request.Last[j.Room] == 0:
			continue
		case !has:
			j.Unrecovered = protocol.UnrecoveredNoHistory
		case from && after == protocol.Position{}:
			j.Unrecovered = protocol.UnrecoveredInvalid
		default:
			j.Unrecovered = result.Unrecovered
		}
		for _, m := range result.Messages {
			if slices.Contains(m.Exclude, id) {
				continue
			}
			recovered = append(recovered, m)
			j.Recovered++
		}
	}
	return joined, rejected, recovered
}

// notRecovered changes the list of a reply whose recovered messages do not fit into the send queue.
func notRecovered(joined []protocol.Joined) {
	for i := range joined {
		if joined[i].Recovered > 0 {
			joined[i].Recovered, joined[i].Unrecovered = 0, protocol.UnrecoveredUnavailable
		}
	}
}

// recoveredSeries returns the series of the recovered messages, after first if that is not nil.
func recoveredSeries(first []byte, recovered []protocol.Message) *ws.Message {
	skip, size := 0, len(first)
	if first != nil {
		skip = 1
	}
	for _, m := range recovered {
		size += history.Size(m)
	}
	return ws.BuildSeries(skip+len(recovered), size, func(dst []byte, i int) []byte {
		if i < skip {
			return append(dst, first...)
		}
		m := recovered[i-skip]
		return protocol.AppendPosition(protocol.AppendEvent(dst, m.Event, m.Data), m.Target, m.Position)
	})
}
