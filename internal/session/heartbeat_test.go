package session_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// TestHeartbeatReplies checks that the heartbeats of a client with the extension are answered at
// once in the usual forms, behind earlier messages in the other forms, and not at all without the
// extension.
func TestHeartbeatReplies(t *testing.T) {
	t.Parallel()
	long := `"` + strings.Repeat("x", 300) + `"`
	for name, tt := range map[string]struct {
		message string
		want    string
		late    bool // answered after earlier messages
		deflate bool
	}{
		"plain":      {message: `{"event":"heartbeat"}`, want: `{"event":"heartbeat"}`},
		"id":         {message: `{"event":"heartbeat","id":"7"}`, want: `{"event":"heartbeat","id":"7"}`},
		"any id":     {message: ` { "id" : [1.50, {"a":null}] , "event" : "heartbeat" } `, want: `{"event":"heartbeat","id":[1.50, {"a":null}]}`},
		"data":       {message: `{"event":"heartbeat","data":{"n":1},"id":8}`, want: `{"event":"heartbeat","id":8}`},
		"long":       {message: `{"event":"heartbeat","id":` + long + `}`, want: `{"event":"heartbeat","id":` + long + `}`, late: true},
		"escaped":    {message: `{"event":"heartbea\u0074","id":9}`, want: `{"event":"heartbeat","id":9}`, late: true},
		"compressed": {message: `{"event":"heartbeat","id":10}`, want: `{"event":"heartbeat","id":10}`, late: true, deflate: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, with := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					b, gate, handled := newGatedFixture()
					defer b.close()
					p := b.openWith("10.0.0.1", true)
					if with {
						p.say(`{"event":"authenticate","hearth":{"version":1}}`)
					} else {
						p.say(`{"event":"authenticate"}`)
					}
					synctest.Wait()
					p.messages()
					p.say(`{"event":"block"}`)
					synctest.Wait()
					if tt.deflate {
						p.Data(compressed(deflated(tt.message)), 0)
					} else {
						p.say(tt.message)
					}
					synctest.Wait()
					early := p.messages()
					close(gate)
					synctest.Wait()
					late := p.messages()
					var want []string
					if with {
						want = []string{tt.want}
					}
					got, other := early, late
					if tt.late {
						got, other = late, early
					}
					if !slices.Equal(got, want) || len(other) > 0 {
						t.Errorf("extension %v: %q at once, %q later", with, early, late)
					}
					if fmt.Sprint(*handled) != "[block]" {
						t.Errorf("handled: %v", *handled)
					}
				})
			}
		})
	}
}

// TestHeartbeatsInData checks that a message which only mentions a heartbeat is handled like any
// other.
func TestHeartbeatsInData(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var events []string
		b := newFixture(session.LobbyConfig{}, session.Callbacks{
			Message: func(_ context.Context, _ *session.Session, e protocol.Envelope, _ *session.Request) error {
				events = append(events, e.Event+string(e.Data))
				return nil
			},
		})
		defer b.close()
		p := b.extended("")
		p.say(`{"event":"say","data":"heartbeat"}`)
		p.say(`{"event":"heartbeat","event":"last"}`)
		p.say(`"heartbeat"`)
		p.say(`{"event":"heartbeat"`)
		synctest.Wait()
		if want := `[say"heartbeat" last]`; fmt.Sprint(events) != want {
			t.Errorf("handled %v", events)
		}
		if got := p.messages(); len(got) != 1 || !strings.Contains(got[0], "Invalid message format") {
			t.Errorf("sent %q", got)
		}
		if n := b.env.Stats.BadMessages.Load(); n != 2 {
			t.Errorf("%d bad messages", n)
		}
	})
}

// TestHeartbeatFlood checks that the answers to one read are bounded, with and without ids, that a
// few heartbeats are all answered, and that a client that does not read gets no more answers.
func TestHeartbeatFlood(t *testing.T) {
	t.Parallel()
	for _, message := range []string{`{"event":"heartbeat"}`, `{"event":"heartbeat","id":1}`} {
		synctest.Test(t, func(t *testing.T) {
			b := newFixture(session.LobbyConfig{}, session.Callbacks{})
			defer b.close()
			p := b.extended("")
			frame := ws.AppendMaskedFrame(nil, ws.OpText, false, []byte(message))
			replies := func(n int) int {
				p.Data(bytes.Repeat(frame, n), 0)
				synctest.Wait()
				return len(p.messages())
			}
			for _, n := range []int{1, 10, 1} {
				if got := replies(n); got != n {
					t.Errorf("%d replies to %d heartbeats", got, n)
				}
			}
			if n := replies(3000); n < 10 || n > 100 {
				t.Errorf("%d replies to a flood", n)
			}
			if n := replies(1); n != 1 {
				t.Errorf("%d replies after a flood", n)
			}
			p.mu.Lock()
			p.buffered = 10_000
			p.mu.Unlock()
			if n := replies(1); n != 0 {
				t.Errorf("%d replies to a client that does not read", n)
			}
			if n := b.env.Stats.MessagesIn.Load(); n != 1+1+10+1+3000+1+1 {
				t.Errorf("%d messages counted", n)
			}
		})
	}
}

// TestHeartbeatRepliesAreSealed checks that an encrypted client gets encrypted answers to plain
// and to encrypted heartbeats, even where it must encrypt everything else.
func TestHeartbeatRepliesAreSealed(t *testing.T) {
	t.Parallel()
	key, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	var keys *seal.Keys
	b := newFixture(session.LobbyConfig{}, session.Callbacks{
		Handshake: func(context.Context, *session.Session, session.Identity, []byte) (*seal.Keys, error) {
			keys, err = session.AgreeOnKeys([]byte(`{"publicKey":"` + key.PublicKey().String() + `"}`))
			return keys, err
		},
	})
	defer b.close()
	b.env.Encryption.Only = true
	p := b.open("10.0.0.1")
	p.say(`{"event":"authenticate","hearth":{"version":1}}`)
	await(t, func() bool { return len(p.messages()) == 1 }) // connected
	sealed, err := keys.Cipher.AppendEnvelope(nil, []byte(`{"event":"heartbeat","id":"b"}`))
	if err != nil {
		t.Fatal(err)
	}
	p.say(`{"event":"heartbeat","id":"a"}`)
	p.say(string(sealed))
	var got []string
	await(t, func() bool { got = append(got, p.messages()...); return len(got) == 2 })
	for i, want := range []string{`{"event":"heartbeat","id":"a"}`, `{"event":"heartbeat","id":"b"}`} {
		e, err := protocol.ParseEnvelope([]byte(got[i]))
		if err != nil || e.Event != "encrypted" {
			t.Fatalf("got %s (%v)", got[i], err)
		}
		if text, err := keys.Cipher.OpenData(nil, e.Data); string(text) != want {
			t.Errorf("got %s (%v), want %s", text, err, want)
		}
	}
}
