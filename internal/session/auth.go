package session

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

var noData = []byte("{}")

// startAuthentication lets the callback decide, beside the messages that keep coming.
func (s *Session) startAuthentication(data []byte) {
	if len(data) == 0 || bytes.Equal(data, []byte("null")) {
		data = noData
	}
	s.mu.Lock()
	c := s.pendingClientLocked()
	if c == nil { // ended meanwhile
		s.mu.Unlock()
		return
	}
	s.state.Store(uint32(protocol.StateAuthenticating))
	s.env.Running.Add(1)
	s.mu.Unlock()
	s.env.Lobby.beginAuthentication(c)
	go s.authenticate(data) // ends with the callback, whose context ends with the session; Env.Running waits for it
}

func (s *Session) authenticate(data []byte) {
	defer s.env.Running.Done()
	var id Identity
	accepted := callback.Run(func() (err error) {
		id, err = s.env.Calls.Authenticate((*sessionContext)(s), s, data)
		return err
	}, s.authFailed)
	if !accepted || s.State() == protocol.StateDisconnected {
		return
	}
	keys, agreed := s.agree(id, data)
	if !agreed || s.State() == protocol.StateDisconnected {
		return
	}
	channels := s.channels(id.User, s.env.DefaultRooms)
	s.hold((*sessionContext)(s), channels)
	if !s.admit(id, keys) {
		s.release(channels)
	}
}

// authFailed ends a session whose authenticate callback has refused it, or failed.
func (s *Session) authFailed(err error) {
	switch {
	case s.State() == protocol.StateDisconnected:
	case errors.Is(err, ErrRejected):
		s.env.Stats.AuthRejected.Add(1)
		s.Debug("authentication rejected", "cause", err)
		s.reject(protocol.ErrAuthFailed)
	default:
		s.env.Stats.AuthFailed.Add(1)
		s.failed("authenticate", err)
		s.reject(protocol.ErrAuthError)
	}
}

// refuse answers and closes; both go the same way, so the answer arrives first.
func (s *Session) reject(e *protocol.Error) {
	s.reply(e)
	s.Close(e.Code, protocol.CloseReason(e.Code))
}

// admit makes the client authenticated, and encrypted if it has keys, unless it has ended meanwhile.
func (s *Session) admit(id Identity, keys *seal.Keys) bool {
	a := s.admission(id, keys)
	s.mu.Lock()
	c := s.pendingClientLocked()
	s.mu.Unlock()
	if c == nil || !s.env.Lobby.beginAdmission(c) { // it has ended, or is about to be closed
		return false
	}
	s.mu.Lock()
	if s.endedLocked() {
		s.mu.Unlock()
		return false
	}
	s.admitted, s.value = true, id.Value
	s.lastRead.Store(int64(s.env.Clock.Now())) // it gets pings from now on
	s.state.Store(uint32(protocol.StateAuthenticated))
	s.connecting = s.env.Calls.Connected != nil
	s.dropPendingClientLocked()
	s.env.Stats.Authenticated.Add(1)
	if keys != nil {
		s.env.Stats.KeysAgreed.Add(1)
	}
	s.env.Hub.Admit(&s.member, a)
	for _, room := range a.Rooms {
		s.changedLocked(room, true)
	}
	s.mu.Unlock()

	s.env.Lobby.admitted(c)
	if s.env.Calls.Connected == nil {
		return true
	}
	defer s.connectedReturned() // even if the callback ends the goroutine
	s.guard("connected", func(ctx context.Context) error {
		s.env.Calls.Connected(ctx, s)
		return nil
	})
	return true
}

// admission is what makes the client a member.
func (s *Session) admission(id Identity, keys *seal.Keys) hub.Admission {
	a := hub.Admission{User: id.User, Rooms: s.env.DefaultRooms}
	now := time.Now()
	if keys == nil {
		a.Welcome = ws.NewMessage(protocol.AppendConnected(nil, s.ID(), id.User, now))
		return a
	}
	a.Encryption = s.encryption(keys.Cipher)
	a.Welcome = ws.NewMessage(protocol.AppendConnectedEncrypted(nil, s.ID(), id.User, now, keys.ServerPublicKey, keys.Salt))
	return a
}

// connectedReturned lets the worker go on, once the connected callback has returned.
func (s *Session) connectedReturned() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connecting = false
	s.scheduleLocked()
}
