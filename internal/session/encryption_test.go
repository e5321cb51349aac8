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

// FuzzHandshake gives AgreeOnKeys any data. Keys come of a public key under that very name, and of nothing else.
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
			t.Fatalf("not the client's fault: %v", err)
		case (keys != nil) != (asked && bad == nil), (err != nil) != (asked && bad != nil):
			t.Fatalf("keys %v, error %v; asked %v, bad %v", keys, err, asked, bad)
		case keys != nil && (keys.Cipher == nil || len(keys.ServerPublicKey) != 88 || len(keys.Salt) != 44):
			t.Fatalf("keys %+v", keys)
		}
	})
}

// FuzzEncrypted has an encrypted client send any data as encrypted. What was not sealed with its key ends it, unheard.
func FuzzEncrypted(f *testing.F) {
	var handled atomic.Int64
	b := newFixture(session.LobbyConfig{}, session.Callbacks{
		Handshake: func(_ context.Context, _ *session.Session, _ session.Identity, data []byte) (*seal.Keys, error) {
			return session.AgreeOnKeys(data)
		},
		Message: func(context.Context, *session.Session, protocol.Envelope) error { handled.Add(1); return nil },
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
			t.Fatal("what was not sealed for this client was heard")
		}
		if !p.Encrypted() {
			t.Fatal("not encrypted")
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

// await waits until ok.
func await(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("it does not come about")
		}
	}
}

// TestKeyUsedUp: a client whose key may not be used any more is closed, so that it connects again and gets another.
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
		t.Errorf("ended with %s", got)
	}
}
