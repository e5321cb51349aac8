package session_test

import (
	"context"
	"log/slog"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/workpool"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// A sink is a connection that sends everything at once.
type sink struct{ frames int }

func (c *sink) Write([]byte) bool                     { c.frames++; return true }
func (c *sink) WriteNow([]byte) bool                  { c.frames++; return true }
func (c *sink) CloseAfterFlush([]byte)                {}
func (c *sink) Recall(func([]byte, int) int) [][]byte { return nil }
func (c *sink) Abort()                                {}
func (c *sink) Pause()                                {}
func (c *sink) Resume()                               {}
func (c *sink) NotifyBelow(int) bool                  { return false }
func (c *sink) Closing() bool                         { return false }
func (c *sink) Buffered() int                         { return 0 }
func (c *sink) RemoteAddr() netip.AddrPort            { return netip.AddrPort{} }
func (c *sink) Loop() int                             { return 0 }

// BenchmarkEcho measures the whole path of a message without the system calls: from the bytes of
// the socket, through the pool and the callback, to the frame for the socket. The loop reads from
// 16 clients in each turn.
func BenchmarkEcho(b *testing.B) {
	const clients = 16
	h := hub.New(hub.Config{Lanes: 1, Wake: func(int) {}})
	clk := clock.New()
	env := &session.Env{
		Base: context.Background(), Hub: h, Pool: &workpool.Pool{}, Stats: &session.Stats{}, Log: slog.New(slog.DiscardHandler),
		Lobby: session.NewLobby(session.LobbyConfig{AuthTimeout: time.Hour, Clock: clk}), Clock: clk,
		Limits: session.Limits{MaxPayload: 1 << 16, ClientQueue: 1 << 18, UnauthenticatedPayload: 1 << 14, UnauthenticatedMessages: 16},
	}
	env.Calls.Authenticate = func(context.Context, *session.Session, session.AuthRequest) (session.Identity, error) {
		return session.Identity{}, nil
	}
	env.Calls.Message = func(_ context.Context, s *session.Session, e protocol.Envelope, _ *session.Request) error {
		msg, err := ws.BuildMessage(64, func(dst []byte) ([]byte, error) {
			return protocol.AppendEvent(dst, e.Event, e.Data), nil
		})
		if err != nil {
			return err
		}
		return s.Send(msg)
	}
	yielder, lane := workpool.NewYielder(), h.Lane(0)
	var conns [clients]sink
	var sessions [clients]*session.Session
	for i := range sessions {
		sessions[i] = session.Open(env, session.Opening{Conn: &conns[i], Lane: lane, Looped: true, ID: hub.ID{byte(i)}})
		sessions[i].Data(frame(`{"event":"authenticate","data":{"token":"t"}}`), 0)
	}
	env.Pool.RunDeferred(yielder)
	for _, s := range sessions {
		for s.State() != protocol.StateAuthenticated {
			runtime.Gosched()
		}
	}
	lane.Tick()
	echo := frame(`{"event":"e","data":{"i":12345}}`)
	buf := make([]byte, len(echo))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		copy(buf, echo) // Data unmasks in place
		sessions[i%clients].Data(buf, 0)
		if i%clients == clients-1 {
			env.Pool.RunDeferred(yielder)
			lane.Tick()
		}
	}
	env.Pool.RunDeferred(yielder)
	env.Lobby.Close()
}

func frame(payload string) []byte {
	return ws.AppendMaskedFrame(nil, ws.OpText, false, []byte(payload))
}

var _ transport.Conn = (*sink)(nil)

// BenchmarkJoin measures a join and a leave, with and without their callbacks.
func BenchmarkJoin(b *testing.B) {
	note := func(context.Context, *session.Session, string) {}
	for name, calls := range map[string]session.Callbacks{"silent": {}, "reported": {Joined: note, Left: note}} {
		b.Run(name, func(b *testing.B) {
			s := newFixture(session.LobbyConfig{}, calls)
			defer s.close()
			p := s.member()
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Join(b.Context(), "room"); err != nil {
					b.Fatal(err)
				}
				p.Leave("room")
			}
		})
	}
}
