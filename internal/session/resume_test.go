package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/history"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ticket"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// restore accepts every ticket.
func restore(_ context.Context, _ *session.Session, t *ticket.Ticket) (session.Identity, error) {
	return session.Identity{User: t.User}, nil
}

// newResumeFixture returns a fixture whose clients get tickets.
func newResumeFixture(t *testing.T, calls session.Callbacks) *fixture {
	t.Helper()
	if calls.Restore == nil {
		calls.Restore = restore
	}
	b := newFixture(session.LobbyConfig{}, calls)
	b.env.Tickets = newTickets(t)
	return b
}

// holder authenticates a client with these features, and returns it and its ticket.
func (b *fixture) holder(t *testing.T, features string) (p *peer, text string) {
	t.Helper()
	p = b.open("10.0.0.1")
	p.say(`{"event":"authenticate","hearth":{"version":1,"features":[` + features + `]}}`)
	synctest.Wait()
	return p, ticketIn(t, p.messages())
}

// ticketIn returns the last ticket in the messages.
func ticketIn(t *testing.T, messages []string) (text string) {
	t.Helper()
	for _, m := range messages {
		var e struct{ Data struct{ Ticket string } }
		if json.Unmarshal([]byte(m), &e) == nil && e.Data.Ticket != "" {
			text = e.Data.Ticket
		}
	}
	if text == "" {
		t.Fatalf("no ticket in %v", messages)
	}
	return text
}

// resume sends a ticket on a new connection.
func (b *fixture) resume(text, more string) *peer {
	p := b.open("10.0.0.2")
	p.say(fmt.Sprintf(`{"event":"authenticate","hearth":{"version":1,"features":["recovery","resume"],"ticket":%q%s}}`, text, more))
	synctest.Wait()
	return p
}

const ticketRejected = `{"event":"error","data":{"message":"Ticket rejected","code":"ticket_rejected"}}`

// TestResumeEndsEarly ends a connection while its ticket is decided about: by the client, by the
// deadline, and by a shutdown. The callback is cancelled, and the client is not admitted.
func TestResumeEndsEarly(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(b *fixture, p *peer){
		"by the client":   func(_ *fixture, p *peer) { p.PeerClosed() },
		"by the deadline": func(*fixture, *peer) { time.Sleep(5 * time.Second) },
		"by a shutdown":   func(_ *fixture, p *peer) { p.Shutdown(false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cancelled := make(chan error, 1)
				b := newResumeFixture(t, session.Callbacks{Restore: func(ctx context.Context, _ *session.Session, _ *ticket.Ticket) (session.Identity, error) {
					<-ctx.Done()
					cancelled <- ctx.Err()
					return session.Identity{}, nil
				}})
				defer b.close()
				old, text := b.holder(t, `"resume"`)
				p := b.resume(text, "")
				p.say(`{"event":"authenticate"}`)
				p.say(`{"event":"join","data":{"rooms":["a"]}}`)
				synctest.Wait()
				if got := strings.Join(p.messages(), " "); !strings.Contains(got, "Already authenticated") || !strings.Contains(got, "Not authenticated") {
					t.Errorf("meanwhile: %s", got)
				}
				end(b, p)
				if err := <-cancelled; !errors.Is(err, context.Canceled) {
					t.Errorf("the context ended with %v", err)
				}
				synctest.Wait()
				if p.State() != protocol.StateDisconnected || b.env.Stats.Tickets.Accepted.Load() != 0 || b.env.Hub.Count(hub.Target{Kind: hub.All}) != 1 {
					t.Errorf("the client is %v", p.State())
				}
				if p.ID() == old.ID() {
					t.Error("the client got the id of the ticket")
				}
			})
		})
	}
}

// TestResumeWaitsForCallbacks checks that a ticket is rejected if the callbacks for the last
// connection do not return in time, and not before.
func TestResumeWaitsForCallbacks(t *testing.T) {
	t.Parallel()
	for name, took := range map[string]time.Duration{"in time": 2 * time.Second, "too long": 4 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newResumeFixture(t, session.Callbacks{Disconnected: func(context.Context, *session.Session, int, string) { time.Sleep(took) }})
				defer b.close()
				old, text := b.holder(t, `"resume"`)
				old.PeerClosed()
				p := b.resume(text, "")
				if got := p.messages(); len(got) > 0 {
					t.Errorf("at once: %v", got)
				}
				time.Sleep(2900 * time.Millisecond)
				synctest.Wait()
				got := strings.Join(p.messages(), " ")
				if accepted := strings.Contains(got, `"resumed"`); accepted != (took < 3*time.Second) {
					t.Errorf("after 2.9 s: %s", got)
				}
				time.Sleep(200 * time.Millisecond) // the worker pool may take a moment to grow
				synctest.Wait()
				later := strings.Join(p.messages(), " ")
				if rejected := strings.Contains(later, ticketRejected); rejected != (took > 3*time.Second) {
					t.Errorf("after 3.1 s: %s", later)
				}
			})
		})
	}
}

// A fakeHistory has one result for each request, and a lock that no callback may need.
type fakeHistory struct {
	mu     sync.Mutex
	result history.Result
}

func (h *fakeHistory) Has(room string) bool { return room == "chat" }

func (h *fakeHistory) Join(_ context.Context, _ history.Limits, requests []history.Request, join func([]history.Result)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	results := make([]history.Result, len(requests))
	for i := range results {
		results[i] = h.result
	}
	join(results)
}

// TestResumeRecoveredFits checks that connected says how many messages follow, and that they
// follow, or that they cannot be recovered now because the send queue is full.
func TestResumeRecoveredFits(t *testing.T) {
	t.Parallel()
	for name, full := range map[string]bool{"they fit": false, "the queue is full": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newResumeFixture(t, session.Callbacks{})
				defer b.close()
				b.env.Hub = hub.New(hub.Config{Lanes: 1, Wake: func(int) {}, SendQueue: 64 << 10})
				at := protocol.Position{Offset: 2, Epoch: "e"}
				message := protocol.Message{Type: protocol.TypeRoom, Target: "chat", Event: "n", Data: []byte(`"` + strings.Repeat("x", 20<<10) + `"`), Position: at}
				b.env.History = &fakeHistory{result: history.Result{Position: at, Messages: []protocol.Message{message, message}}}
				b.env.DefaultRooms = []string{"chat", "other"}
				old, text := b.holder(t, `"recovery","resume"`)
				old.PeerClosed()
				synctest.Wait()
				if full {
					other := b.open("10.0.0.3")
					other.sendEvent("authenticate", nil)
					synctest.Wait()
					if err := other.Send(ws.NewMessage([]byte(strings.Repeat("y", 40<<10)))); err != nil {
						t.Fatal(err)
					}
				}
				got := b.resume(text, `,"positions":{"chat":{"offset":0,"epoch":"e"}}`).messages()
				want, follow := `{"room":"chat","offset":2,"epoch":"e","recovered":2}`, 2
				if full {
					want, follow = `{"room":"chat","offset":2,"epoch":"e","unrecovered":"unavailable"}`, 0
				}
				if len(got) != 2+follow || !strings.Contains(got[0], want) {
					t.Fatalf("%d messages, the first %.500s; want %s and %d more", len(got), got[0], want, follow)
				}
				for _, m := range got[1 : 1+follow] {
					if !strings.HasPrefix(m, `{"event":"n"`) || !strings.HasSuffix(m, `"room":"chat","offset":2,"epoch":"e"}`) {
						t.Errorf("got %.50s…", m)
					}
				}
				ticketIn(t, got[1+follow:])
			})
		})
	}
}
