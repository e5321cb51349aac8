package e2e_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hearthws/hearth"
)

// stormTime returns how long each storm lasts. Set HEARTH_STORM, for example to 30s, for a longer
// run.
func stormTime() time.Duration {
	d, err := time.ParseDuration(os.Getenv("HEARTH_STORM"))
	if err == nil {
		return d
	}
	if testing.Short() {
		return 100 * time.Millisecond
	}
	return 700 * time.Millisecond
}

// storm runs everything at once: clients that connect, misbehave and disconnect, callbacks that
// call every method and fail in every way, and senders. It checks only that well-behaved clients
// receive their messages in order, and that no state is left.
type storm struct {
	*rig
	ctx context.Context
	ids sync.Map // of clients, by number
	n   atomic.Int64
}

// act calls a random method of the public API.
func (s *storm) act(rnd *rand.Rand, c *client) error {
	any := func() string {
		if id, ok := s.ids.Load(rnd.Int64N(s.n.Load() + 1)); ok {
			return id.(string)
		}
		return "none"
	}
	room, user := fmt.Sprint("r", rnd.IntN(5)), fmt.Sprint("u", rnd.IntN(5))
	soon, cancel := context.WithTimeout(s.ctx, time.Millisecond)
	defer cancel()
	var err error
	switch rnd.IntN(18) {
	case 0:
		err = s.Local().Send(s.ctx, hearth.ToClient(any()), "x", 1)
	case 1:
		err = s.Local().Send(s.ctx, hearth.ToUser(user), "x", repeat("x", rnd.IntN(3000)))
	case 2:
		err = s.Local().Send(s.ctx, hearth.ToRoom(room).Except(any(), any()), "x", 1)
	case 3:
		err = s.Local().Send(s.ctx, hearth.ToAll().Except(any()), "x", rnd.IntN(9))
	case 4:
		err = s.Send(soon, hearth.ToRoom(room).Except(any()), "x", nil)
	case 5:
		err = s.Send(soon, s.Destination(any()), "x", 2)
	case 6, 7:
		err = joinRoom(soon, s, any(), room, "all")
	case 8:
		err = leaveRoom(s, any(), room)
	case 9:
		if rnd.IntN(10) == 0 {
			err = disconnect(s, any(), 4321, "storm")
		}
	case 10:
		_ = s.Local().WaitPending(soon, hearth.ToRoom(room), rnd.IntN(1000))
	case 11:
		for _, c := range s.Local().Clients(hearth.ToAll()) {
			_, _, _, _ = c.Rooms(), c.State(), c.Backpressured(), c.Metadata()
			if rnd.IntN(4) == 0 {
				break
			}
		}
	case 12:
		_, _, _ = s.Stats(), s.Local().Rooms(), s.Local().Count(hearth.ToUser(user))
	case 13:
		for _, c := range s.Local().Clients(hearth.ToRoom(room)) {
			_ = c.Send("x", 3)
		}
	case 14:
		if c != nil && rnd.IntN(8) == 0 {
			panic("storm")
		}
	case 15:
		if c != nil && rnd.IntN(8) == 0 {
			runtime.Goexit()
		}
	case 16:
		if c != nil {
			<-soon.Done()
			err = c.Join(soon, room)
			c.Leave(room)
		}
	case 17:
		err = errors.New("storm")
	}
	if c == nil && err != nil && !errors.Is(err, hearth.ErrNotConnected) && !errors.Is(err, hearth.ErrQueueFull) && !errors.Is(err, hearth.ErrTooManyRooms) && err.Error() != "storm" {
		s.t.Errorf("unexpected: %v", err)
	}
	return err
}

// visit is one connection of a client that breaks the rules at random.
func (s *storm) visit(rnd *rand.Rand) {
	conn, err := s.dial()
	if err != nil {
		return // the server is shutting down
	}
	defer conn.Close()
	w, err := upgrade(conn)
	if err != nil {
		return
	}
	if rnd.IntN(10) > 0 {
		_ = w.send(opText, fmt.Appendf(nil, `{"event":"authenticate","data":{"as":"u%d"}}`, rnd.IntN(5)))
		if rnd.IntN(10) > 0 {
			_, _, _ = w.recv()
		}
	}
	if rnd.IntN(4) > 0 {
		go func() { // ends with the connection
			for {
				if _, _, err := w.recv(); err != nil {
					return
				}
			}
		}()
	}
	for range rnd.IntN(60) {
		switch rnd.IntN(12) {
		case 0:
			err = w.send(opText, []byte("nonsense"))
		case 1:
			err = w.send(opPing, []byte("p"))
		case 2:
			err = w.frame(opText, []byte(`{"event":`))
			_ = w.send(opPing, nil)
			_ = w.frame(0x80|opContinuation, []byte(`"m"}`))
		case 3:
			err = w.send(opText, fmt.Appendf(nil, `{"event":"join","data":{"rooms":["r%d","all","no",7]}}`, rnd.IntN(5)))
		case 4:
			err = w.send(opText, fmt.Appendf(nil, `{"event":"leave","data":{"rooms":["r%d","ws-default"]}}`, rnd.IntN(5)))
		case 5:
			if rnd.IntN(20) == 0 {
				err = w.send(opClose, binary.BigEndian.AppendUint16(nil, 1000))
			}
		case 6:
			if rnd.IntN(20) == 0 {
				err = w.frame(0xFF, []byte("against every rule"))
			}
		default:
			err = w.send(opText, []byte(`{"event":"m","data":1}`))
		}
		if err != nil {
			return
		}
	}
}

// connectInTime connects and authenticates a client. It tries again if the machine was too busy to
// do so within the short AuthTimeout of the storm.
func (s *storm) connectInTime(user string) *peer {
	s.t.Helper()
	for range 50 {
		p := s.peer()
		p.say("authenticate", `{"as":"`+user+`"}`)
		r, ok := p.in.take(answer)
		if ok && r.code == 4001 {
			continue
		}
		if !ok || !strings.HasPrefix(r.text, `{"event":"connected"`) {
			s.t.Fatalf("got %v, want connected", r)
		}
		return p
	}
	s.t.Fatal("the authentication timed out each time")
	return nil
}

// witness connects a well-behaved client that checks the order of the published messages.
func (s *storm) witness() (watched chan struct{}) {
	p := s.connectInTime("witness")
	watched = make(chan struct{})
	go func() { // ends with the connection
		defer close(watched)
		last := -1
		for {
			r, ok := p.in.take(answer)
			if !ok {
				s.t.Error("no message arrived, and the connection did not end")
				return
			}
			if r.err != nil || r.code != 0 {
				return
			}
			var e struct {
				Event string
				Data  int
			}
			if json.Unmarshal([]byte(r.text), &e) == nil && e.Event == "number" {
				if e.Data <= last {
					s.t.Errorf("got number %d after %d", e.Data, last)
				}
				last = e.Data
			}
		}
	}()
	return watched
}

func TestStorm(t *testing.T) {
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		ctx, stop := context.WithTimeout(t.Context(), stormTime())
		defer stop()
		s := &storm{ctx: ctx}
		var ready atomic.Pointer[storm]
		var logs callbackLogs // of Joined and Left
		act := func(c *client) error {
			if s := ready.Load(); s != nil {
				return s.act(rand.New(rand.NewPCG(rand.Uint64(), 1)), c)
			}
			return nil
		}
		s.rig = start(t, config{
			Transport: transport, Loops: 4, Timeouts: hearth.Timeouts{Close: 200 * time.Millisecond, Auth: 100 * time.Millisecond, HeartbeatInterval: 5 * time.Millisecond, Heartbeat: time.Minute, Idle: 10 * time.Second},
			Limits: hearth.Limits{BackpressureLimit: 64 << 10, MaxUnauthenticated: 20, MaxUnauthenticatedPerAddr: 15, MaxRooms: 6, ClientQueue: 2048, SendQueue: 1 << 20}, Compression: true,
			Authenticate: func(ctx context.Context, r hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
				if r.Credentials.As != "witness" {
					_ = act(nil)
				}
				return accept(ctx, r)
			},
			ValidateRooms: func(_ context.Context, c *client, rooms []string) ([]string, error) { return rooms, act(c) },
			Connected: func(_ context.Context, c *client) {
				if s := ready.Load(); s != nil && c.UserID() != "witness" {
					s.ids.Store(s.n.Add(1), c.ID())
					_ = act(c)
				}
			},
			Message: func(_ context.Context, c *client, _ hearth.Message) error { return act(c) },
			Joined: func(_ context.Context, c *client, room string) {
				logs.of(c.ID()).change(room, true)
				_ = act(c)
			},
			Left: func(_ context.Context, c *client, room string) {
				logs.of(c.ID()).change(room, false)
				_ = act(c)
			},
			Disconnected: func(_ context.Context, c *client, _ int, _ string) {
				close(logs.of(c.ID()).closed)
				_ = act(c)
			},
		})
		witnesses := []chan struct{}{s.witness(), s.witness()}
		ready.Store(s)
		var all sync.WaitGroup
		for i := range 8 {
			rnd := rand.New(rand.NewPCG(uint64(i), 2))
			all.Go(func() { // ends with ctx
				for ctx.Err() == nil {
					s.visit(rnd)
				}
			})
		}
		for i := range 2 {
			rnd := rand.New(rand.NewPCG(uint64(i), 3))
			all.Go(func() { // ends with ctx
				for ctx.Err() == nil {
					_ = s.act(rnd, nil)
				}
			})
		}
		all.Go(func() { // ends with ctx
			for n := 0; ctx.Err() == nil; n++ {
				_ = s.Local().Send(t.Context(), hearth.ToAll(), "number", n)
				_ = s.Local().WaitPending(ctx, hearth.ToUser("witness"), 8<<10)
			}
		})
		<-ctx.Done()
		late, cancel := context.WithTimeout(context.Background(), answer)
		defer cancel()
		if err := s.Shutdown(late); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		all.Wait()
		for _, w := range witnesses {
			<-w
		}
		logs.Range(func(id, _ any) bool {
			logs.ended(t, id.(string))
			return true
		})
		if st := s.Stats(); st.Connections != 0 || st.Clients != 0 || st.Rooms != 0 || st.Unauthenticated != 0 {
			t.Errorf("state left after Shutdown: %+v", st)
		} else {
			t.Logf("%+v", st)
		}
	})
}
