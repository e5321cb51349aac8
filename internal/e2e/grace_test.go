package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/protocol"
	"github.com/hearthws/hearth/seal"
)

// A graceLog has the callbacks of all servers of a test, with the seconds since its begin.
type graceLog struct {
	mu    sync.Mutex
	begun time.Time
	lines []string
}

func (l *graceLog) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf("%v: ", time.Since(l.begun).Truncate(time.Second))+fmt.Sprintf(format, args...))
}

// restart forgets the lines and begins to count seconds.
func (l *graceLog) restart() {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun, l.lines = time.Now(), nil
}

func (l *graceLog) wants(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.lines, want) {
		t.Errorf("callbacks:\n%s\nwant:\n%s", strings.Join(l.lines, "\n"), strings.Join(want, "\n"))
	}
}

// config returns a configuration with Resume.Grace of 10 s that logs the callbacks.
func (l *graceLog) config(cfg config) config {
	cfg = resumable(cfg)
	if cfg.Resume.Grace == 0 {
		cfg.Resume.Grace = 10 * time.Second
	}
	cfg.DefaultRooms = []string{"home"}
	cfg.Connected = func(_ context.Context, c *client) { l.note("%s connected, resumed %v", c.UserID(), c.Resumed()) }
	cfg.Joined = func(_ context.Context, c *client, room string) { l.note("%s joined %s", c.UserID(), room) }
	cfg.Left = func(_ context.Context, c *client, room string) {
		l.note("%s left %s, moved %v", c.UserID(), room, c.Moved())
	}
	cfg.Disconnected = func(_ context.Context, c *client, code int, _ string) {
		l.note("%s disconnected %d, moved %v", c.UserID(), code, c.Moved())
	}
	return cfg
}

// TestGrace ends a connection in each way, and checks when Left and Disconnected are called if the
// client does not resume.
func TestGrace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		features string // default: with tickets
		end      func(t *testing.T, r *rig, p *peer)
		code     int
		after    int // seconds
	}{
		"broken":          {end: func(_ *testing.T, _ *rig, p *peer) { p.hangUp() }, code: 1006, after: 10},
		"closed":          {end: func(_ *testing.T, _ *rig, p *peer) { p.bye(1001, "") }, code: 1001, after: 10},
		"closed for ever": {end: func(_ *testing.T, _ *rig, p *peer) { p.bye(1000, "") }, code: 1000},
		"no ticket":       {features: " ", end: func(_ *testing.T, _ *rig, p *peer) { p.hangUp() }, code: 1006},
		"silent":          {end: func(_ *testing.T, _ *rig, p *peer) { p.wantsClose(4002, "Heartbeat timeout") }, code: 4002, after: 30 + 10},
		"Client.Disconnect": {end: func(t *testing.T, r *rig, p *peer) {
			must(t, r.client(p).Disconnect(4100, "out"))
		}, code: 4100},
		"Server.Disconnect": {end: func(t *testing.T, r *rig, _ *peer) {
			_, err := r.Disconnect(t.Context(), hearth.ToUser("ada"), 4100, "out")
			must(t, err)
		}, code: 4100},
		"its tickets were revoked": {end: func(t *testing.T, r *rig, p *peer) {
			must(t, r.RevokeTickets(t.Context(), hearth.ToClient(p.id)))
			p.hangUp()
		}, code: 1006},
		"the user's tickets were revoked": {end: func(t *testing.T, r *rig, p *peer) {
			must(t, r.RevokeTickets(t.Context(), hearth.ToUser("ada")))
			p.hangUp()
		}, code: 1006},
		"its tickets are revoked later": {end: func(t *testing.T, r *rig, p *peer) {
			p.hangUp()
			pass(3 * time.Second)
			must(t, r.RevokeTickets(t.Context(), hearth.ToUser("bob")))
			pass(time.Second)
			must(t, r.RevokeTickets(t.Context(), hearth.ToClient(p.id)))
		}, code: 1006, after: 4},
		"the user's tickets are revoked later": {end: func(t *testing.T, r *rig, p *peer) {
			p.hangUp()
			pass(3 * time.Second)
			_, err := r.Disconnect(t.Context(), hearth.ToUser("ada"), 4100, "out")
			must(t, err)
		}, code: 1006, after: 3},
		"it is disconnected later": {end: func(t *testing.T, r *rig, p *peer) {
			c := r.client(p)
			p.hangUp()
			pass(3 * time.Second)
			if err := c.Disconnect(4100, "out"); !errors.Is(err, hearth.ErrNotConnected) {
				t.Errorf("Disconnect: %v", err)
			}
		}, code: 1006, after: 3},
		"violation": {end: func(t *testing.T, _ *rig, p *peer) { must(t, p.wire.send(7, nil)) }, code: 1002},
		"expired":   {end: func(*testing.T, *rig, *peer) {}, code: 4005, after: 20},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var log graceLog
				cfg := config{Timeouts: hearth.Timeouts{Heartbeat: 25 * time.Second, HeartbeatInterval: 10 * time.Second, Idle: hearth.Disabled}}
				if name == "expired" {
					cfg.Authenticate = func(context.Context, hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
						return hearth.Identity[profile]{UserID: "ada", ExpiresAt: time.Now().Add(20 * time.Second)}, nil
					}
				}
				r := startPiped(t, log.config(cfg))
				p := r.peer()
				if c.features == "" {
					p.extended("ada", `"resume"`)
					p.ticket()
				} else {
					p.extended("ada", c.features)
				}
				log.restart()
				c.end(t, r, p)
				if wait := time.Duration(c.after)*time.Second - time.Since(log.begun) - time.Millisecond; wait > 0 {
					pass(wait)
					log.wants(t)
				}
				pass(1100 * time.Millisecond)
				log.mu.Lock()
				for i, line := range log.lines { // absences are checked once in a second
					log.lines[i] = strings.Replace(line, fmt.Sprint(c.after+1, "s:"), fmt.Sprint(c.after, "s:"), 1)
				}
				log.mu.Unlock()
				log.wants(t, fmt.Sprintf("%ds: ada left home, moved false", c.after), fmt.Sprintf("%ds: ada disconnected %d, moved false", c.after, c.code))
			})
		})
	}
}

// TestGraceResume resumes a session during the grace, on the same server and on another one, again
// and again. The last callbacks for each connection are called at once.
func TestGraceResume(t *testing.T) {
	t.Parallel()
	for name, servers := range map[string]int{"one server": 1, "two servers": 2} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var log graceLog
				bus := memory.NewBus(memory.Config{})
				var all []*rig
				for range servers {
					all = append(all, startPiped(t, log.config(config{Broker: bus.Broker()})))
				}
				pass(time.Second)
				p, ticket := all[0].resumableMember("ada")
				c := all[0].client(p)
				for i := range 4 {
					log.restart()
					p.hangUp()
					pass(4 * time.Second)
					if c.Moved() || c.State() != protocol.StateDisconnected {
						t.Errorf("the client is %v, moved %v", c.State(), c.Moved())
					}
					log.wants(t)
					r := all[(i+1)%servers]
					p = r.peer()
					p.resume(ticket)
					p.wantsResumed()
					ticket = p.ticket()
					pass(20 * time.Second)
					want := []string{"4s: ada left home, moved true", "4s: ada disconnected 1006, moved true", "4s: ada connected, resumed true", "4s: ada joined home"}
					log.sortIf(servers > 1, want) // which of these is first is not defined
					log.wants(t, want...)
					if !c.Moved() {
						t.Error("the client has not moved")
					}
					if c = r.client(p); c.Moved() {
						t.Error("a connected client has moved")
					}
				}
			})
		})
	}
}

// sortIf sorts the lines, and those that a test wants, if they have no defined order.
func (l *graceLog) sortIf(unordered bool, want []string) {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if unordered {
		slices.Sort(l.lines)
		slices.Sort(want)
	}
}

// TestGraceTakenOver checks that Moved is true for a connection that is closed because its session
// is resumed on another one, and that a room which the client left itself is not affected.
func TestGraceTakenOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log graceLog
		cfg := log.config(config{})
		cfg.Resume.Grace = 0
		entered, release := make(chan struct{}), make(chan struct{})
		cfg.Message = func(_ context.Context, c *client, m hearth.Message) error {
			close(entered)
			<-release
			c.Leave("home")
			return nil
		}
		r := startPiped(t, cfg)
		p, _ := r.resumableMember("ada")
		must(t, r.client(p).Join(t.Context(), "lobby"))
		ticket := p.ticket()
		p.say("leave home", "0")
		<-entered
		log.restart()
		next := r.peer()
		next.resume(ticket)
		p.wantsClose(4006, "Session resumed")
		close(release)
		next.wantsResumed()
		pass(time.Second)
		log.wants(t, "0s: ada left home, moved true", "0s: ada left lobby, moved true", "0s: ada disconnected 4006, moved true",
			"0s: ada connected, resumed true", "0s: ada joined home", "0s: ada joined lobby")
	})
}

// TestGraceLeaves checks that a leave which the client caused itself is not reported as moved,
// although the session was resumed before it is reported.
func TestGraceLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log graceLog
		release := make(chan struct{})
		cfg := log.config(config{})
		cfg.Message = func(_ context.Context, c *client, _ hearth.Message) error {
			c.Leave("home")
			<-release
			return nil
		}
		r := startPiped(t, cfg)
		p, _ := r.resumableMember("ada")
		must(t, r.client(p).Join(t.Context(), "lobby"))
		p.ticket()
		p.say("leave home", "0")
		ticket := p.ticket()
		log.restart()
		p.hangUp()
		synctest.Wait()
		next := r.peer()
		next.resume(ticket)
		synctest.Wait()
		close(release)
		next.wantsResumed()
		pass(time.Second)
		log.wants(t, "0s: ada left home, moved false", "0s: ada left lobby, moved true", "0s: ada disconnected 1006, moved true",
			"0s: ada connected, resumed true", "0s: ada joined lobby")
	})
}

// TestGraceBound checks that more than Limits.MaxConnections clients end the absence of the oldest.
func TestGraceBound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log graceLog
		r := startPiped(t, log.config(config{Limits: hearth.Limits{MaxConnections: 2}}))
		log.restart()
		for _, user := range []string{"ada", "bob", "cyd"} {
			p, _ := r.resumableMember(user)
			p.hangUp()
			synctest.Wait()
			log.mu.Lock()
			log.lines = slices.DeleteFunc(log.lines, func(line string) bool {
				return strings.HasSuffix(line, "connected, resumed false") || strings.HasSuffix(line, "joined home")
			})
			log.mu.Unlock()
		}
		pass(time.Second)
		log.wants(t, "0s: ada left home, moved false", "0s: ada disconnected 1006, moved false")
		if n := r.Stats().Tickets.Displaced; n != 1 {
			t.Errorf("%d clients were displaced", n)
		}
	})
}

// TestGraceShutdown checks how long Shutdown waits for clients to resume.
func TestGraceShutdown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		servers  int
		features string
		deadline time.Duration // of the context of Shutdown; 0: none
		resumes  time.Duration // after the close; 0: never
		took     time.Duration
	}{
		"without other servers":      {servers: 1, features: `"resume"`},
		"without tickets":            {servers: 2},
		"the client resumes":         {servers: 2, features: `"resume"`, resumes: 2 * time.Second, took: 2 * time.Second},
		"the client is gone":         {servers: 2, features: `"resume"`, took: 10 * time.Second},
		"the context has a deadline": {servers: 2, features: `"resume"`, deadline: 6 * time.Second, took: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var log graceLog
				bus := memory.NewBus(memory.Config{})
				var all []*rig
				for range c.servers {
					all = append(all, startPiped(t, log.config(config{Broker: bus.Broker()})))
				}
				pass(time.Second)
				p := all[0].peer()
				p.extended("ada", c.features)
				ticket := ""
				if c.features != "" {
					ticket = p.ticket()
				}
				log.restart()
				ctx := context.Background()
				if c.deadline > 0 {
					var cancel func()
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				ended := make(chan error, 1)
				go func() { ended <- all[0].Shutdown(ctx) }()
				p.wantsClose(1012, "Service restart")
				if c.resumes > 0 {
					pass(c.resumes)
					next := all[1].peer()
					next.resume(ticket)
					next.wantsResumed()
				}
				must(t, <-ended)
				if took := time.Since(log.begun); took < c.took || took > c.took+100*time.Millisecond {
					t.Errorf("Shutdown took %v, want %v", took, c.took)
				}
				want := []string{
					fmt.Sprintf("%v: ada left home, moved %v", c.took, c.resumes > 0), fmt.Sprintf("%v: ada disconnected 1012, moved %v", c.took, c.resumes > 0),
				}
				if c.resumes > 0 {
					want = append(want, fmt.Sprintf("%v: ada connected, resumed true", c.took), fmt.Sprintf("%v: ada joined home", c.took))
				}
				log.sortIf(true, want)
				log.wants(t, want...)
			})
		})
	}
}

// A presence list has the clients that are in a room, as an application with several servers would
// keep it in a database.
type presenceList struct {
	mu      sync.Mutex
	online  map[string]map[string]bool // by room, then by client
	changes []string                   // that users would see
}

func (l *presenceList) set(c *client, room string, present bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.online[room] == nil {
		l.online[room] = map[string]bool{}
	}
	if l.online[room][c.ID()] == present {
		return
	}
	if l.online[room][c.ID()] = present; !present {
		delete(l.online[room], c.ID())
	}
	l.changes = append(l.changes, fmt.Sprint(c.UserID(), " in ", room, ": ", present))
}

// TestGracePresence restarts two servers one after the other. Users with tickets, who are on both,
// are neither shown to leave nor to come back. A user who does not return is shown to leave once.
func TestGracePresence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const clients = 40
		list := presenceList{online: map[string]map[string]bool{}}
		bus := memory.NewBus(memory.Config{})
		newServer := func() *rig {
			return startPiped(t, resumable(config{
				Broker: bus.Broker(), Timeouts: hearth.Timeouts{Drain: 5 * time.Second}, Resume: hearth.Resume{Grace: 10 * time.Second},
				DefaultRooms: []string{"lobby"},
				Joined:       func(_ context.Context, c *client, room string) { list.set(c, room, true) },
				Left: func(_ context.Context, c *client, room string) {
					if !c.Moved() {
						list.set(c, room, false)
					}
				},
			}))
		}
		servers := []*rig{newServer(), newServer()}
		peers, tickets := make([]*peer, clients), make([]string, clients)
		at := make([]int, clients)
		for i := range peers {
			at[i] = i % 2
			peers[i], tickets[i] = servers[at[i]].resumableMember(fmt.Sprint("user ", i))
		}
		synctest.Wait()
		list.changes = nil
		for old := range servers {
			next := newServer()
			pass(time.Second)
			ended := make(chan error, 1)
			go func() { ended <- servers[old].Shutdown(context.Background()) }()
			var moving sync.WaitGroup
			for i := range peers {
				if at[i] != old || i == 0 && old == 0 {
					continue
				}
				moving.Go(func() { // ends when the client has resumed
					for {
						got := peers[i].next()
						if got.code == 1012 {
							break
						}
						var m struct{ Data struct{ Ticket string } }
						_ = json.Unmarshal([]byte(got.text), &m)
						tickets[i] = m.Data.Ticket
					}
					pass(time.Duration(i) * 50 * time.Millisecond)
					if i%3 == 0 {
						at[i] = 1 - old // the other one
					}
					target := next
					if at[i] != old {
						target = servers[at[i]]
					}
					peers[i] = target.peer()
					peers[i].resume(tickets[i])
					peers[i].wantsResumed()
					tickets[i] = peers[i].ticket()
				})
			}
			moving.Wait()
			must(t, <-ended)
			servers[old] = next
		}
		synctest.Wait()
		list.mu.Lock()
		defer list.mu.Unlock()
		if want := []string{"user 0 in lobby: false"}; !slices.Equal(list.changes, want) || len(list.online["lobby"]) != clients-1 {
			t.Errorf("%d are online after %v", len(list.online["lobby"]), list.changes)
		}
	})
}

// TestGraceLost checks that the end of a session is reported if the connection on which it is
// resumed ends before the client is admitted: while the servers are asked, because the client does
// not agree on a key, and after that.
func TestGraceLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log graceLog
		bus := memory.NewBus(memory.Config{})
		encryption := hearth.Encryption{Mode: hearth.EncryptionOptional}
		handshakes := 0
		handshake := func(_ context.Context, r hearth.HandshakeRequest[profile]) (*seal.Keys, error) {
			handshakes++
			if handshakes == 3 {
				return nil, hearth.ErrRejected
			}
			return nil, nil
		}
		crashing := &crashingBroker{lossyBroker{Broker: bus.Broker()}}
		startPiped(t, resumable(config{Broker: crashing}))
		a := startPiped(t, log.config(config{Broker: bus.Broker(), Encryption: encryption, Handshake: handshake}))
		b := startPiped(t, log.config(config{Broker: bus.Broker(), Encryption: encryption, Handshake: handshake}))
		pass(time.Second)
		ada, adas := a.resumableMember("ada")
		bob, bobs := a.resumableMember("bob")
		log.restart()
		ada.hangUp()
		bob.hangUp()
		pass(4 * time.Second)
		rejected := b.peer()
		rejected.resume(bobs)
		rejected.wantsError("Encryption handshake failed")
		rejected.wantsClose(4004, "Encryption required")
		want := []string{
			"4s: bob left home, moved true", "4s: bob disconnected 1006, moved true",
			"4s: bob connected, resumed true", "4s: bob joined home", "4s: bob left home, moved false", "4s: bob disconnected 4004, moved false",
		}
		log.sortIf(true, want)
		log.wants(t, want...)

		log.restart()
		crashing.cut.Store(true)
		leaving := b.peer()
		leaving.resume(adas) // the answers take a second
		pass(100 * time.Millisecond)
		leaving.hangUp()
		pass(3 * time.Second)
		want = []string{
			"0s: ada left home, moved true", "0s: ada disconnected 1006, moved true",
			"1s: ada connected, resumed true", "1s: ada joined home", "1s: ada left home, moved false", "1s: ada disconnected 1006, moved false",
		}
		log.wants(t, want...)
		if s := b.Stats(); s.Tickets.Accepted != 1 || s.CallbackErrors != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}
