package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

var (
	errNoKey      = errors.New("encryption is required, and the client did not ask for it")
	errNoCipher   = errors.New("the keys have no cipher, and there is no transformer")
	errCannotOpen = errors.New("the keys have no cipher, and the client must encrypt what it sends")
)

// AgreeOnKeys is the default encryption handshake. For a client whose data has a `publicKey` it
// makes a key pair of the server and derives the cipher. Without `publicKey` it returns no keys
// and no error. If `publicKey` is not a public key, it returns an error that wraps ErrRejected.
func AgreeOnKeys(data []byte) (*seal.Keys, error) {
	var members map[string]json.RawMessage // not a struct, which would ignore the case of the name
	if json.Unmarshal(data, &members) != nil {
		return nil, nil // not an object, so it has no members
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

// checkCipher returns an error if a client cannot be encrypted with c. Without a cipher, c is nil.
func (e *Env) checkCipher(c *seal.Cipher) error {
	switch {
	case c == nil && e.Calls.Transform == nil:
		return errNoCipher
	case c == nil && e.Encryption.Only:
		return errCannotOpen
	}
	return nil
}

// Encrypt switches an authenticated client to encryption, and sends it last as its last unencrypted
// message. See hub.SwitchToEncrypted.
func (s *Session) Encrypt(ctx context.Context, c *seal.Cipher, last *ws.Message) error {
	if err := s.env.checkCipher(c); err != nil {
		return err
	}
	change := hub.Switchover{Encryption: *owner{s}.encryption(c), Last: last, KeepPlain: func(payloads [][]byte) int {
		return countPlain(s.ID(), payloads)
	}}
	return s.env.Hub.SwitchToEncrypted(ctx, sessionContext{s}.Done(), &s.member, change)
}

// countPlain returns how many of the first messages to the client must stay unencrypted: those up
// to `connected`, which tells the client its id, if there are only errors before it.
func countPlain(id string, payloads [][]byte) int {
	connected := []byte(`{"event":"connected","data":{"id":"` + id + `"`)
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

const (
	reasonUndecrypted = "Message does not decrypt"
	reasonExhausted   = "Encryption key used up"
	reasonPlaintext   = "Message in clear"
)

// open returns the envelope inside an encrypted message of the client. It returns false if the
// message is dropped; open may have closed the client then.
func (w worker) open(c *seal.Cipher, data []byte) (protocol.Envelope, bool) {
	inner, err := c.OpenData(nil, data)
	switch {
	case errors.Is(err, seal.ErrExhausted):
		owner(w).closeExhausted()
		return protocol.Envelope{}, false
	case err != nil:
		w.env.Stats.DecryptFailed.Add(1)
		w.Debug("encrypted message rejected", "cause", err)
		w.Close(protocol.ClosePolicyViolation, reasonUndecrypted)
		return protocol.Envelope{}, false
	}
	e, ok := w.parse(inner)
	if ok && e.Event == protocol.EventEncrypted {
		w.unhandled(e.Event, "the message is encrypted twice", nil)
		return e, false
	}
	return e, ok
}

// rejectPlaintext closes an encrypted client that sent a message unencrypted. The messages after
// that one are dropped.
func (w worker) rejectPlaintext() {
	w.closeNow(closeRequest{
		code: protocol.ClosePolicyViolation, reason: reasonPlaintext, counter: &w.env.Stats.PlaintextRejected, drop: true,
	})
}
