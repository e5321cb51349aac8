package session

import (
	"errors"
	"time"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// An owner is a Session as the hub.Owner of its member.
type owner struct{ *Session }

// Of returns the session of m.
func Of(m *hub.Member) *Session {
	o, _ := m.Owner().(owner)
	return o.Session
}

// Dropped handles that messages for the client were dropped. It implements hub.Owner. A client that
// gets positions is always closed: it then recovers what it has missed on its next connection.
func (o owner) Dropped(int) (closed bool) {
	if o.ended() {
		return false // the client is not slow: it has disconnected
	}
	o.mu.Lock()
	first := !o.slow
	o.slow = true
	recovers := o.grants.has(recovery)
	o.mu.Unlock()
	if o.env.Limits.CloseOnBackpressure || recovers {
		o.CloseFor(&o.env.Stats.SlowClosed, protocol.CloseSlowConsumer, protocol.ReasonSlowConsumer)
		return true
	}
	if first {
		o.env.Log.Warn("client is too slow, messages for it are dropped", "client", o.ID(), "waiting", o.member.Buffered())
	}
	return false
}

// Unsealed handles that a message for the client could not be encrypted. It implements hub.Owner.
func (o owner) Unsealed(err error) {
	if errors.Is(err, seal.ErrExhausted) {
		o.closeExhausted()
		return
	}
	o.callbackFailed(nil, "transform", err)
}

// closeExhausted closes a client whose key must not be used any more. Its next connection gets
// another key.
func (o owner) closeExhausted() {
	if o.Close(protocol.ClosePolicyViolation, reasonExhausted) {
		o.env.Log.Warn("client closed because its encryption key is used up", "client", o.ID())
	}
}

// CloseDelayed bounds the time in which the close frame waits for messages that are being
// encrypted. It implements hub.Owner.
func (o owner) CloseDelayed() {
	time.AfterFunc(o.env.Timeouts.Close, o.Abort) // no effect if the connection is closed by then
}

// encryption returns how the hub encrypts messages for the client with c.
func (o owner) encryption(c *seal.Cipher) *hub.Encryption {
	e := &hub.Encryption{Cipher: c}
	if o.env.Calls.Transform != nil {
		e.Transform = o.transform
	}
	return e
}

// transform calls the transform callback for a message. It is a hub.Encryption.Transform.
func (o owner) transform(payload []byte) (replacement []byte, err error) {
	callback.Run(func() error {
		e, err := protocol.ParseEnvelope(payload)
		if err != nil {
			return err
		}
		replacement, err = o.env.Calls.Transform(o.env.Base, o.Session, e)
		if replacement != nil && o.member.Positions {
			replacement = protocol.CopyPosition(replacement, payload)
		}
		return err
	}, func(failure error) { err = failure })
	return replacement, err
}
