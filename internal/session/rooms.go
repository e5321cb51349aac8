package session

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// join handles a join of the client: it joins the requested rooms that the validator allows.
// Clients with the extension get a reply.
func (w worker) join(e protocol.Envelope, g grants) {
	if !g.has(extension) {
		w.joinRequested(protocol.ParseRooms(e.Data), e.ID)
		return
	}
	r := protocol.ParseJoin(e.Data)
	if g.has(recovery) {
		recoverer{w.Session, r, e.ID}.join()
		return
	}
	outcome := joinOutcome{code: protocol.RejectInternal}
	defer func() { // even if the validator ends the goroutine
		if !outcome.answered && !w.ended() {
			joined, rejected := outcome.reply(r)
			w.member.Notice(ws.NewMessage(protocol.AppendJoin(nil, joined, rejected, r.Ignored, e.ID)))
		}
	}()
	outcome = w.joinRequested(r.Rooms, e.ID)
}

// A joinOutcome says what has become of the requested rooms.
type joinOutcome struct {
	joined   []string // the client is in these
	limited  []string // allowed, but the client is in too many rooms
	code     string   // why all others were rejected
	answered bool     // the application has answered the join itself
}

// reply returns the lists of the reply to a join. Each has the order of the request, and a room
// that was requested twice once.
func (o joinOutcome) reply(r protocol.JoinRequest) (joined []protocol.Joined, rejected []protocol.Rejected) {
	codes := make(map[string]string, len(r.Rooms)) // empty if the room was joined
	for _, room := range r.Rooms {
		codes[room] = o.code
	}
	for _, room := range o.limited {
		codes[room] = protocol.RejectLimit
	}
	for _, room := range o.joined {
		codes[room] = ""
	}
	rejected = eachRoom(r, func(room string) (code string) {
		if code = codes[room]; code == "" {
			joined = append(joined, protocol.Joined{Room: room})
		}
		return code
	})
	return joined, rejected
}

// eachRoom calls do once for each room of a join or leave, in order. do returns why the room was
// rejected, or nothing. eachRoom returns the rooms that were rejected and the names that are not
// valid.
func eachRoom(r protocol.JoinRequest, do func(room string) (code string)) (rejected []protocol.Rejected) {
	done := make(map[string]bool, len(r.Rooms))
	invalid := r.Invalid
	for i := 0; i <= len(r.Rooms); i++ {
		for len(invalid) > 0 && invalid[0].After == i {
			rejected = append(rejected, protocol.Rejected{Room: invalid[0].Name, Code: protocol.RejectInvalid})
			invalid = invalid[1:]
		}
		if i == len(r.Rooms) || done[r.Rooms[i]] {
			continue
		}
		room := r.Rooms[i]
		done[room] = true
		if code := do(room); code != "" {
			rejected = append(rejected, protocol.Rejected{Room: room, Code: code})
		}
	}
	return rejected
}

// joinRequested asks the validator, and joins the rooms that it allows.
func (w worker) joinRequested(requested []string, id json.RawMessage) joinOutcome {
	allowed, outcome := w.validate(requested, id)
	if len(allowed) > 0 {
		n, err := membership(w).joinAll(sessionContext(w), allowed)
		w.settle(&outcome, allowed, n, err)
	}
	return outcome
}

// validate returns those of the requested rooms that the validator allows, and what is known about
// the others.
func (w worker) validate(requested []string, id json.RawMessage) (allowed []string, outcome joinOutcome) {
	outcome.code = protocol.RejectForbidden
	if len(requested) == 0 {
		return nil, outcome
	}
	rejected := &w.env.Stats.RoomsRejected
	if w.env.Calls.ValidateRooms == nil {
		rejected.Add(uint64(len(requested)))
		w.Debug("join rejected because there is no room validator", "rooms", len(requested))
		return nil, outcome
	}
	ok := callback.Run(func() (err error) {
		// The validator gets a copy, because it may change its list.
		allowed, err = w.env.Calls.ValidateRooms(sessionContext(w), w.Session, slices.Clone(requested), id)
		if errors.Is(err, ErrAnswered) {
			allowed, err, outcome.answered = nil, nil, true
		}
		return err
	}, func(err error) { w.callbackFailed(&w.env.Stats.CallbackErrors, "validate rooms", err) })
	if !ok {
		outcome.code = protocol.RejectInternal
		return nil, outcome
	}
	allowed = checkAllowed(&w.member, requested, allowed)
	rejected.Add(uint64(max(0, len(requested)-len(allowed))))
	return allowed, outcome
}

// settle records that the client is in the first n of the allowed rooms, and that err has prevented
// the others, unless it is in them already.
func (w worker) settle(outcome *joinOutcome, allowed []string, n int, err error) {
	outcome.joined = allowed[:n]
	if err == nil {
		return
	}
	for _, room := range allowed[n:] {
		if w.In(room) {
			outcome.joined = append(outcome.joined[:len(outcome.joined):len(outcome.joined)], room)
		} else {
			outcome.limited = append(outcome.limited, room)
		}
	}
	w.env.Stats.RoomsRejected.Add(uint64(len(outcome.limited)))
	w.env.Log.Warn("client did not join all rooms", "client", w.ID(), "error", err, "missing", len(outcome.limited))
}

// checkAllowed returns the rooms that a validator allowed, each once, without names that were not
// requested or are invalid, and without the ids of other clients: a member of the room with another
// client's id would receive the messages for that client.
func checkAllowed(m *hub.Member, requested, allowed []string) []string {
	left := make(map[string]bool, len(requested))
	for _, room := range requested {
		left[room] = true
	}
	kept := allowed[:0:0]
	for _, room := range allowed {
		otherClient := protocol.IsClientID(room) && !isOwnRoom(m, room)
		if left[room] && protocol.CheckRoom(room) == nil && !otherClient {
			kept = append(kept, room)
			delete(left, room)
		}
	}
	return kept
}

// isOwnRoom reports whether the room has the client's id as its name. The name shows whether it
// is an id of a client on any node, so no other node has to be asked.
func isOwnRoom(m *hub.Member, room string) bool { return protocol.IsClientID(room) && room == m.ID() }

// Join makes the client a member of the rooms, without the validator. It receives all messages
// that are sent to the rooms after Join has returned. Join stops with an error at the first room
// that is not possible: the name is invalid, the client is in too many rooms, or it has
// disconnected. It may wait for the broker until ctx is done.
func (s *Session) Join(ctx context.Context, rooms ...string) error {
	for _, room := range rooms {
		if err := protocol.CheckRoom(room); err != nil {
			return err
		}
	}
	_, err := membership{s}.joinAll(ctx, rooms)
	return err
}

// A membership is a Session as a member of rooms.
type membership struct{ *Session }

// joinAll is Join for valid names. It also returns in how many of the rooms, from the first on, the
// client is.
func (s membership) joinAll(ctx context.Context, rooms []string) (n int, err error) {
	if len(rooms) == 0 {
		return 0, nil
	}
	s.env.hold(ctx, s.env.roomChannels(&s.member, rooms...))
	n, already, err := s.joinHeld(rooms)
	s.env.release(s.env.roomChannels(&s.member, append(already, rooms[n:]...)...))
	return n, err
}

// joinHeld is joinAll for rooms whose channels are held. already are those of the first n rooms
// that the client was in before. It never blocks.
func (s membership) joinHeld(rooms []string) (n int, already []string, err error) {
	for i, room := range rooms {
		s.mu.Lock()
		joined, err := s.env.Hub.Join(&s.member, room)
		if joined {
			s.changedLocked(room, true)
		}
		s.mu.Unlock()
		if err != nil {
			return i, already, err
		}
		if !joined {
			already = append(already, room)
		}
	}
	return len(rooms), already, nil
}

// leave handles a leave of the client. Clients with the extension get a reply.
func (w worker) leave(e protocol.Envelope, g grants) {
	if !g.has(extension) {
		w.Leave(protocol.ParseRooms(e.Data)...)
		return
	}
	r := protocol.ParseJoin(e.Data)
	var left []string
	rejected := eachRoom(r, func(room string) (code string) {
		if !membership(w).leave(room) {
			return protocol.RejectNotMember
		}
		left = append(left, room)
		return ""
	})
	w.member.Notice(ws.NewMessage(protocol.AppendLeave(nil, left, rejected, r.Ignored, e.ID)))
}

// Leave ends the client's membership in those of the rooms that it is in. It never blocks.
func (s *Session) Leave(rooms ...string) {
	for _, room := range rooms {
		membership{s}.leave(room)
	}
}

// leave ends the client's membership in the room, and reports whether the client was a member.
func (s membership) leave(room string) bool {
	s.mu.Lock()
	left := s.env.Hub.Leave(&s.member, room)
	if left {
		s.changedLocked(room, false)
	}
	s.mu.Unlock()
	if left {
		s.env.release(s.env.roomChannels(&s.member, room))
	}
	return left
}
