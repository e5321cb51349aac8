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

// TestResyncRetry: a resync that does not fit into the full send queue is sent once it fits.
func TestResyncRetry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{
			Transport: NetConn, Loops: 1, Log: slog.New(slog.DiscardHandler), Resync: true,
			Limits: session.Limits{UnauthenticatedPayload: 1024, UnauthenticatedMessages: 16, SendQueue: 64 << 10},
			Calls: session.Callbacks{Authenticate: func(context.Context, *session.Session, session.AuthRequest) (session.Identity, error) {
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
		n.losses.report(broker.Loss{Since: time.Now(), Until: time.Now()})
		time.Sleep(5 * time.Minute) // the loop does not run
		if sent := n.env.Stats.Resyncs.Load(); sent != 0 {
			t.Fatalf("%d clients got resync", sent)
		}
		n.runLane()
		time.Sleep(resyncTimeout)
		n.runLane()
		if sent := n.env.Stats.Resyncs.Load(); sent != 1 {
			t.Errorf("%d clients got resync", sent)
		}
	})
}
