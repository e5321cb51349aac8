package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
)

// discardMember is a member that discards its messages.
type discardMember struct{ hub.Member }

func (s *discardMember) Write([]byte) bool                     { return true }
func (s *discardMember) WriteNow([]byte) bool                  { return true }
func (s *discardMember) CloseAfterFlush([]byte)                {}
func (s *discardMember) Recall(func([]byte, int) int) [][]byte { return nil }
func (s *discardMember) NotifyBelow(int) bool                  { return false }
func (s *discardMember) Closing() bool                         { return false }
func (s *discardMember) Buffered() int                         { return 0 }
func (s *discardMember) Dropped(int) bool                      { return false }
func (s *discardMember) Unsealed(error)                        {}
func (s *discardMember) CloseDelayed()                         {}

// newIdle makes a node that is not running. The test runs its lane.
func newIdle(t interface {
	Fatal(args ...any)
	Cleanup(f func())
}) *Node {
	n, err := New(Config{
		Path: "/ws", Transport: NetConn, Loops: 1, Log: slog.New(slog.DiscardHandler),
		Upgrade:      Upgrade{CheckOrigin: func(*http.Request) bool { return true }},
		DefaultRooms: protocol.DefaultRooms(), Limits: session.Limits{UnauthenticatedPayload: 1024, UnauthenticatedMessages: 16},
		Calls: session.Callbacks{Authenticate: func(context.Context, *session.Session, session.AuthRequest) (session.Identity, error) {
			return session.Identity{User: "u"}, nil
		}},
		Timeouts: session.Timeouts{Auth: time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.env.Lobby.Close)
	return n
}

// runLane runs the first lane until it has no work.
func (n *Node) runLane() {
	for n.hub.Lane(0).Tick() {
	}
}

// BenchmarkDeliver measures the delivery of a message of another node from the broker to the lane,
// for a room with members on this node and for one without.
func BenchmarkDeliver(b *testing.B) {
	for _, held := range []bool{true, false} {
		b.Run(fmt.Sprintf("held=%v", held), func(b *testing.B) {
			n := newIdle(b)
			for range 100 {
				s := &discardMember{}
				s.Init(hub.ID(uuid.New()), s, n.hub.Lane(0), nil)
				n.hub.Admit(&s.Member, hub.Admission{Rooms: []string{"here"}, Welcome: Encode("connected", nil)})
			}
			room := "elsewhere"
			if held {
				room = "here"
			}
			data := []byte(`"` + fmt.Sprintf("%0100d", 1) + `"`)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				n.deliver(protocol.Message{ServerID: "other", Type: protocol.TypeRoom, Target: room, Event: "message", Data: data})
				if i%256 == 0 {
					b.StopTimer()
					n.runLane()
					b.StartTimer()
				}
			}
		})
	}
}

// BenchmarkDeliverAll measures one of 64 messages of other nodes that arrive together, for a room
// with members on this node.
func BenchmarkDeliverAll(b *testing.B) {
	n := newIdle(b)
	for range 100 {
		s := &discardMember{}
		s.Init(hub.ID(uuid.New()), s, n.hub.Lane(0), nil)
		n.hub.Admit(&s.Member, hub.Admission{Rooms: []string{"here"}, Welcome: Encode("connected", nil)})
	}
	ms := make([]protocol.Message, 64)
	for i := range ms {
		ms[i] = protocol.Message{ServerID: "other", Type: protocol.TypeRoom, Target: "here", Event: "message",
			Data: []byte(`"` + fmt.Sprintf("%0100d", 1) + `"`)}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%64 > 0 {
			continue
		}
		n.deliverAll(ms)
		if i%256 == 0 {
			b.StopTimer()
			n.runLane()
			b.StartTimer()
		}
	}
}

// discardConn is a connection that discards its output.
type discardConn struct{ discardMember }

func (*discardConn) Abort()                     {}
func (*discardConn) Pause()                     {}
func (*discardConn) Resume()                    {}
func (*discardConn) RemoteAddr() netip.AddrPort { return netip.AddrPort{} }
func (*discardConn) Loop() int                  { return 0 }

// BenchmarkResync sends resync to 100,000 clients after a loss that may affect all channels. The
// clients are in the same rooms, or each is in one of its own too.
func BenchmarkResync(b *testing.B) {
	const clients = 100_000
	for _, own := range []bool{false, true} {
		b.Run(fmt.Sprintf("own=%v", own), func(b *testing.B) {
			n := newIdle(b)
			authenticate := ws.AppendMaskedFrame(nil, ws.OpText, false, []byte(`{"event":"authenticate"}`))
			for i := range clients {
				s := session.Open(n.env, session.Opening{Conn: &discardConn{}, Lane: n.hub.Lane(0), ID: hub.ID(uuid.New())})
				s.Data(append([]byte(nil), authenticate...), 0)
				for s.State() != protocol.StateAuthenticated {
					runtime.Gosched()
				}
				if own {
					_ = s.Join(context.Background(), fmt.Sprint("room", i))
				}
				n.runLane()
			}
			for b.Loop() {
				(&resyncer{env: n.env, tracks: func(string) bool { return false }}).resync(broker.Loss{Since: time.Now(), Until: time.Now()})
				b.StopTimer()
				n.runLane()
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/clients, "ns/client")
		})
	}
}
