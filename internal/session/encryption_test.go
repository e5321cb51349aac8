package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// FuzzHandshake checks that AgreeOnKeys returns keys only for a valid public key with the exact
// name.
func FuzzHandshake(f *testing.F) {
	key, err := seal.GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		`{"publicKey":"` + key.PublicKey().String() + `"}`, `{}`, `null`, `[]`, `{"publicKey":null}`, `{"publicKey":7}`, `{"publicKey":""}`,
		`{"PUBLICKEY":"x"}`, `{"publicKey":"x","publicKey":null}`, `{"\u0070ublicKey":"AAAA"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := session.AgreeOnKeys(data)
		var members map[string]any
		asked := json.Unmarshal(data, &members) == nil && members["publicKey"] != nil
		text, _ := members["publicKey"].(string)
		_, bad := seal.ParsePublicKey(text)
		switch {
		case err != nil && !errors.Is(err, session.ErrRejected):
			t.Fatalf("the error is not ErrRejected: %v", err)
		case (keys != nil) != (asked && bad == nil), (err != nil) != (asked && bad != nil):
			t.Fatalf("keys %v, error %v; asked %v, bad %v", keys, err, asked, bad)
		case keys != nil && (keys.Cipher == nil || len(keys.ServerPublicKey) != 88 || len(keys.Salt) != 44):
			t.Fatalf("keys %+v", keys)
		}
	})
}

// FuzzEncrypted checks that data which was not sealed with the client's key closes the client,
// and does not reach the message callback.
func FuzzEncrypted(f *testing.F) {
	var handled atomic.Int64
	b := newFixture(session.LobbyConfig{}, session.Callbacks{
		Handshake: func(_ context.Context, _ *session.Session, _ session.Identity, data []byte) (*seal.Keys, error) {
			return session.AgreeOnKeys(data)
		},
		Message: func(context.Context, *session.Session, protocol.Envelope, *session.Request) error {
			handled.Add(1)
			return nil
		},
	})
	defer b.close()
	sealed, err := ownCipher(f).AppendData(nil, []byte(`{"event":"x"}`))
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(sealed), `{}`, `null`, `"x"`, `{"iv":"AAECAwQFBgcICQoL","ct":""}`, `{"iv":1,"ct":[]}`, `{"ct":"AAAA","iv":"AAAA"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !json.Valid(data) {
			data, _ = json.Marshal(string(data))
		}
		p := b.open("10.0.0.1")
		p.sendEvent("authenticate", map[string]string{"publicKey": ownKey(t)})
		await(t, func() bool { return p.State() == protocol.StateAuthenticated })
		before := handled.Load()
		p.Data(ws.AppendMaskedFrame(nil, ws.OpText, false, append(append([]byte(`{"event":"encrypted","data":`), data...), '}')), 0)
		await(t, func() bool { return p.State() == protocol.StateDisconnected })
		if handled.Load() != before {
			t.Fatal("a message that was not sealed for this client was handled")
		}
		if !p.Encrypted() {
			t.Fatal("the client is not encrypted")
		}
		p.Closed(nil)
		b.all = nil
	})
}

func ownKey(t testing.TB) string {
	t.Helper()
	key, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key.PublicKey().String()
}

func ownCipher(t testing.TB) *seal.Cipher {
	t.Helper()
	keys, err := session.AgreeOnKeys([]byte(`{"publicKey":"` + ownKey(t) + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	return keys.Cipher
}

// await waits until ok returns true.
func await(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("the condition is not met after a minute")
		}
	}
}

// TestKeyExhausted checks that a client whose key must not be used any more is closed, so that it
// connects again and gets another key.
func TestKeyExhausted(t *testing.T) {
	t.Parallel()
	ends := make(chan string, 1)
	b := newFixture(session.LobbyConfig{}, session.Callbacks{
		Disconnected: func(_ context.Context, _ *session.Session, code int, reason string) {
			ends <- fmt.Sprint(code, " ", reason)
		},
	})
	defer b.close()
	p := b.open("10.0.0.1")
	p.sendEvent("authenticate", nil)
	await(t, func() bool { return p.State() == protocol.StateAuthenticated })
	p.Owner().Unsealed(errors.New("anything else"))
	p.Owner().Unsealed(fmt.Errorf("seal: %w", seal.ErrExhausted))
	if got := <-ends; got != "1008 Encryption key used up" {
		t.Errorf("the client was closed with %s", got)
	}
}
