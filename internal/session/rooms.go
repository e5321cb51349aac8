package session

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/protocol"
)

// join asks the validator which of the wished rooms the client may join, and joins those. There is no reply.
func (s *Session) join(data, id json.RawMessage) {
	requested := protocol.ParseRooms(data)
	if len(requested) == 0 {
		return
	}
	if s.env.Calls.ValidateRooms == nil {
		s.env.Stats.RoomsRejected.Add(uint64(len(requested)))
		s.Debug("join refused: there is no room validator", "rooms", len(requested))
		return
	}
	var allowed []string
	ok := callback.Run(func() (err error) {
		// A copy: the validator may change its list, which must not change what was asked for.
		allowed, err = s.env.Calls.ValidateRooms((*sessionContext)(s), s, slices.Clone(requested), id)
		return err
	}, func(err error) { s.callbackFailed("validate rooms", err) })
	if !ok {
		return
	}
	allowed = s.recheck(requested, allowed)
	s.env.Stats.RoomsRejected.Add(uint64(max(0, len(requested)-len(allowed))))
	if err := s.Join((*sessionContext)(s), allowed...); err != nil {
		missing := slices.DeleteFunc(allowed, s.In)
		s.env.Stats.RoomsRejected.Add(uint64(len(missing)))
		s.env.Log.Warn("client did not join all rooms", "client", s.ID(), "error", err, "missing", len(missing))
	}
}

// recheck drops from what a validator returned the names that were not asked for, those that break the rules, and the
// ids of other clients: a member of the room that is named by the id of another client would read messages for that client.
func (s *Session) recheck(requested, allowed []string) []string {
	asked := make(map[string]bool, len(requested))
	for _, name := range requested {
		asked[name] = true
	}
	kept := allowed[:0:0]
	for _, name := range allowed {
		if !asked[name] || protocol.CheckRoom(name) != nil || s.isOtherClient(name) {
			continue
		}
		kept = append(kept, name)
		delete(asked, name) // each once
	}
	return kept
}

// isOtherClient reports whether the name is the id of another client, on whichever node, connected or not. The name alone tells: no
// other node is asked, so none has to answer.
func (s *Session) isOtherClient(name string) bool { return protocol.IsClientID(name) && name != s.ID() }

// leave takes the client out of those of the rooms that it is in. There is no reply.
func (s *Session) leave(data json.RawMessage) {
	s.Leave(protocol.ParseRooms(data)...)
}

// Join makes the client a member of the rooms, without asking the validator: everything that is sent to them once it
// has returned reaches it. It stops at the first that is not possible: an invalid name, one too many, a client that has gone.
// It may wait for the broker, until ctx is done. Any goroutine.
func (s *Session) Join(ctx context.Context, rooms ...string) error {
	for _, name := range rooms {
		if err := protocol.CheckRoom(name); err != nil {
			return err
		}
	}
	if len(rooms) == 0 {
		return nil
	}
	s.hold(ctx, s.roomChannels(rooms...))
	for i, name := range rooms {
		joined, err := s.joinHub(name)
		if err != nil {
			s.release(s.roomChannels(rooms[i:]...))
			return err
		}
		if !joined {
			s.release(s.roomChannels(name))
		}
	}
	return nil
}

// Leave takes the client out of those of the rooms that it is in. Any goroutine; never blocks.
func (s *Session) Leave(rooms ...string) {
	for _, name := range rooms {
		if s.leaveHub(name) {
			s.release(s.roomChannels(name))
		}
	}
}

func (s *Session) joinHub(room string) (joined bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if joined, err = s.env.Hub.Join(&s.member, room); joined {
		s.changedLocked(room, true)
	}
	return joined, err
}

func (s *Session) leaveHub(room string) (left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if left = s.env.Hub.Leave(&s.member, room); left {
		s.changedLocked(room, false)
	}
	return left
}

// hold makes sure that what other nodes send on the channels arrives here. A broker that can't say so yet does not keep
// clients out: they still have this node, and the broker tells what they miss. release undoes it either way.
func (s *Session) hold(ctx context.Context, channels []string) {
	if len(channels) == 0 {
		return
	}
	_ = s.env.Interest.Hold(ctx, channels...) // which logs errors, a line for many
}

// release undoes hold.
func (s *Session) release(channels []string) {
	if len(channels) > 0 {
		s.env.Interest.Release(channels...)
	}
}

// channels are those of the client itself, its user if any, and the rooms; that of its own room is among them for as
// long as it lives, whether it is in it or not. None, when nobody wants to know.
func (s *Session) channels(user string, rooms []string) []string {
	if s.env.Interest == nil {
		return nil
	}
	id := s.ID()
	channels := []string{protocol.ClientChannel(id), protocol.RoomChannel(id)}
	if user != "" {
		channels = append(channels, protocol.UserChannel(user))
	}
	return append(channels, s.roomChannels(rooms...)...)
}

// roomChannels are those of the rooms, but for the client's own, which goes with the client.
func (s *Session) roomChannels(rooms ...string) (channels []string) {
	if s.env.Interest == nil {
		return nil
	}
	id := s.ID()
	for _, name := range rooms {
		if name != id {
			channels = append(channels, protocol.RoomChannel(name))
		}
	}
	return channels
}
