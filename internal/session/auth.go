package session

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

var noData = []byte("{}")

// startAuthentication lets the callback decide, beside the messages that keep coming.
func (s *Session) startAuthentication(data []byte) {
	if len(data) == 0 || bytes.Equal(data, []byte("null")) {
		data = noData
	}
	s.mu.Lock()
	guest := s.guest
	if guest == nil { // ended meanwhile
		s.mu.Unlock()
		return
	}
	s.state.Store(uint32(protocol.StateAuthenticating))
	s.env.Running.Add(1)
	s.mu.Unlock()
	s.env.Lobby.decide(guest)
	go s.authenticate(data) // ends with the callback, whose context ends with the session; Env.Running waits for it
}

func (s *Session) authenticate(data []byte) {
	defer s.env.Running.Done()
	var id Identity
	err := safely(func() (err error) {
		id, err = s.env.Calls.Authenticate((*lifetime)(s), s, data)
		return err
	})
	if s.State() == protocol.StateDisconnected {
		return
	}
	switch {
	case errors.Is(err, ErrRejected):
		s.env.Stats.AuthRejected.Add(1)
		s.debug("authentication rejected", "cause", err)
		s.refuse(protocol.ErrAuthFailed)
		return
	case err != nil:
		s.env.Stats.AuthFailed.Add(1)
		s.failed("authenticate", err)
		s.refuse(protocol.ErrAuthError)
		return
	}
	s.hold(id.User, s.env.DefaultRooms)
	if !s.admit(id) {
		s.release(id.User, append([]string{s.ID()}, s.env.DefaultRooms...))
	}
}

// refuse answers and closes; both go the same way, so the answer arrives first.
func (s *Session) refuse(e *protocol.Error) {
	s.reply(e)
	s.Close(e.Code, protocol.CloseReason(e.Code))
}

// admit makes the client authenticated, unless it has ended meanwhile.
func (s *Session) admit(id Identity) bool {
	now := time.Now()
	s.mu.Lock()
	if s.endedLocked() {
		s.mu.Unlock()
		return false
	}
	s.admitted, s.value = true, id.Value
	s.state.Store(uint32(protocol.StateAuthenticated))
	s.holding = s.env.Calls.Connected != nil
	guest := s.guest
	s.guest = nil
	s.env.Hub.Admit(&s.member, hub.Admission{
		User: id.User, Rooms: s.env.DefaultRooms,
		Welcome: ws.NewMessage(protocol.AppendConnected(nil, s.ID(), id.User, now)),
	})
	s.mu.Unlock()

	s.env.Lobby.leave(guest)
	s.env.Stats.Authenticated.Add(1)
	if s.env.Calls.Connected == nil {
		return true
	}
	s.guard("connected", func(ctx context.Context) error {
		s.env.Calls.Connected(ctx, s)
		return nil
	})
	s.mu.Lock()
	s.holding = false
	s.scheduleLocked()
	s.mu.Unlock()
	return true
}
