package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/seal"
)

// encryptedPeer is a peer with encryption.
type encryptedPeer struct {
	*peer
	key    *seal.PrivateKey
	cipher *seal.Cipher
}

// encryptedPeer connects a client that has a key, and does not authenticate it.
func (r *rig) encryptedPeer() *encryptedPeer {
	r.t.Helper()
	key, err := seal.GenerateKey()
	must(r.t, err)
	return &encryptedPeer{peer: r.peer(), key: key}
}

// encryptedMember connects a client, authenticates it and exchanges keys.
func (r *rig) encryptedMember(user string) *encryptedPeer {
	r.t.Helper()
	s := r.encryptedPeer()
	s.say("authenticate", fmt.Sprintf(`{"as":%q,"name":%q,"publicKey":%q}`, user, user, s.key.PublicKey()))
	s.takeKeys()
	return s
}

// takeKeys takes `connected` and derives the key from it.
func (s *encryptedPeer) takeKeys() {
	s.t.Helper()
	event, raw := s.event()
	var data struct{ ID, UserID, ServerPublicKey, Salt string }
	if err := json.Unmarshal(raw, &data); err != nil || event != "connected" || data.ServerPublicKey == "" {
		s.t.Fatalf("got %s %s, want connected with a key (%v)", event, raw, err)
	}
	s.id, s.user = data.ID, data.UserID
	s.derive(data.ServerPublicKey, data.Salt)
}

func (s *encryptedPeer) derive(serverPublicKey, salt string) {
	s.t.Helper()
	public, err := seal.ParsePublicKey(serverPublicKey)
	must(s.t, err)
	parsed, err := seal.ParseSalt(salt)
	must(s.t, err)
	s.cipher, err = s.key.Derive(public, parsed)
	must(s.t, err)
}

// nextOpened takes the next message, which must be encrypted, and opens it.
func (s *encryptedPeer) nextOpened() string {
	s.t.Helper()
	event, data := s.event()
	if event != "encrypted" {
		s.t.Fatalf("got %s %s unencrypted", event, data)
	}
	text, err := s.cipher.OpenData(nil, data)
	must(s.t, err)
	return string(text)
}

// wantsSealed takes the next message, which must be encrypted and contain want.
func (s *encryptedPeer) wantsSealed(want string) {
	s.t.Helper()
	if got := s.nextOpened(); got != want {
		s.t.Fatalf("got %s, want %s", got, want)
	}
}

// sendSealed encrypts a message and sends it.
func (s *encryptedPeer) sendSealed(text string) {
	s.t.Helper()
	sealed, err := s.cipher.AppendEnvelope(nil, []byte(text))
	must(s.t, err)
	s.text(string(sealed))
}

// TestEncryptedPaths checks that messages of every path are encrypted for encrypted clients only,
// and arrive in order.
func TestEncryptedPaths(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport, Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional}, Compression: true, Message: func(_ context.Context, c *client, m hearth.Message) error {
			return c.Send(m.Event, m.Data)
		}})
		s, p := r.encryptedMember("ada"), r.member("bob")
		if c := r.client(s.peer); !c.Encrypted() || r.client(p).Encrypted() {
			t.Error("Encrypted is wrong for one of the clients")
		}
		if st := r.Stats(); st.Encrypted != 1 || st.KeysAgreed != 1 {
			t.Errorf("stats: %+v", st)
		}
		must(t, r.Local().Send(t.Context(), hearth.ToAll(), "all", 1))
		must(t, r.Local().Send(t.Context(), hearth.ToRoom("ws-default"), "room", 2))
		must(t, r.Local().Send(t.Context(), hearth.ToRoom(s.id), "own", 3))
		must(t, r.Local().Send(t.Context(), hearth.ToUser("ada"), "user", 4))
		must(t, r.Local().Send(t.Context(), hearth.ToClient(s.id), "client", 5))
		must(t, r.Send(t.Context(), hearth.ToAll().Except(p.id), "published", 6))
		must(t, r.Send(t.Context(), hearth.ToClient(s.id), "sent", repeat("x", 70_000)))
		s.sendSealed(`{"event":"echo","data":{"n":1.50}}`)
		for i, event := range []string{"all", "room", "own", "user", "client", "published"} {
			s.wantsSealed(fmt.Sprintf(`{"event":%q,"data":%d}`, event, i+1))
		}
		s.wantsSealed(`{"event":"sent","data":"` + repeat("x", 70_000) + `"}`)
		s.wantsSealed(`{"event":"echo","data":{"n":1.50}}`)
		p.wants(`{"event":"all","data":1}`)
		p.wants(`{"event":"room","data":2}`)

		s.text(`not JSON`)
		s.wantsSealed(`{"event":"error","data":{"message":"Invalid message format"}}`)
		s.sendSealed(`neither`)
		s.wantsSealed(`{"event":"error","data":{"message":"Invalid message format"}}`)
		s.say("authenticate", `{}`)
		s.wantsSealed(`{"event":"error","data":{"message":"Already authenticated"}}`)
		s.sendSealed(`{"event":"authenticate"}`)
		s.wantsSealed(`{"event":"error","data":{"message":"Already authenticated"}}`)
		s.sendSealed(`{"event":"heartbeat"}`)
		s.text(`{"event":"clear"}`) // allowed unless Encryption.Only is set
		s.sendSealed(`{"event":"echo","data":1}`)
		for event := ""; event != `{"event":"echo","data":1}`; event = s.nextOpened() {
		} // all earlier messages have been answered
		must(t, r.Local().Send(t.Context(), hearth.ToClient(s.id), "last", 1))
		must(t, disconnect(r, s.id, 4321, "bye"))
		for event := ""; event != `{"event":"last","data":1}`; event = s.nextOpened() {
		}
		s.wantsClose(4321, "bye")
	})
}

// TestEncryptionHandshakes checks which clients get keys, which connect without, and which are
// rejected.
func TestEncryptionHandshakes(t *testing.T) {
	t.Parallel()
	type mode = hearth.EncryptionMode
	const off, optional, required = hearth.EncryptionOff, hearth.EncryptionOptional, hearth.EncryptionRequired
	for _, tc := range []struct {
		name   string
		data   string
		clear  []mode // modes in which the client connects unencrypted
		reject []mode // modes in which it is closed with 4004
	}{
		{"no data", ``, []mode{off, optional}, []mode{required}},
		{"no key", `{"as":"u"}`, []mode{off, optional}, []mode{required}},
		{"null", `{"publicKey":null}`, []mode{off, optional}, []mode{required}},
		{"another name", `{"PublicKey":"AAAA","publickey":1}`, []mode{off, optional}, []mode{required}},
		{"empty", `{"publicKey":""}`, []mode{off}, []mode{optional, required}},
		{"not a string", `{"publicKey":{"x":1}}`, []mode{off}, []mode{optional, required}},
		{"not base64", `{"publicKey":"` + repeat("*", 88) + `"}`, []mode{off}, []mode{optional, required}},
		{"too short", `{"publicKey":"BGsX"}`, []mode{off}, []mode{optional, required}},
		{"not on the curve", `{"publicKey":"B` + repeat("A", 86) + `="}`, []mode{off}, []mode{optional, required}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, m := range append(tc.clear, tc.reject...) {
				r := start(t, config{Encryption: hearth.Encryption{Mode: m}})
				p := r.peer()
				if tc.data == "" {
					p.text(`{"event":"authenticate"}`)
				} else {
					p.say("authenticate", tc.data)
				}
				if slices.Contains(tc.clear, m) {
					p.welcome()
					if r.client(p).Encrypted() {
						t.Errorf("%q: encrypted", m)
					}
					continue
				}
				p.wantsError("Encryption handshake failed")
				p.wantsClose(4004, "Encryption required")
				if st := r.Stats(); st.KeysRejected == 0 || st.Clients != 0 || st.Encrypted != 0 {
					t.Errorf("%q: stats: %+v", m, st)
				}
			}
		})
	}
}

// TestDecryptionFails checks that a message that does not decrypt closes the client that sent it
// and affects no other.
func TestDecryptionFails(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		events := make(chan string, 10)
		r := start(t, config{Transport: transport, Encryption: hearth.Encryption{Mode: hearth.EncryptionRequired}, Message: func(_ context.Context, c *client, m hearth.Message) error {
			events <- m.Event
			return nil
		}})
		other := r.encryptedMember("other")
		foreign, err := other.cipher.AppendEnvelope(nil, []byte(`{"event":"foreign"}`))
		must(t, err)
		bad := []string{
			string(foreign),
			`{"event":"encrypted"}`,
			`{"event":"encrypted","data":null}`,
			`{"event":"encrypted","data":"AAAA"}`,
			`{"event":"encrypted","data":{"iv":"AAECAwQFBgcICQoL","ct":"3q2+7w=="}}`,
			`{"event":"encrypted","data":{"iv":"AAECAwQFBgcICQoL","ct":"` + repeat("A", 100_000) + `"}}`,
		}
		for _, text := range bad {
			s := r.encryptedMember("u")
			s.sendSealed(`{"event":"before"}`)
			s.text(text)
			s.wantsClose(1008, "Message does not decrypt")
			if got := <-events; got != "before" {
				t.Errorf("got %s", got)
			}
		}
		s := r.encryptedMember("u")
		sealed, err := s.cipher.AppendEnvelope(nil, []byte(`{"event":"cut"}`))
		must(t, err)
		s.text(string(sealed[:len(sealed)-10]) + `"}}`)
		s.wantsClose(1008, "Message does not decrypt")
		must(t, r.Local().Send(t.Context(), hearth.ToClient(other.id), "still", 1))
		other.wantsSealed(`{"event":"still","data":1}`)
		if st := r.Stats(); int(st.DecryptFailed) != len(bad)+1 {
			t.Errorf("stats: %+v", st)
		}
	})
}

// TestEncryptedTwice checks that an encrypted message within an encrypted message is not opened.
func TestEncryptedTwice(t *testing.T) {
	t.Parallel()
	events := make(chan string, 10)
	r := start(t, config{Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional}, Message: func(_ context.Context, c *client, m hearth.Message) error {
		events <- m.Event
		return nil
	}})
	s, p := r.encryptedMember("u"), r.member("clear")
	inner, err := s.cipher.AppendEnvelope(nil, []byte(`{"event":"inner"}`))
	must(t, err)
	s.sendSealed(string(inner))
	s.sendSealed(`{"event":"outer"}`)
	if got := <-events; got != "outer" {
		t.Errorf("got %s", got)
	}
	p.text(string(inner)) // from a client without encryption: dropped
	p.say("say", `1`)
	if got := <-events; got != "say" {
		t.Errorf("got %s", got)
	}
	if st := r.Stats(); st.MessagesUnhandled != 2 || st.DecryptFailed != 0 {
		t.Errorf("stats: %+v", st)
	}
}

// TestEncryptedOnly checks that with Encryption.Only an encrypted client may send only heartbeats
// unencrypted.
func TestEncryptedOnly(t *testing.T) {
	t.Parallel()
	events := make(chan string, 10)
	r := start(t, config{Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional, Only: true}, Message: func(_ context.Context, c *client, m hearth.Message) error {
		events <- m.Event
		return nil
	}})
	p := r.member("clear")
	p.say("clear", `1`)
	if got := <-events; got != "clear" {
		t.Errorf("got %s", got)
	}
	for _, text := range []string{`{"event":"say"}`, `{"event":"join","data":{"rooms":["r"]}}`, `{"event":"authenticate"}`} {
		s := r.encryptedMember("u")
		s.text(`{"event":"heartbeat"}`)
		s.text(`{"event":"heartbeat","data":{}}`)
		s.sendSealed(`{"event":"sealed"}`)
		if got := <-events; got != "sealed" {
			t.Errorf("got %s", got)
		}
		s.text(text)
		s.wantsClose(1008, "Message in clear")
	}
	if st := r.Stats(); st.PlaintextRejected != 3 {
		t.Errorf("stats: %+v", st)
	}
}

// TestOwnHandshake checks that the application's handshake decides about keys, within the
// authentication timeout.
func TestOwnHandshake(t *testing.T) { bubble(t, testOwnHandshake) }

func testOwnHandshake(t *testing.T) {
	serverKey, err := seal.GenerateKey() // one for all clients: an application may do so
	must(t, err)
	cancelled := make(chan error, 1)
	r := startPiped(t, config{
		Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional},
		Handshake: func(ctx context.Context, q hearth.HandshakeRequest[profile]) (*seal.Keys, error) {
			switch q.Metadata.Name {
			case "clear":
				return nil, nil
			case "rejected":
				return nil, hearth.ErrRejected
			case "failed":
				return nil, errors.New("no key store")
			case "panic":
				panic("handshake")
			case "nothing":
				return &seal.Keys{}, nil
			case "slow":
				<-ctx.Done()
				cancelled <- ctx.Err()
				return nil, ctx.Err()
			}
			var data struct{ PublicKey string }
			if err := json.Unmarshal(q.Raw, &data); err != nil || q.UserID != data.PublicKey[:4] || q.ClientID == "" {
				return nil, fmt.Errorf("unexpected request %+v: %v", q, err)
			}
			public, err := seal.ParsePublicKey(data.PublicKey)
			if err != nil {
				return nil, err
			}
			salt := seal.NewSalt()
			c, err := serverKey.Derive(public, salt)
			return &seal.Keys{ServerPublicKey: serverKey.PublicKey().String(), Salt: salt.String(), Cipher: c}, err
		},
	})
	s := r.encryptedPeer()
	public := s.key.PublicKey().String()
	s.say("authenticate", fmt.Sprintf(`{"as":%q,"publicKey":%q}`, public[:4], public))
	s.takeKeys()
	must(t, r.Local().Send(t.Context(), hearth.ToClient(s.id), "secret", 1))
	s.wantsSealed(`{"event":"secret","data":1}`)

	r.member("clear").wantsService()
	for _, name := range []string{"rejected", "failed", "panic", "nothing"} {
		p := r.peer()
		p.say("authenticate", `{"name":"`+name+`"}`)
		p.wantsError("Encryption handshake failed")
		p.wantsClose(4004, "Encryption required")
	}
	p := r.peer()
	asked := time.Now()
	p.say("authenticate", `{"name":"slow"}`)
	p.wantsClose(4001, "Authentication timeout")
	wantsAfter(t, asked, 15*time.Second)
	if err := <-cancelled; !errors.Is(err, context.Canceled) {
		t.Errorf("the handshake's context: %v", err)
	}
	if st := r.Stats(); st.KeysAgreed != 1 || st.KeysRejected != 1 || st.KeysFailed != 3 || st.AuthTimeouts != 1 {
		t.Errorf("stats: %+v", st)
	}
}

// wantsService checks that p is served.
func (p *peer) wantsService() {
	p.t.Helper()
	p.text(`{"event":"authenticate"}`)
	p.wantsError("Already authenticated")
}

// TestTransform checks that the result of a transformer is sent, or the message itself, or nothing:
// a message whose transformer fails is never sent unencrypted. The order is kept.
func TestTransform(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{
			Transport: transport, Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional},
			Handshake: func(_ context.Context, q hearth.HandshakeRequest[profile]) (*seal.Keys, error) {
				switch q.UserID {
				case "own":
					return &seal.Keys{ServerPublicKey: "key", Salt: "salt"}, nil
				case "both":
					return keysFor(q.Raw)
				}
				return nil, nil
			},
			Transform: func(_ context.Context, c *client, m hearth.Message) (*hearth.Message, error) {
				switch m.Event {
				case "fail":
					return nil, errors.New("no")
				case "panic":
					panic("transform")
				case "exit":
					runtime.Goexit()
				case "broken":
					return &hearth.Message{Event: "x", Data: json.RawMessage(`{`)}, nil
				case "nameless":
					return &hearth.Message{Data: m.Data}, nil
				case "same":
					return nil, nil
				}
				return &hearth.Message{Event: "for " + c.UserID(), Data: m.Data}, nil
			},
		})
		p, clear := r.peer(), r.member("clear")
		p.say("authenticate", `{"as":"own"}`)
		p.welcome()
		s := r.encryptedMember("both")
		for i, event := range []string{"a", "fail", "same", "panic", "exit", "broken", "nameless", "b"} {
			must(t, r.Local().Send(t.Context(), hearth.ToAll(), event, i))
		}
		p.text("not JSON")
		p.wants(`{"event":"for own","data":0}`)
		p.wants(`{"event":"same","data":2}`)
		s.wantsSealed(`{"event":"for both","data":0}`)
		s.wantsSealed(`{"event":"same","data":2}`)
		s.wantsSealed(`{"event":"for both","data":7}`)
		clear.wants(`{"event":"a","data":0}`)
		if c := r.client(p); !c.Encrypted() {
			t.Error("not encrypted")
		}
		p.wants(`{"event":"for own","data":7}`)
		p.wants(`{"event":"for own","data":{"message":"Invalid message format"}}`)
		if st := r.Stats(); st.Unsealed != 10 || st.KeysAgreed != 2 {
			t.Errorf("stats: %+v", st)
		}
	})
}

// keysFor makes keys from a client's credentials, as the built-in handshake does.
func keysFor(raw json.RawMessage) (*seal.Keys, error) {
	var data struct{ PublicKey string }
	if err := json.Unmarshal(raw, &data); err != nil {
		return nil, err
	}
	public, err := seal.ParsePublicKey(data.PublicKey)
	if err != nil {
		return nil, err
	}
	own, err := seal.GenerateKey()
	if err != nil {
		return nil, err
	}
	salt := seal.NewSalt()
	c, err := own.Derive(public, salt)
	return &seal.Keys{ServerPublicKey: own.PublicKey().String(), Salt: salt.String(), Cipher: c}, err
}

// TestBlockingTransformers checks that the transformers of one fan-out are limited in number, and
// that blocked ones do not delay other clients.
func TestBlockingTransformers(t *testing.T) {
	t.Parallel()
	const limit, members = 3, 8
	var running, most atomic.Int32
	entered, release := make(chan struct{}, members), make(chan struct{})
	r := start(t, config{
		Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional, BatchLimit: limit}, Loops: 2,
		Handshake: func(_ context.Context, q hearth.HandshakeRequest[profile]) (*seal.Keys, error) {
			if q.UserID == "clear" {
				return nil, nil
			}
			return &seal.Keys{}, nil
		},
		Transform: func(_ context.Context, c *client, m hearth.Message) (*hearth.Message, error) {
			if m.Event == "slow" {
				n := running.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				entered <- struct{}{}
				<-release
				running.Add(-1)
			}
			return nil, nil
		},
	})
	var peers []*peer
	for range members {
		p := r.member("u")
		must(t, r.client(p).Join(t.Context(), "slow"))
		peers = append(peers, p)
	}
	other, clear := r.member("other"), r.member("clear")
	must(t, r.Local().Send(t.Context(), hearth.ToRoom("slow"), "slow", 1))
	must(t, r.Local().Send(t.Context(), hearth.ToRoom("slow"), "quick", 2))
	must(t, r.Local().Send(t.Context(), hearth.ToAll(), "all", 3))
	other.wants(`{"event":"all","data":3}`)
	clear.wants(`{"event":"all","data":3}`)
	for range limit { // the limit is reached before any of them returns
		<-entered
	}
	for range members {
		release <- struct{}{}
	}
	for _, p := range peers {
		p.wants(`{"event":"slow","data":1}`)
		p.wants(`{"event":"quick","data":2}`)
		p.wants(`{"event":"all","data":3}`)
	}
	if n := most.Load(); n != limit {
		t.Errorf("%d transformers ran at the same time", n)
	}
}
