package session_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/workpool"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// TestLoopEndsBeforeRunDeferred checks that messages which a loop has read in its last turn are
// handled after Kick.
func TestLoopEndsBeforeRunDeferred(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		handled := 0
		b := newFixture(session.LobbyConfig{}, session.Callbacks{
			Message: func(context.Context, *session.Session, protocol.Envelope, *session.Request) error {
				handled++
				return nil
			},
		})
		p := &peer{}
		p.Session = session.Open(b.env, session.Opening{Conn: (*conn)(p), Lane: b.env.Hub.Lane(0), Looped: true})
		yielder := workpool.NewYielder()
		p.sendEvent("authenticate", nil)
		b.env.Pool.RunDeferred(yielder)
		synctest.Wait()
		p.Data(ws.AppendMaskedFrame(nil, ws.OpText, false, []byte(`{"event":"m"}`)), 0)
		p.Closed(transport.ErrClosed)
		synctest.Wait()
		if handled != 0 {
			t.Fatal("the message was handled before RunDeferred")
		}
		b.env.Pool.Kick()
		b.close()
		if handled != 1 {
			t.Errorf("%d messages were handled, want 1", handled)
		}
	})
}
