package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ticket"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

var noData = []byte("{}")

// An authentication is a Session on the goroutine that runs its authenticate, handshake and
// connected callbacks.
type authentication struct {
	*Session
	client   *pendingClient
	data     []byte                    // of the client's `authenticate`
	request  protocol.ExtensionRequest // the extension that the client requests
	grants   grants                    // what the client gets when it is admitted
	identity Identity
	keys     *seal.Keys // nil if the client is not encrypted

	holder  *ticketHolder     // set by admit if the client gets tickets
	ticket  *ticket.Ticket    // nil if the client has not resumed its session
	resumed []protocol.Joined // the rooms of a client that has

	recovered *ws.Message // what such a client has missed; nil for nothing
}

// credentialData returns the data of an authenticate.
func credentialData(e protocol.Envelope) []byte {
	if len(e.Data) == 0 || bytes.Equal(e.Data, []byte("null")) {
		return noData
	}
	return e.Data
}

// startAuthentication starts the authentication of the client.
func (w worker) startAuthentication(e protocol.Envelope) {
	request, requested := protocol.ParseExtensionRequest(e.Extension)
	if request.Ticket != "" {
		w.startResuming(e, request)
		return
	}
	w.mu.Lock()
	c := w.transient.client()
	if c == nil { // the session has ended meanwhile
		w.mu.Unlock()
		return
	}
	w.state.Store(uint32(protocol.StateAuthenticating))
	w.env.Running.Add(1)
	w.mu.Unlock()
	w.env.Lobby.beginAuthentication(c)
	a := &authentication{
		Session: w.Session, client: c, data: credentialData(e), request: request, grants: w.env.grantsFor(request, requested),
	}
	// It ends with the callbacks, whose context ends with the session. Env.Running waits for it.
	go a.run()
}

func (a *authentication) run() {
	defer a.env.Running.Done()
	if a.authenticate() && !a.ended() {
		a.proceed()
	}
}

// proceed admits a client that was accepted, and calls the connected callback. It returns false if
// the client was not admitted: its session has ended, or is about to end.
func (a *authentication) proceed() (admitted bool) {
	if !a.agreeOnKeys() || a.ended() {
		return false
	}
	channels := a.env.clientChannels(&a.member, a.identity.User, a.rooms())
	a.env.hold(sessionContext{a.Session}, channels)
	admit := a.admit
	if a.ticket != nil {
		admit = a.admitResumed
	}
	if !admit() {
		a.env.release(channels)
		return false
	}
	if a.holder != nil {
		a.env.Tickets.issue(a.holder)
	}
	if a.env.Calls.Connected == nil {
		return true
	}
	defer a.connected() // even if the callback ends the goroutine
	a.runCallback("connected", func(ctx context.Context) error {
		a.env.Calls.Connected(ctx, a.Session)
		return nil
	})
	return true
}

// rooms returns the rooms that the client joins when it is admitted, without its own.
func (a *authentication) rooms() []string {
	if a.ticket == nil {
		return a.env.DefaultRooms
	}
	own := a.ID()
	return slices.DeleteFunc(slices.Clone(a.ticket.Rooms), func(room string) bool { return room == own })
}

// authenticate calls the authenticate callback. It returns false if that has not accepted the
// client.
func (a *authentication) authenticate() bool {
	request := AuthRequest{Data: a.data, Subprotocol: a.client.protocol, FromRequest: a.client.fromRequest}
	return callback.Run(func() (err error) {
		a.identity, err = a.env.Calls.Authenticate(sessionContext{a.Session}, a.Session, request)
		if err == nil && a.identity.expired() {
			return errExpired
		}
		return err
	}, a.authenticateFailed)
}

// authenticateFailed ends the session if the authenticate callback has rejected the client, or
// failed.
func (a *authentication) authenticateFailed(err error) {
	switch {
	case a.ended():
	case errors.Is(err, ErrRejected):
		a.env.Stats.AuthRejected.Add(1)
		a.Debug("authentication rejected", "cause", err)
		a.reject(protocol.ErrAuthFailed)
	default:
		a.env.Stats.AuthFailed.Add(1)
		a.callbackFailed(nil, "authenticate", err)
		a.reject(protocol.ErrAuthError)
	}
}

// agreeOnKeys runs the encryption handshake, if there is one. It returns false if that has failed.
func (a *authentication) agreeOnKeys() bool {
	if a.env.Calls.Handshake == nil {
		return true
	}
	return callback.Run(func() (err error) {
		a.keys, err = a.env.Calls.Handshake(sessionContext{a.Session}, a.Session, a.identity, a.data)
		switch {
		case err != nil:
			return err
		case a.keys != nil:
			return a.env.checkCipher(a.keys.Cipher)
		case a.env.Encryption.Required, a.ticket != nil && a.ticket.Encrypted:
			return fmt.Errorf("%w: %w", ErrRejected, errNoKey)
		}
		return nil
	}, a.handshakeFailed)
}

// handshakeFailed ends the session if the encryption handshake was rejected, or failed.
func (a *authentication) handshakeFailed(err error) {
	switch {
	case a.ended():
		return
	case errors.Is(err, ErrRejected):
		a.env.Stats.KeysRejected.Add(1)
		a.Debug("encryption handshake rejected", "cause", err)
	default:
		a.env.Stats.KeysFailed.Add(1)
		a.callbackFailed(nil, "handshake", err)
	}
	a.reject(protocol.ErrHandshakeFailed)
}

// reject sends an error and closes. Both take the same way, so the error arrives first.
func (a *authentication) reject(e *protocol.Error) {
	a.reply(e)
	a.Close(e.Code, protocol.CloseReason(e.Code))
}

// admit makes the client authenticated, and encrypted if it has keys. It returns false if the
// session has ended meanwhile.
func (a *authentication) admit() bool {
	admission := a.admission()
	if !a.env.Lobby.beginAdmission(a.client) {
		return false
	}
	a.mu.Lock()
	if a.ended() {
		a.mu.Unlock()
		return false
	}
	a.Session.grants, a.value = a.grants, a.identity.Value
	a.member.Positions = a.grants.has(recovery)
	a.lastRead.Store(int64(a.env.Clock.Now())) // the sweep sends pings from now on
	a.state.Store(uint32(protocol.StateAuthenticated))
	a.inbox.connecting = a.env.Calls.Connected != nil
	a.transient.pendingClient = nil
	setExpiryLocked(a.Session, a.identity.Expires)
	a.transient = a.transient.orNil()
	a.env.Stats.Authenticated.Add(1)
	if a.keys != nil {
		a.env.Stats.KeysAgreed.Add(1)
	}
	if a.grants.has(resume) {
		a.holder = a.env.Tickets.hold(a.Session, a.identity.User, a.generation())
	}
	a.env.Hub.Admit(&a.member, admission)
	for _, room := range admission.Rooms {
		a.changedLocked(room, true)
	}
	a.mu.Unlock()

	a.env.Lobby.admitted(a.client)
	return true
}

// admission returns what the hub needs to make the client a member.
func (a *authentication) admission() hub.Admission {
	id, user, now := a.ID(), a.identity.User, time.Now()
	adm := hub.Admission{User: user, Rooms: a.rooms(), Next: a.recovered}
	var welcome []byte
	if a.keys == nil {
		welcome = protocol.AppendConnected(nil, id, user, now)
	} else {
		adm.Encryption = owner{a.Session}.encryption(a.keys.Cipher)
		welcome = protocol.AppendConnectedEncrypted(nil, id, user, now, a.keys.ServerPublicKey, a.keys.Salt)
	}
	if a.grants.has(extension) {
		granted := a.env.granted(a.grants, a.request.Version)
		granted.Expires = a.identity.Expires
		granted.Resumed = a.resumed
		welcome = protocol.AppendGranted(welcome, granted)
	}
	adm.Welcome = ws.NewMessage(welcome)
	return adm
}

// generation returns that of the client's tickets.
func (a *authentication) generation() uint32 {
	if a.ticket == nil {
		return 0
	}
	return a.ticket.Generation + 1
}

// connected lets the worker continue when the connected callback has returned.
func (a *authentication) connected() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inbox.connecting = false
	a.scheduleLocked(false)
}
