package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hearthws/hearth/internal/callback"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

var (
	errNoKey    = errors.New("the client has not asked for encryption, which is required")
	errNoCipher = errors.New("no cipher for the client, and no transformer")
	errUnopened = errors.New("no cipher for the client, which may send nothing in clear")
)

// AgreeOnKeys is the handshake that needs no application: a client whose data has a `publicKey` gets a key pair of the
// server's own. Without one it gives no keys and no error; one that is no public key is an error that wraps ErrRejected.
func AgreeOnKeys(data []byte) (*seal.Keys, error) {
	var members map[string]json.RawMessage // not a struct: the name is exact
	if json.Unmarshal(data, &members) != nil {
		return nil, nil // not an object: it has no members
	}
	raw := members["publicKey"]
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, fmt.Errorf("%w: publicKey: %w", ErrRejected, err)
	}
	client, err := seal.ParsePublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRejected, err)
	}
	own, err := seal.GenerateKey()
	if err != nil {
		return nil, err
	}
	salt := seal.NewSalt()
	cipher, err := own.Derive(client, salt)
	if err != nil {
		return nil, err
	}
	return &seal.Keys{ServerPublicKey: own.PublicKey().String(), Salt: salt.String(), Cipher: cipher}, nil
}

// agree runs the handshake, if there is one. It reports false when it has ended the session.
func (s *Session) agree(id Identity, data []byte) (*seal.Keys, bool) {
	if s.env.Calls.Handshake == nil {
		return nil, true
	}
	var keys *seal.Keys
	ok := callback.Run(func() (err error) {
		if keys, err = s.env.Calls.Handshake((*sessionContext)(s), s, id, data); err != nil {
			return err
		}
		if keys == nil {
			if s.env.Encryption.Required {
				return fmt.Errorf("%w: %w", ErrRejected, errNoKey)
			}
			return nil
		}
		return s.usable(keys.Cipher)
	}, s.handshakeFailed)
	return keys, ok
}

// usable says why a client can't be encrypted so.
func (s *Session) usable(c *seal.Cipher) error {
	switch {
	case c == nil && s.env.Calls.Transform == nil:
		return errNoCipher
	case c == nil && s.env.Encryption.Only:
		return errUnopened
	}
	return nil
}

// handshakeFailed ends a session whose handshake was refused, or failed.
func (s *Session) handshakeFailed(err error) {
	switch {
	case s.State() == protocol.StateDisconnected:
		return
	case errors.Is(err, ErrRejected):
		s.env.Stats.KeysRejected.Add(1)
		s.Debug("encryption handshake rejected", "cause", err)
	default:
		s.env.Stats.KeysFailed.Add(1)
		s.failed("handshake", err)
	}
	s.reject(protocol.ErrHandshakeFailed)
}

// encryption is that of a client with these keys.
func (s *Session) encryption(c *seal.Cipher) *hub.Encryption {
	e := &hub.Encryption{Cipher: c}
	if s.env.Calls.Transform != nil {
		e.Transform = s.transform
	}
	return e
}

// transform asks the application what takes the place of a message. It is hub.Encryption's.
func (s *Session) transform(payload []byte) (replacement []byte, err error) {
	callback.Run(func() error {
		e, err := protocol.ParseEnvelope(payload)
		if err != nil {
			return err
		}
		replacement, err = s.env.Calls.Transform(s.env.Base, s, e)
		return err
	}, func(failure error) { err = failure })
	return replacement, err
}

// Encrypt makes an authenticated client an encrypted one, and tells it by last, in clear. See hub.SwitchToEncrypted.
func (s *Session) Encrypt(ctx context.Context, c *seal.Cipher, last *ws.Message) error {
	if err := s.usable(c); err != nil {
		return err
	}
	change := hub.Switchover{Encryption: *s.encryption(c), Last: last, KeepPlain: s.keepPlain}
	return s.env.Hub.SwitchToEncrypted(ctx, (*sessionContext)(s).Done(), &s.member, change)
}

// greeting is how many of the first messages are `connected` and errors from before. A client could not know who it is
// without.
func (s *Session) keepPlain(payloads [][]byte) int {
	connected := []byte(`{"event":"connected","data":{"id":"` + s.ID() + `"`)
	for i, p := range payloads {
		if bytes.HasPrefix(p, connected) {
			return i + 1
		}
		if !bytes.HasPrefix(p, []byte(`{"event":"error",`)) {
			break
		}
	}
	return 0
}

// Unsealed is told that a message for the client could not be encrypted. It is hub.Owner's.
func (s *Session) Unsealed(err error) {
	if errors.Is(err, seal.ErrExhausted) {
		s.exhausted()
		return
	}
	s.failed("transform", err)
}

// exhausted closes a client whose key may not be used any more; the next connection has another.
func (s *Session) exhausted() {
	if s.Close(protocol.ClosePolicyViolation, reasonExhausted) {
		s.env.Log.Warn("client's key is used up", "client", s.ID())
	}
}

// CloseDelayed is told that the close frame waits for encryption: the client has the same time as if it did not. It is
// hub.Owner's.
func (s *Session) CloseDelayed() {
	time.AfterFunc(s.env.Timeouts.Close, s.Abort) // a connection that has gone by then does not mind
}

const (
	reasonUndecrypted = "Message does not decrypt"
	reasonExhausted   = "Encryption key used up"
	reasonPlaintext   = "Message in clear"
)

// open gives what is inside an encrypted message of the client; false: it is dropped, and the client may be closed.
func (s *Session) open(c *seal.Cipher, data []byte) (protocol.Envelope, bool) {
	inner, err := c.OpenData(nil, data)
	switch {
	case errors.Is(err, seal.ErrExhausted):
		s.exhausted()
		return protocol.Envelope{}, false
	case err != nil:
		s.env.Stats.DecryptFailed.Add(1)
		s.Debug("encrypted message refused", "cause", err)
		s.Close(protocol.ClosePolicyViolation, reasonUndecrypted)
		return protocol.Envelope{}, false
	}
	e, ok := s.parse(inner)
	if ok && e.Event == protocol.EventEncrypted {
		s.unhandled(e.Event, "it was encrypted twice")
		return e, false
	}
	return e, ok
}

// plaintextRejected closes an encrypted client that has sent in clear what it may not. What came behind that is
// not handled.
func (s *Session) plaintextRejected() {
	s.closeNow(closeRequest{
		code: protocol.ClosePolicyViolation, reason: reasonPlaintext, counter: &s.env.Stats.PlaintextRejected, drop: true,
	})
}
