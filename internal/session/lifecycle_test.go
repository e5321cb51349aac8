package session_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// TestAdmittedLeavesLobby checks that a client does not count for the lobby from the moment at
// which `connected` may be sent: it takes no place, and is not closed to make room or at a
// deadline. A shutdown finds it nevertheless.
func TestAdmittedLeavesLobby(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(session.LobbyConfig{MaxUnauthenticated: 1, MaxUnauthenticatedPerAddr: 1}, session.Callbacks{})
		sent := 0
		b.env.Hub = hub.New(hub.Config{Lanes: 1, Wake: func(int) {
			// The loop could send connected now.
			sent++
			if n := b.env.Lobby.Count(); n != 0 {
				t.Errorf("%d clients in the lobby", n)
			}
			if n := b.env.Stats.Authenticated.Load(); n != 1 {
				t.Errorf("%d clients have authenticated", n)
			}
			if all := b.env.Lobby.Sessions(); len(all) != 1 || all[0] != b.all[0].Session {
				t.Errorf("the lobby lists %v", all)
			}
		}})
		p := b.open("10.0.0.1")
		p.sendEvent("authenticate", nil)
		synctest.Wait()
		if sent != 1 || len(b.env.Lobby.Sessions()) != 0 {
			t.Errorf("%d messages, %d clients left in the lobby", sent, len(b.env.Lobby.Sessions()))
		}
		next := b.open("10.0.0.1")
		time.Sleep(4 * time.Second)
		if p.State() != protocol.StateAuthenticated || next.State() != protocol.StateUnauthorized {
			t.Errorf("the first is %v, the next %v", p.State(), next.State())
		}
		b.close()
	})
}

// TestHandshakeAnswerFirst checks that the answer to the handshake is queued before the lobby can
// close the client, so that no frame is sent before it.
func TestHandshakeAnswerFirst(t *testing.T) {
	t.Parallel()
	b := newFixture(session.LobbyConfig{}, session.Callbacks{})
	answered := false
	b.env.Hub = hub.New(hub.Config{Lanes: 1, Wake: func(int) {
		if answered = true; b.env.Lobby.Count() != 0 {
			t.Error("the client is in the lobby before the answer is queued")
		}
	}})
	p := &peer{lane: b.env.Hub.Lane(0)}
	p.Session = session.Open(b.env, session.Opening{Conn: (*conn)(p), Lane: p.lane, Answer: []byte("HTTP/1.1 101")})
	b.all = append(b.all, p)
	if p.lane.Tick(); !answered || string(p.out) != "HTTP/1.1 101" || b.env.Lobby.Count() != 1 {
		t.Errorf("sent %q, %d clients in the lobby", p.out, b.env.Lobby.Count())
	}
	b.close()
}

// TestCountedBeforeClose checks that a close is counted before the close frame can be sent.
func TestCountedBeforeClose(t *testing.T) {
	t.Parallel()
	for reason, tt := range map[string]struct {
		counter func(*session.Stats) uint64
		provoke func(p *peer)
	}{
		"flood": {func(s *session.Stats) uint64 { return s.PreAuthFlood.Load() }, func(p *peer) {
			for range 17 {
				p.sendEvent("heartbeat", nil)
			}
		}},
		"too slow": {func(s *session.Stats) uint64 { return s.SlowClosed.Load() }, func(p *peer) {
			p.authenticated()
			p.Owner().Dropped(1)
		}},
		"plaintext": {func(s *session.Stats) uint64 { return s.PlaintextRejected.Load() }, func(p *peer) {
			p.authenticated()
			p.sendEvent("m", nil)
		}},
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newFixture(session.LobbyConfig{}, session.Callbacks{
					Handshake: func(context.Context, *session.Session, session.Identity, []byte) (*seal.Keys, error) {
						return session.AgreeOnKeys([]byte(`{"publicKey":"` + ownKey(t) + `"}`))
					},
				})
				b.env.Limits.CloseOnBackpressure, b.env.Encryption.Only = true, true
				var p *peer
				closed := 0
				b.env.Hub = hub.New(hub.Config{Lanes: 1, Wake: func(int) {
					// The loop could send the close frame now.
					if p.State() != protocol.StateDisconnected {
						return
					}
					if closed++; tt.counter(b.env.Stats) != 1 {
						t.Errorf("counted %d times", tt.counter(b.env.Stats))
					}
				}})
				p = b.open("10.0.0.1")
				tt.provoke(p)
				synctest.Wait()
				if closed != 1 {
					t.Errorf("closed %d times", closed)
				}
				b.close()
			})
		})
	}
}

// authenticated authenticates p and sends its messages, in a synctest bubble.
func (p *peer) authenticated() {
	p.sendEvent("authenticate", nil)
	synctest.Wait()
	p.lane.Tick()
}
