package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hearthws/hearth"
)

func TestUnauthenticatedMessages(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport, Limits: hearth.Limits{UnauthenticatedMessages: 3}})
		p := r.peer()
		for range 2 {
			p.say("hello", "1")
			p.wantsError("Not authenticated")
		}
		p.login("u")
		for range 10 { // no longer counted
			p.say("hello", "1")
		}
		eager := r.peer()
		for range 3 {
			eager.text("nonsense")
			eager.wantsError("Invalid message format")
		}
		eager.text(`{"event":"heartbeat"}`)
		eager.wantsClose(1008, "Too many messages before authentication")
		if s := r.Stats(); s.PreAuthFlood != 1 || s.Clients != 1 {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestUnauthenticatedPayload(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport, Message: func(_ context.Context, c *client, m hearth.Message) error {
			return c.Send("size", len(m.Data))
		}})
		p := r.peer()
		p.say("authenticate", `{"name":"`+repeat("x", 16384-45)+`"}`)
		p.welcome()
		p.say("m", `"`+repeat("x", 131072-24)+`"`)
		p.wants(fmt.Sprintf(`{"event":"size","data":%d}`, 131072-22))
		p.say("m", `"`+repeat("x", 131072-23)+`x"`)
		p.wantsClose(1009, "message too big")
		large := r.peer()
		large.text(repeat("x", 16385))
		large.wantsClose(1009, "message too big")
		// Fragments count together: each of these is small enough.
		parts := r.raw()
		must(t, parts.frame(opText, []byte(repeat("x", 10000))))
		must(t, parts.frame(0x80|opContinuation, []byte(repeat("x", 10000))))
		newPeer(t, parts).wantsClose(1009, "message too big")
	})
}

func TestMaxUnauthenticated(t *testing.T) {
	t.Parallel()
	r := start(t, config{Limits: hearth.Limits{MaxUnauthenticated: 3}})
	r.member("not counted")
	a, b, c := r.peer(), r.peer(), r.peer()
	for _, p := range []*peer{a, b, c} { // all are connected, in this order
		p.say("x", "1")
		p.wantsError("Not authenticated")
	}
	a.login("a")
	d := r.peer()
	d.say("x", "1")
	d.wantsError("Not authenticated")
	e := r.peer()
	b.wantsClose(4001, "Authentication timeout")
	for i, p := range []*peer{c, d, e} {
		p.login(fmt.Sprint("last", i))
	}
	if s := r.Stats(); s.Evicted != 1 || s.Unauthenticated != 0 || s.Clients != 5 {
		t.Errorf("stats: %+v", s)
	}
}

// TestEvictedHandshakesAreAnswered checks that a client that is evicted at once receives the answer
// to its handshake first.
func TestEvictedHandshakesAreAnswered(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport, Limits: hearth.Limits{MaxUnauthenticatedPerAddr: 1}})
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() { // ends when its clients have been answered
				for range 50 {
					conn, err := r.dial()
					if err != nil {
						t.Error(err)
						return
					}
					w, err := upgrade(conn)
					if err != nil {
						t.Error(err)
						return
					}
					w.close()
				}
			})
		}
		clients.Wait()
	})
}

func TestMaxUnauthenticatedPerAddr(t *testing.T) {
	t.Parallel()
	var next atomic.Value
	r := start(t, config{
		Limits:  hearth.Limits{MaxUnauthenticatedPerAddr: 2},
		Upgrade: hearth.Upgrade{ClientAddr: func(*http.Request) netip.Addr { return next.Load().(netip.Addr) }},
	})
	from := func(addr string) *peer {
		next.Store(netip.MustParseAddr(addr))
		p := r.peer()
		p.say("x", "1")
		p.wantsError("Not authenticated")
		return p
	}
	a1, b1, six1 := from("10.0.0.1"), from("10.0.0.2"), from("2001:db8::1")
	a2, mapped2 := from("10.0.0.1"), from("::ffff:10.0.0.2")
	six2 := from("2001:db8::ffff") // the same /64
	a3 := from("10.0.0.1")
	a1.wantsClose(4001, "Authentication timeout")
	six3 := from("2001:db8:0:0:1::")
	six1.wantsClose(4001, "Authentication timeout")
	other := from("2001:db8:0:1::1")
	b3 := from("10.0.0.2")
	b1.wantsClose(4001, "Authentication timeout")
	a2.login("a")
	a4 := from("10.0.0.1") // takes the place of the authenticated client
	for _, p := range []*peer{mapped2, six2, a3, six3, other, b3, a4} {
		p.login("u")
	}
	if addr := r.client(a4).RemoteAddr(); addr != netip.MustParseAddrPort("10.0.0.1:0") {
		t.Errorf("address %v", addr)
	}
}

func TestRemoteAddr(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		seen := make(chan netip.AddrPort, 1)
		r := start(t, config{
			Transport: transport,
			// the address is not known
			Upgrade: hearth.Upgrade{ClientAddr: func(*http.Request) netip.Addr { return netip.Addr{} }},
			Authenticate: func(ctx context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
				seen <- req.RemoteAddr
				return accept(ctx, req)
			},
		})
		p := r.member("u")
		local := p.wire.(*rawWire).conn.LocalAddr().String()
		if got := <-seen; got.String() != local || r.client(p).RemoteAddr() != got {
			t.Errorf("address %v, %v, want %v", got, r.client(p).RemoteAddr(), local)
		}
	})
}

// textMany sends messages with size bytes of data and the ids 0 to messages-1.
func (p *peer) textMany(messages, size int) {
	for i := range messages {
		p.text(fmt.Sprintf(`{"event":"m","id":%d,"data":"%s"}`, i, repeat("x", size)))
	}
}

// receiveInOrder returns a callback that waits until release is closed, and then checks that the
// messages have the ids 0 to messages-1. It closes all after the last one. If check is not nil,
// each call passes it the number of messages before.
func receiveInOrder(t *testing.T, messages int, release <-chan struct{}, check func(handled int)) (
	callback func(context.Context, *client, hearth.Message) error, all <-chan struct{},
) {
	done, handled := make(chan struct{}), 0
	return func(_ context.Context, _ *client, m hearth.Message) error {
		<-release
		if check != nil {
			check(handled)
		}
		var id int
		if err := json.Unmarshal(m.ID, &id); err != nil || id != handled {
			t.Errorf("message %s, want %d", m.ID, handled)
		}
		if handled++; handled == messages {
			close(done)
		}
		return nil
	}, done
}

// TestClientQueue checks that the server stops reading from a client whose callback does not return
// once the bound is reached, and loses no message.
func TestClientQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const messages, size, bound = 2000, 100, 4096
		release := make(chan struct{})
		receive, all := receiveInOrder(t, messages, release, nil)
		r := startPiped(t, config{Limits: hearth.Limits{ClientQueue: bound}, Message: receive})
		p := r.member("u")
		go p.textMany(messages, size) // ends when the server has read everything
		synctest.Wait()
		if n := r.Stats().MessagesIn; n < 10 || n > bound/size+2 {
			t.Errorf("%d messages were read", n)
		}
		close(release)
		<-all
	})
}

// TestClientQueueOverTCP is TestClientQueue with the buffers of the kernel.
func TestClientQueueOverTCP(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		const messages, size, bound = 4000, 4000, 64 << 10
		// the bound, and what was read together with the message that exceeded it
		const most = (bound + 256<<10) / size
		release := make(chan struct{})
		var r *rig
		receive, all := receiveInOrder(t, messages, release, func(handled int) {
			if n := int(r.Stats().MessagesIn) - handled; n > most {
				t.Errorf("%d messages are waiting", n)
			}
		})
		r = start(t, config{Transport: transport, Limits: hearth.Limits{ClientQueue: bound}, Message: receive})
		p := r.member("u")
		go p.textMany(messages, size)           // ends when the server has read everything
		for r.Stats().MessagesIn < bound/size { // the client is paused soon after
			runtime.Gosched()
		}
		close(release)
		<-all
	})
}

// TestJoinPastMaxRoomsIsCounted checks that rooms beyond the limit of a join are counted as
// rejected.
func TestJoinPastMaxRoomsIsCounted(t *testing.T) {
	t.Parallel()
	r := start(t, config{
		DefaultRooms: []string{}, Limits: hearth.Limits{MaxRooms: 2},
		ValidateRooms: func(_ context.Context, _ *client, rooms []string) ([]string, error) { return rooms, nil },
		Message:       func(_ context.Context, c *client, m hearth.Message) error { return c.Send(m.Event, len(c.Rooms())) },
	})
	p := r.member("u")
	p.say("join", `{"rooms":["a","b","c","d"]}`)
	p.say("rooms", `null`)
	p.wants(`{"event":"rooms","data":3}`) // its own room, a and b
	if n := r.Stats().RoomsRejected; n != 2 {
		t.Errorf("%d rooms were rejected, want 2", n)
	}
}
