package session_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hearthws/hearth/internal/clock"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/session"
	"github.com/hearthws/hearth/internal/transport"
	"github.com/hearthws/hearth/internal/workpool"
	"github.com/hearthws/hearth/internal/ws"
	"github.com/hearthws/hearth/protocol"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fixture has what sessions need, without sockets and loops: sent messages stay in the lane.
type fixture struct {
	env *session.Env
	ids int
	all []*peer
}

func newFixture(lobby session.LobbyConfig, calls session.Callbacks) *fixture {
	if calls.Authenticate == nil {
		calls.Authenticate = func(context.Context, *session.Session, session.AuthRequest) (session.Identity, error) {
			return session.Identity{User: "u"}, nil
		}
	}
	if lobby.AuthTimeout == 0 {
		lobby.AuthTimeout = 5 * time.Second
	}
	lobby.Clock = clock.New()
	return &fixture{env: &session.Env{
		Base: context.Background(), Hub: hub.New(hub.Config{Lanes: 1, Wake: func(int) {}}), Pool: &workpool.Pool{},
		Lobby: session.NewLobby(lobby), Clock: lobby.Clock, Calls: calls, Log: slog.New(slog.DiscardHandler), Stats: &session.Stats{},
		Timeouts: session.Timeouts{Auth: lobby.AuthTimeout, ExpiryNotice: time.Minute},
		Limits:   session.Limits{MaxPayload: 1 << 17, ClientQueue: 1 << 18, UnauthenticatedPayload: 1 << 14, UnauthenticatedMessages: 16},
	}}
}

// A peer is a session and its connection.
type peer struct {
	*session.Session
	addr netip.AddrPort
	lane *hub.Lane

	abandon func() // set by the tests that use it

	mu       sync.Mutex // guards the fields below
	out      []byte
	paused   bool
	aborted  bool
	buffered int
}

// idOf returns the id of the nth session of a fixture.
func idOf(n int) hub.ID {
	id := [16]byte{byte(n >> 8), byte(n)}
	protocol.StampClientID(&id)
	return id
}

// open opens a session for a client at addr.
func (b *fixture) open(addr string) *peer { return b.openWith(addr, false) }

// openWith is open for a client that accepts compressed messages, or does not.
func (b *fixture) openWith(addr string, deflate bool) *peer {
	b.ids++
	p := &peer{addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 1), lane: b.env.Hub.Lane(0)}
	p.Session = session.Open(b.env, session.Opening{Conn: (*conn)(p), Lane: p.lane, ID: idOf(b.ids), Remote: p.addr, Deflate: deflate})
	b.all = append(b.all, p)
	return p
}

// sendEvent makes the session read an event.
func (p *peer) sendEvent(event string, data any) {
	raw, _ := json.Marshal(map[string]any{"event": event, "data": data})
	p.Data(ws.AppendMaskedFrame(nil, ws.OpText, false, raw), 0)
}

// close ends all sessions like closed sockets, and waits for all goroutines.
func (b *fixture) close() {
	for _, p := range b.all {
		p.Closed(transport.ErrClosed)
	}
	b.env.Running.Wait()
	b.env.Pool.Wait()
	b.env.Lobby.Close()
}

// A conn is a peer as its own transport.Conn.
type conn peer

func (c *conn) Write(p []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, p...)
	return true
}

func (c *conn) WriteNow(p []byte) bool                { return c.Write(p) }
func (c *conn) CloseAfterFlush(p []byte)              { c.Write(p) }
func (c *conn) Recall(func([]byte, int) int) [][]byte { return nil }
func (c *conn) NotifyBelow(int) bool                  { return false }
func (c *conn) Closing() bool                         { return false }
func (c *conn) RemoteAddr() netip.AddrPort            { return c.addr }
func (c *conn) Loop() int                             { return 0 }
func (c *conn) Pause()                                { c.set(&c.paused, true) }
func (c *conn) Resume()                               { c.set(&c.paused, false) }
func (c *conn) Abort()                                { c.set(&c.aborted, true) }

func (c *conn) Buffered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buffered
}

func (c *conn) set(field *bool, v bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*field = v
}

func (p *peer) isAborted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.aborted
}

func (p *peer) isPaused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused
}
