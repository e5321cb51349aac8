package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/seal"
)

// exchangeKeys is a key exchange of the application: a client sends its key as the event `key`, and
// receives `keys` as its last unencrypted message.
func exchangeKeys(ctx context.Context, c *client, m hearth.Message) error {
	if m.Event != "key" {
		return nil
	}
	keys, err := keysFor(m.Data)
	if err != nil {
		return err
	}
	return c.EnableEncryption(ctx, keys.Cipher, "keys", map[string]string{"key": keys.ServerPublicKey, "salt": keys.Salt})
}

// deriveFrom derives the key from the server's half of an exchange.
func (s *encryptedPeer) deriveFrom(data json.RawMessage) {
	s.t.Helper()
	var keys struct{ Key, Salt string }
	must(s.t, json.Unmarshal(data, &keys))
	s.derive(keys.Key, keys.Salt)
}

// TestSwitchUnderLoad enables encryption while messages are sent to the clients by every path. Each
// sender's messages arrive complete and in order. They are unencrypted before the switch, and
// encrypted after it.
func TestSwitchUnderLoad(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		const clients, each = 12, 60
		bus := memory.NewBus(memory.Config{})
		cfg := config{Transport: transport, Loops: 2, Compression: true, Message: exchangeKeys, Broker: bus.Broker(), ValidateRooms: func(_ context.Context, _ *client, rooms []string) ([]string, error) {
			return rooms, nil
		}}
		r := start(t, cfg)
		far := start(t, config{Transport: transport, Broker: bus.Broker()})
		all := make([]*encryptedPeer, clients)
		for i := range all {
			all[i] = r.encryptedPeer()
			all[i].login("u")
		}
		ctx, padding := t.Context(), repeat("x", 300)
		paths := map[string]func(s *encryptedPeer, v any) error{
			"client": func(s *encryptedPeer, v any) error {
				return r.Local().Send(t.Context(), hearth.ToClient(s.id), "client", v)
			},
			"own": func(s *encryptedPeer, v any) error { return r.Local().Send(t.Context(), hearth.ToRoom(s.id), "own", v) },
			"far": func(s *encryptedPeer, v any) error { return far.Send(ctx, hearth.ToClient(s.id), "far", v) },
		}
		shared := map[string]func(v any) error{
			"all":   func(v any) error { return r.Local().Send(t.Context(), hearth.ToAll(), "all", v) },
			"user":  func(v any) error { return r.Local().Send(t.Context(), hearth.ToUser("u"), "user", v) },
			"room":  func(v any) error { return r.Local().Send(t.Context(), hearth.ToRoom("ws-default"), "room", v) },
			"apart": func(v any) error { return far.Send(ctx, hearth.ToRoom("ws-default"), "apart", v) },
		}
		var publishers sync.WaitGroup // each ends after its messages
		for _, send := range shared {
			publishers.Go(func() {
				for n := range each {
					must(t, send(numbered{n, padding}))
				}
			})
		}
		for _, s := range all {
			for _, send := range paths {
				publishers.Go(func() {
					for n := range each {
						must(t, send(s, numbered{n, padding}))
					}
				})
			}
			publishers.Go(func() {
				for n := range each {
					if n == each/2 {
						s.say("key", fmt.Sprintf(`{"publicKey":%q}`, s.key.PublicKey()))
					}
					s.text("not JSON")
				}
			})
		}
		publishers.Wait()
		for _, s := range all {
			s.wantsEach(7*each, each)
		}
		if st := r.Stats(); st.Dropped != 0 || st.Unsealed != 0 || st.Encrypted != clients {
			t.Errorf("stats: %+v", st)
		}
	})
}

// wantsEach takes the given numbers of numbered messages and errors, and one exchange of keys.
func (s *encryptedPeer) wantsEach(messages, errs int) {
	s.t.Helper()
	next := make(map[string]int)
	for range messages + errs + 1 {
		event, data := s.event()
		if event == "keys" {
			s.deriveFrom(data)
			continue
		}
		if (event == "encrypted") != (s.cipher != nil) {
			s.t.Fatalf("got %s %.80s while encryption is %v", event, data, s.cipher != nil)
		}
		if s.cipher != nil {
			text, err := s.cipher.OpenData(nil, data)
			must(s.t, err)
			var e struct {
				Event string
				Data  json.RawMessage
			}
			must(s.t, json.Unmarshal(text, &e))
			event, data = e.Event, e.Data
		}
		if event == "error" {
			next[event]++
			continue
		}
		var m numbered
		if err := json.Unmarshal(data, &m); err != nil || m.N != next[event] {
			s.t.Fatalf("got %s number %d (%v), want %d", event, m.N, err, next[event])
		}
		next[event]++
	}
	if next["error"] != errs || s.cipher == nil {
		s.t.Errorf("got %v", next)
	}
}

// TestSwitchWithBacklog checks that messages that wait for a client that does not read are recalled
// and sent encrypted.
func TestSwitchWithBacklog(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport, Limits: hearth.Limits{BackpressureLimit: 4 << 20}, Message: exchangeKeys})
		s := &encryptedPeer{}
		w := r.slowPeer("slow")
		var err error
		s.key, err = seal.GenerateKey()
		must(t, err)
		c, padding, sent := r.Local().Clients(hearth.ToUser("slow"))[0], repeat("x", 8000), 0
		waiting := func() int { return r.Local().Pending(hearth.ToUser("slow")) }
		for ; waiting() < 1<<20; sent++ { // until the kernel accepts no more
			must(t, c.Send("m", numbered{sent, padding}))
			must(t, r.Local().WaitPending(t.Context(), hearth.ToUser("slow"), 2<<20))
			if sent > 100_000 {
				t.Fatal("a client that does not read accepts every message")
			}
		}
		keys, err := keysFor(json.RawMessage(fmt.Sprintf(`{"publicKey":%q}`, s.key.PublicKey())))
		must(t, err)
		must(t, c.EnableEncryption(t.Context(), keys.Cipher, "keys", map[string]string{"key": keys.ServerPublicKey, "salt": keys.Salt}))
		after := waiting()
		if !c.Encrypted() {
			t.Error("not encrypted")
		}
		if err := c.EnableEncryption(t.Context(), keys.Cipher, "", nil); !errors.Is(err, hearth.ErrEncrypted) {
			t.Errorf("second EnableEncryption: %v", err)
		}
		must(t, c.Send("m", numbered{sent, padding}))
		sent++

		s.peer = newPeer(t, w) // starts to read
		plain := 0
		for n := range sent {
			event, data := s.event()
			if event == "keys" {
				s.deriveFrom(data)
				event, data = s.event()
			}
			switch {
			case s.cipher == nil:
				plain++
			case event != "encrypted":
				t.Fatalf("got %s %.80s unencrypted", event, data)
			default:
				text, err := s.cipher.OpenData(nil, data)
				must(t, err)
				data = json.RawMessage(strings.TrimSuffix(strings.TrimPrefix(string(text), `{"event":"m","data":`), `}`))
			}
			var m numbered
			if err := json.Unmarshal(data, &m); err != nil || m.N != n {
				t.Fatalf("got number %d (%v), want %d", m.N, err, n)
			}
		}
		// All waiting messages were encrypted, except a frame that had begun and what netconn had
		// given to the socket. A message that was being handed over may be counted twice.
		if most := sent - (after-160<<10)/seal.EnvelopeSize(8050); plain > most {
			t.Errorf("%d of %d messages arrived unencrypted, at most %d could have left before the switch", plain, sent, most)
		}
		r.counts(func(st hearth.Stats) bool { return st.Dropped == 0 && int(st.Delivered) == sent+2 })
	})
}

// TestSwitchAtOnce enables encryption within Connected: the client still receives `connected`
// unencrypted first.
func TestSwitchAtOnce(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		var keys *seal.Keys
		secretKey, err := seal.GenerateKey()
		must(t, err)
		keys, err = keysFor(json.RawMessage(fmt.Sprintf(`{"publicKey":%q}`, secretKey.PublicKey())))
		must(t, err)
		r := start(t, config{Transport: transport, Connected: func(ctx context.Context, c *client) {
			must(t, c.Send("early", 1))
			must(t, c.EnableEncryption(ctx, keys.Cipher, "", nil))
			must(t, c.Send("late", 2))
		}})
		for range 20 {
			s := &encryptedPeer{peer: r.peer(), key: secretKey}
			s.login("u")
			s.derive(keys.ServerPublicKey, keys.Salt)
			event, data := s.event()
			if event == "encrypted" {
				text, err := s.cipher.OpenData(nil, data)
				must(t, err)
				event = string(text)
			}
			// it may have left already
			if event != "early" && event != `{"event":"early","data":1}` {
				t.Fatalf("got %s %s", event, data)
			}
			s.wantsSealed(`{"event":"late","data":2}`)
		}
	})
}

// TestSwitchRejected checks that EnableEncryption returns an error if it cannot encrypt.
func TestSwitchRejected(t *testing.T) {
	t.Parallel()
	r := start(t, config{})
	p := r.member("u")
	c := r.client(p)
	if err := c.EnableEncryption(t.Context(), nil, "", nil); err == nil || c.Encrypted() {
		t.Errorf("no cipher and no transformer: %v; want an error", err)
	}
	if err := c.EnableEncryption(t.Context(), nil, "x", make(chan int)); err == nil || c.Encrypted() {
		t.Errorf("data that JSON cannot encode: %v; want an error", err)
	}
	must(t, c.Disconnect(1000, "bye"))
	keys, err := keysFor(json.RawMessage(`{"publicKey":"` + newKey(t) + `"}`))
	must(t, err)
	if err := c.EnableEncryption(t.Context(), keys.Cipher, "", nil); !errors.Is(err, hearth.ErrNotConnected) {
		t.Errorf("disconnected client: %v", err)
	}
}

func newKey(t *testing.T) string {
	key, err := seal.GenerateKey()
	must(t, err)
	return key.PublicKey().String()
}
