package session_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// TestAnswerWithFullQueue checks that a reply that does not fit into the send queue does not count
// as the answer, and that the request is completed instead.
func TestAnswerWithFullQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var results []error
		b := newFixture(session.LobbyConfig{}, session.Callbacks{
			Message: func(_ context.Context, s *session.Session, _ protocol.Envelope, r *session.Request) error {
				results = append(results, s.Send(ws.NewMessage([]byte(`"first"`))), session.Answer(s, r, ws.NewMessage([]byte(`"reply"`))))
				return nil
			},
		})
		defer b.close()
		b.env.Hub = hub.New(hub.Config{Lanes: 1, Wake: func(int) {}, SendQueue: 1})
		p := b.extended("")
		p.say(`{"event":"m","id":1}`)
		synctest.Wait()
		if len(results) != 2 || results[0] != nil || !errors.Is(results[1], hub.ErrQueueFull) {
			t.Errorf("results: %v", results)
		}
		if got := p.messages(); !slices.Equal(got, []string{`"first"`, `{"event":"m","id":1}`}) {
			t.Errorf("sent %q", got)
		}
	})
}
