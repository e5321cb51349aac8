package node

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// TestResyncIsTriedAgain: a client that cannot be told of a loss because the send queue stays full is told when it has room.
func TestResyncIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{
			Transport: NetConn, Loops: 1, Log: slog.New(slog.DiscardHandler), Resync: true,
			Limits: session.Limits{UnauthenticatedPayload: 1024, UnauthenticatedMessages: 16, SendQueue: 64 << 10},
			Calls: session.Callbacks{Authenticate: func(context.Context, *session.Session, []byte) (session.Identity, error) {
				return session.Identity{User: "u"}, nil
			}},
			Timeouts: session.Timeouts{Auth: time.Hour},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer n.env.Lobby.Close()
		n.state = running
		s := session.Open(n.env, session.Opening{Conn: &discardConn{}, Lane: n.hub.Lane(0), ID: hub.ID(uuid.New())})
		s.Data(ws.AppendMaskedFrame(nil, ws.OpText, false, []byte(`{"event":"authenticate"}`)), 0)
		synctest.Wait()
		if s.State() != protocol.StateAuthenticated {
			t.Fatalf("the client is %v", s.State())
		}
		n.runLane()
		flood := Encode("flood", json.RawMessage(`"`+strings.Repeat("x", 64<<10)+`"`))
		for n.hub.Send(hub.Target{Kind: hub.All}, flood, nil) == nil {
		}
		n.reportLoss(broker.Loss{Since: time.Now(), Until: time.Now()})
		time.Sleep(5 * time.Minute) // the loop stands still
		if told := n.env.Stats.Resyncs.Load(); told != 0 {
			t.Fatalf("%d clients were told", told)
		}
		n.runLane()
		time.Sleep(resyncTimeout)
		n.runLane()
		if told := n.env.Stats.Resyncs.Load(); told != 1 {
			t.Errorf("%d clients were told", told)
		}
	})
}
