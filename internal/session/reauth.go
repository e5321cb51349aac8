package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// replaceInterval is the shortest time between two calls of the authenticate callback for an
// authenticated client.
const replaceInterval = 5 * time.Second

var (
	errExpired   = fmt.Errorf("%w: the credentials have expired", ErrRejected)
	errOtherUser = fmt.Errorf("%w: the credentials are those of another user", ErrRejected)
)

// A reauthentication is a Session on the goroutine that runs the authenticate callback for new
// credentials of an authenticated client.
type reauthentication struct {
	*Session
	data []byte
	id   []byte // of the message; nil for none
}

// reauthenticate starts to check new credentials of a client with the extension.
func (w worker) reauthenticate(e protocol.Envelope) {
	r := reauthentication{Session: w.Session, data: credentialData(e), id: e.ID}
	now := w.env.Clock.Now()
	w.mu.Lock()
	if w.ended() {
		w.mu.Unlock()
		return
	}
	c := credentialsLocked(w.Session)
	busy := c.replacing || c.replaced && now.Sub(c.started) < replaceInterval
	if !busy {
		c.replacing, c.replaced, c.started = true, true, now
		w.env.Running.Add(1)
	}
	w.mu.Unlock()
	if busy {
		r.fail(protocol.CodeBusy, "Try again later")
		return
	}
	// It ends with the callback, whose context ends with the session and with the time for the
	// callback. Env.Running waits for it.
	go r.run()
}

func (r reauthentication) run() {
	defer r.env.Running.Done()
	defer func() { // even if the callback ends the goroutine
		r.mu.Lock()
		defer r.mu.Unlock()
		r.transient.credentials.replacing = false
	}()
	ctx, cancel := context.WithTimeout(sessionContext{r.Session}, protocol.AuthTimeoutFactor*r.env.Timeouts.Auth)
	defer cancel()
	user := r.env.Hub.User(&r.member)
	callback.Run(func() error {
		id, err := r.env.Calls.Authenticate(ctx, r.Session, AuthRequest{Data: r.data, Again: true, User: user})
		switch {
		case err != nil:
			return err
		case id.User != user:
			return errOtherUser
		}
		return r.replace(id)
	}, r.failed)
}

// replace replaces the credentials of the client, and answers. It returns an error if the new ones
// have expired.
func (r reauthentication) replace(id Identity) error {
	if id.expired() {
		return errExpired
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended() || credentialsLocked(r.Session).expired {
		return nil
	}
	if id.Replace != nil {
		id.Replace()
	}
	setExpiryLocked(r.Session, id.Expires)
	if r.grants.has(resume) {
		r.env.Tickets.change(r.Session)
	}
	r.env.Stats.Reauthenticated.Add(1)
	r.member.Notice(ws.NewMessage(protocol.AppendReauthenticated(nil, id.Expires, r.id)))
	return nil
}

// failed answers that the new credentials were rejected, or that the callback has failed.
func (r reauthentication) failed(err error) {
	switch {
	case r.ended():
	case errors.Is(err, ErrRejected):
		r.env.Stats.ReauthRejected.Add(1)
		r.Debug("new credentials rejected", "cause", err)
		r.fail("", protocol.ErrAuthFailed.Message)
	default:
		r.callbackFailed(&r.env.Stats.CallbackErrors, "authenticate", err)
		r.fail("", protocol.ErrAuthError.Message)
	}
}

// fail answers with an error.
func (r reauthentication) fail(code, message string) {
	r.member.Notice(ws.NewMessage(protocol.AppendClientError(nil, protocol.ClientError{Code: code, Message: message}, r.id)))
}
