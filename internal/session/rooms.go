package session

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/protocol"
)

// join handles a join of the client: it joins the requested rooms that the validator allows.
// There is no reply.
func (w worker) join(data, id json.RawMessage) {
	requested := protocol.ParseRooms(data)
	if len(requested) == 0 {
		return
	}
	rejected := &w.env.Stats.RoomsRejected
	if w.env.Calls.ValidateRooms == nil {
		rejected.Add(uint64(len(requested)))
		w.Debug("join rejected because there is no room validator", "rooms", len(requested))
		return
	}
	var allowed []string
	ok := callback.Run(func() (err error) {
		// The validator gets a copy, because it may change its list.
		allowed, err = w.env.Calls.ValidateRooms(sessionContext(w), w.Session, slices.Clone(requested), id)
		return err
	}, func(err error) { w.callbackFailed(&w.env.Stats.CallbackErrors, "validate rooms", err) })
	if !ok {
		return
	}
	allowed = checkAllowed(&w.member, requested, allowed)
	rejected.Add(uint64(max(0, len(requested)-len(allowed))))
	if err := w.Join(sessionContext(w), allowed...); err != nil {
		missing := slices.DeleteFunc(allowed, w.In)
		rejected.Add(uint64(len(missing)))
		w.env.Log.Warn("client did not join all rooms", "client", w.ID(), "error", err, "missing", len(missing))
	}
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
	if len(rooms) == 0 {
		return nil
	}
	s.env.hold(ctx, s.env.roomChannels(&s.member, rooms...))
	for i, room := range rooms {
		s.mu.Lock()
		joined, err := s.env.Hub.Join(&s.member, room)
		if joined {
			s.changedLocked(room, true)
		}
		s.mu.Unlock()
		if err != nil {
			s.env.release(s.env.roomChannels(&s.member, rooms[i:]...))
			return err
		}
		if !joined { // it was a member already
			s.env.release(s.env.roomChannels(&s.member, room))
		}
	}
	return nil
}

// Leave ends the client's membership in those of the rooms that it is in. It never blocks.
func (s *Session) Leave(rooms ...string) {
	for _, room := range rooms {
		s.mu.Lock()
		left := s.env.Hub.Leave(&s.member, room)
		if left {
			s.changedLocked(room, false)
		}
		s.mu.Unlock()
		if left {
			s.env.release(s.env.roomChannels(&s.member, room))
		}
	}
}
