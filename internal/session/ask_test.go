package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// TestPlainAnswerOfEncryptedClient checks that an encrypted client that must encrypt everything is
// closed for a plain answer, which does not count as an answer.
func TestPlainAnswerOfEncryptedClient(t *testing.T) {
	t.Parallel()
	key, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	results, release := make(chan error, 1), make(chan struct{})
	b := newFixture(session.LobbyConfig{}, session.Callbacks{
		Handshake: func(context.Context, *session.Session, session.Identity, []byte) (*seal.Keys, error) {
			return session.AgreeOnKeys([]byte(`{"publicKey":"` + key.PublicKey().String() + `"}`))
		},
		Connected: func(ctx context.Context, s *session.Session) { <-release },
	})
	defer b.close()
	b.env.Encryption.Only = true
	p := b.open("10.0.0.1")
	p.say(`{"event":"authenticate","hearth":{"version":1,"features":["ask"]}}`)
	await(t, func() bool { return p.State() == protocol.StateAuthenticated })
	go func() { // ends when the client is closed
		results <- session.Ask(context.Background(), []*session.Session{p.Session}, "sure", nil, func(a session.ClientAnswer) {
			results <- a.Err
		})
	}()
	await(t, p.HasTransient)
	p.say(`{"event":"hearth:answer","data":{"ask":1,"data":1}}`)
	close(release) // the worker handles the message
	if err := <-results; !errors.Is(err, hub.ErrNotMember) {
		t.Errorf("the answer counted: %v", err)
	}
	if err := <-results; err != nil {
		t.Error(err)
	}
	if n := b.env.Stats.PlaintextRejected.Load(); n != 1 {
		t.Errorf("%d clients were closed", n)
	}
}

// TestAnswersWithFullInbox checks that answers are found in an inbox that has made the server stop
// reading, that the server reads on afterwards, and that all other messages are handled in order.
func TestAnswersWithFullInbox(t *testing.T) {
	t.Parallel()
	var handled []string
	asked := make(chan struct{})
	done := make(chan error, 1)
	b := newFixture(session.LobbyConfig{}, session.Callbacks{
		Message: func(_ context.Context, s *session.Session, e protocol.Envelope, _ *session.Request) error {
			handled = append(handled, e.Event)
			if e.Event == "start" {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				close(asked)
				return session.Ask(ctx, []*session.Session{s}, "sure", nil, func(a session.ClientAnswer) { done <- a.Err })
			}
			return nil
		},
	})
	b.env.Limits.ClientQueue = 4000
	p := b.open("10.0.0.1")
	p.say(`{"event":"authenticate","hearth":{"version":1,"features":["ask"]}}`)
	await(t, func() bool { return p.State() == protocol.StateAuthenticated })
	p.messages()
	p.say(`{"event":"start"}`)
	<-asked
	await(t, func() bool { return strings.Contains(strings.Join(p.messages(), ""), "hearth:ask") })
	want := "[start"
	for i := 0; !p.isPaused(); i++ {
		event := fmt.Sprint("m", i)
		want += " " + event
		if i == 20 {
			p.say(`{"event":"` + event + `","data":"` + strings.Repeat("x", 4000) + `"}`)
			break
		}
		p.say(`{"event":"` + event + `"}`)
	}
	if !p.isPaused() {
		t.Fatal("the inbox is not full")
	}
	p.say(`{"event":"hearth:answer","data":{"ask":1,"data":1}}`) // one more read may follow
	if err := <-done; err != nil {
		t.Error(err)
	}
	await(t, func() bool { return !p.isPaused() })
	p.say(`{"event":"last"}`)
	b.close()
	if got := fmt.Sprint(handled); got != want+" last]" {
		t.Errorf("handled %s, want %s last]", got, want)
	}
	if b.env.Stats.MessagesDiscarded.Load() != 0 || b.env.Stats.AnswersLate.Load() != 0 {
		t.Errorf("discarded %d, late %d", b.env.Stats.MessagesDiscarded.Load(), b.env.Stats.AnswersLate.Load())
	}
}
