package session_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/history"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ticket"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// say makes the session read a message.
func (p *peer) say(message string) {
	p.Data(ws.AppendMaskedFrame(nil, ws.OpText, false, []byte(message)), 0)
}

// messages returns the messages that were sent to the client since the last call.
func (p *peer) messages() (all []string) {
	p.lane.Tick()
	p.mu.Lock()
	defer p.mu.Unlock()
	end := ws.NewEndpoint(ws.Client, 1<<30, false)
	if err := end.Feed(p.out, collector{&all}); err != nil {
		all = append(all, err.Error())
	}
	p.out = nil
	return all
}

// A collector is a ws.Handler that collects messages.
type collector struct{ messages *[]string }

func (c collector) Message(_ ws.Opcode, payload []byte) {
	*c.messages = append(*c.messages, string(payload))
}
func (collector) Ping([]byte)       {}
func (collector) Pong([]byte)       {}
func (collector) Close(int, string) {}

// extended opens a session of a client that requests the extension with these features, and
// authenticates it, in a synctest bubble.
func (b *fixture) extended(features string) *peer {
	p := b.open("10.0.0.1")
	p.say(`{"event":"authenticate","hearth":{"version":1,"features":[` + features + `]}}`)
	synctest.Wait()
	p.messages()
	return p
}

// newTickets returns tickets of a server that is alone.
func newTickets(t *testing.T) *session.Tickets {
	t.Helper()
	sealer, err := ticket.NewSealer(nil, time.Minute, 8<<10)
	if err != nil {
		t.Fatal(err)
	}
	tickets := &session.Tickets{Sealer: sealer, Register: ticket.NewRegister(time.Minute, 100, 100), Lifetime: time.Minute, Clock: clock.New()}
	tickets.Claim = func(_ context.Context, tk *ticket.Ticket) error {
		_, err := tickets.Claimed(tk)
		return err
	}
	return tickets
}

// TestNegotiation checks which extension is granted for which request.
func TestNegotiation(t *testing.T) {
	t.Parallel()
	const basic = `,"heartbeat":{"interval":25000,"timeout":10000},"limits":{"message":131072}}`
	for name, tt := range map[string]struct {
		request          string // the member hearth
		recovery, resume bool   // what the server has
		change           func(*session.Env)
		want             string // the same member of connected
		positions        bool
	}{
		"none":        {request: ``},
		"not valid":   {request: `,"hearth":{"version":0}`},
		"base":        {request: `,"hearth":{"version":1}`, want: `,"hearth":{"version":1,"features":[]` + basic},
		"later":       {request: `,"hearth":{"version":9,"features":["new"]}`, want: `,"hearth":{"version":1,"features":[]` + basic},
		"unavailable": {request: `,"hearth":{"version":1,"features":["recovery","resume"]}`, want: `,"hearth":{"version":1,"features":[]` + basic},
		"all": {
			request: `,"hearth":{"version":1,"features":["resume","recovery"]}`, recovery: true, resume: true,
			want: `,"hearth":{"version":1,"features":["recovery","resume"]` + basic, positions: true,
		},
		"one": {
			request: `,"hearth":{"version":1,"features":["resume"]}`, recovery: true, resume: true,
			want: `,"hearth":{"version":1,"features":["resume"]` + basic,
		},
		"available and not requested": {request: `,"hearth":{"version":1}`, recovery: true, resume: true, want: `,"hearth":{"version":1,"features":[]` + basic},
		"limits": {
			request: `,"hearth":{"version":1}`,
			change: func(e *session.Env) {
				e.Limits.MaxPayload, e.Limits.MaxRooms, e.Timeouts.Heartbeat = 1000, 7, 30*time.Second
			},
			want: `,"hearth":{"version":1,"features":[],"heartbeat":{"interval":10000,"timeout":10000},"limits":{"message":1000,"rooms":7}}`,
		},
		"shortest timeout": {
			request: `,"hearth":{"version":1}`,
			change:  func(e *session.Env) { e.Timeouts.Heartbeat = time.Millisecond },
			want:    `,"hearth":{"version":1,"features":[],"heartbeat":{"interval":1,"timeout":10000},"limits":{"message":131072}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, encrypted := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					calls := session.Callbacks{}
					if encrypted {
						calls.Handshake = func(context.Context, *session.Session, session.Identity, []byte) (*seal.Keys, error) {
							return session.AgreeOnKeys([]byte(`{"publicKey":"` + ownKey(t) + `"}`))
						}
					}
					b := newFixture(session.LobbyConfig{}, calls)
					defer b.close()
					if tt.resume {
						b.env.Tickets = newTickets(t)
					}
					if tt.recovery {
						b.env.History = history.New(history.Config{})
					}
					if tt.change != nil {
						tt.change(b.env)
					}
					p := b.open("10.0.0.1")
					p.say(`{"event":"authenticate","data":{}` + tt.request + `}`)
					synctest.Wait()
					got := p.messages()[0]
					_, granted, _ := strings.Cut(got, `,"hearth":`)
					if granted != "" {
						granted = `,"hearth":` + strings.TrimSuffix(granted, "}")
					}
					connected, err := protocol.ParseEnvelope([]byte(got))
					if err != nil || connected.Event != "connected" || granted != tt.want {
						t.Errorf("encrypted %v: got %s (%v)\nwant the member %s", encrypted, got, err, tt.want)
					}
					if m := b.env.Hub.Client(p.ID()); m.Positions != tt.positions || m.Encrypted() != encrypted {
						t.Errorf("positions %v, encrypted %v", m.Positions, m.Encrypted())
					}
				})
			}
		})
	}
}

// TestRecoveringClientIsClosed checks that a client with recovery is closed when messages for it
// are dropped, and not a client without.
func TestRecoveringClientIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(session.LobbyConfig{}, session.Callbacks{})
		defer b.close()
		b.env.History = history.New(history.Config{})
		with, without := b.extended(`"recovery"`), b.extended("")
		if !with.Owner().Dropped(1) || without.Owner().Dropped(1) {
			t.Error("closed the wrong client")
		}
		if s := with.State(); s != protocol.StateDisconnected || b.env.Stats.SlowClosed.Load() != 1 {
			t.Errorf("the client with recovery is %v", s)
		}
	})
}
