package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/protocol"
)

var resumeKey = bytes.Repeat([]byte{7}, 32)

// resumable is a configuration with tickets, whose servers accept the tickets of each other.
func resumable(cfg config) config {
	cfg.Resume.Enabled = true
	if cfg.Resume.Keys == nil {
		cfg.Resume.Keys = [][]byte{resumeKey}
	}
	if cfg.ValidateRooms == nil {
		cfg.ValidateRooms = anyRoom
	}
	return cfg
}

// A resumed is what connected says about a client that has resumed.
type resumed struct {
	ID, UserID string
	Rooms      []string
}

// resumableMember connects a client that gets tickets, and authenticates it.
func (r *rig) resumableMember(user string) (p *peer, ticket string) {
	r.t.Helper()
	p = r.peer()
	p.extended(user, `"resume"`)
	return p, p.ticket()
}

// ticket takes the next message, which must be a ticket.
func (p *peer) ticket() string {
	p.t.Helper()
	event, raw := p.event()
	var data struct {
		Ticket  string
		Expires time.Time
	}
	if err := json.Unmarshal(raw, &data); err != nil || event != "hearth:ticket" || data.Ticket == "" || data.Expires.IsZero() {
		p.t.Fatalf("got %s %s, want a ticket (%v)", event, raw, err)
	}
	return data.Ticket
}

// resume sends a ticket.
func (p *peer) resume(ticket string) {
	p.t.Helper()
	p.text(fmt.Sprintf(`{"event":"authenticate","hearth":{"version":1,"features":["resume"],"ticket":%q},"id":"r"}`, ticket))
}

// wantsResumed takes the next message, which must be connected of a client that has resumed.
func (p *peer) wantsResumed() resumed {
	p.t.Helper()
	got := p.next()
	var m struct {
		Event  string
		Data   struct{ ID, UserID string }
		Hearth struct {
			Resumed *struct{ Joined []struct{ Room string } }
		}
	}
	if err := json.Unmarshal([]byte(got.text), &m); err != nil || m.Event != "connected" || m.Hearth.Resumed == nil {
		p.t.Fatalf("got %v, want connected of a resumed client", got)
	}
	p.id, p.user = m.Data.ID, m.Data.UserID
	r := resumed{ID: m.Data.ID, UserID: m.Data.UserID}
	for _, j := range m.Hearth.Resumed.Joined {
		r.Rooms = append(r.Rooms, j.Room)
	}
	return r
}

func (p *peer) wantsTicketRejected() {
	p.t.Helper()
	p.wants(`{"event":"error","data":{"message":"Ticket rejected","code":"ticket_rejected"},"id":"r"}`)
}

// TestResume resumes a session after the connection broke: the client has its id, user, metadata
// and rooms, and a ticket for the next time.
func TestResume(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		var authenticated atomic.Int32
		connected := make(chan *client, 10)
		r := start(t, resumable(config{
			Transport: transport,
			Authenticate: func(ctx context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
				authenticated.Add(1)
				return accept(ctx, req)
			},
			Connected: func(_ context.Context, c *client) { connected <- c },
		}))
		p, _ := r.resumableMember("ada")
		if c := <-connected; c.Resumed() {
			t.Error("a new client counts as resumed")
		}
		p.text(`{"event":"join","data":{"rooms":["lobby","news"]}}`)
		p.text(`{"event":"leave","data":{"rooms":["ws-notification"]}}`)
		p.event()
		p.event()
		r.client(p).SetMetadata(profile{"Ada"})
		var ticket string
		for range 2 { // a change of rooms, and one of the metadata: one ticket or two
			event, data := p.event()
			if event != "hearth:ticket" {
				t.Fatalf("got %s %s", event, data)
			}
			var d struct{ Ticket string }
			must(t, json.Unmarshal(data, &d))
			ticket = d.Ticket
			if !pending(p) {
				break
			}
		}
		id := p.id
		for round := range 3 {
			p.hangUp()
			p.wantsEnd()
			p = r.peer()
			p.resume(ticket)
			got := p.wantsResumed()
			slices.Sort(got.Rooms)
			if want := []string{id, "lobby", "news", "ws-default"}; got.ID != id || got.UserID != "ada" || !equalSets(got.Rooms, want) {
				t.Fatalf("round %d: resumed as %+v, want %s in %v", round, got, id, want)
			}
			ticket = p.ticket()
			c := <-connected
			if !c.Resumed() || c.ID() != id || c.UserID() != "ada" || c.Metadata().Name != "Ada" || !equalSets(c.Rooms(), got.Rooms) {
				t.Errorf("the server has %s of %s, %+v, in %v", c.ID(), c.UserID(), c.Metadata(), c.Rooms())
			}
			for _, target := range []hearth.Target{hearth.ToClient(id), hearth.ToUser("ada"), hearth.ToRoom("lobby"), hearth.ToRoom(id), hearth.ToAll()} {
				must(t, r.Send(t.Context(), target, "hi", nil))
				p.wants(`{"event":"hi","data":null}`)
			}
			must(t, r.Send(t.Context(), hearth.ToRoom("ws-notification"), "left", nil))
			must(t, r.Send(t.Context(), hearth.ToRoom("lobby").Except(id), "excluded", nil))
		}
		if n := authenticated.Load(); n != 1 {
			t.Errorf("Authenticate was called %d times", n)
		}
		if s := r.Stats().Tickets; s.Accepted != 3 || s.Issued < 5 || s.Failed+s.Invalid+s.Used+s.Unavailable != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// pending reports whether another message arrives within the time after which tickets are renewed.
func pending(p *peer) bool {
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		p.in.mu.Lock()
		n := len(p.in.items)
		p.in.mu.Unlock()
		if n > 0 {
			return true
		}
	}
	return false
}

func equalSets(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// TestResumeTakesOver resumes a session whose old connection is still open, on the same server and
// on another one: the old connection is closed, and its callbacks come first.
func TestResumeTakesOver(t *testing.T) {
	for name, servers := range map[string]int{"one server": 1, "two servers": 2} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var mu sync.Mutex
				var log []string
				note := func(format string, args ...any) {
					mu.Lock()
					defer mu.Unlock()
					log = append(log, fmt.Sprintf(format, args...))
				}
				bus := memory.NewBus(memory.Config{})
				var all []*rig
				for range servers {
					all = append(all, startPiped(t, resumable(config{
						Broker:    bus.Broker(),
						Connected: func(_ context.Context, c *client) { note("connected %v", c.Resumed()) },
						Disconnected: func(_ context.Context, c *client, code int, _ string) {
							time.Sleep(100 * time.Millisecond)
							note("disconnected %v %d", c.Resumed(), code)
						},
					})))
				}
				time.Sleep(time.Second) // the servers know each other
				old, ticket := all[0].resumableMember("ada")
				p := all[servers-1].peer()
				p.resume(ticket)
				old.wantsClose(4006, "Session resumed")
				if got := p.wantsResumed(); got.ID != old.id {
					t.Errorf("resumed as %s, not %s", got.ID, old.id)
				}
				p.ticket()
				if n, err := all[0].Count(t.Context(), hearth.ToClient(p.id)); n != 1 || err != nil {
					t.Errorf("%d clients have the id, %v", n, err)
				}
				time.Sleep(time.Second)
				mu.Lock()
				defer mu.Unlock()
				want := []string{"connected false", "disconnected false 4006", "connected true"}
				if servers == 2 { // which of these is first is not defined
					slices.Sort(log)
					slices.Sort(want)
				}
				if !slices.Equal(log, want) {
					t.Errorf("callbacks: %v, want %v", log, want)
				}

				again := all[0].peer()
				again.resume(ticket)
				again.wantsTicketRejected()
				again.say("authenticate", `{"as":"ada"}`)
				again.welcome()
				used := uint64(0)
				for _, r := range all {
					used += r.Stats().Tickets.Used
				}
				if used != 1 {
					t.Errorf("%d used tickets", used)
				}
			})
		})
	}
}

// TestRollingRestart replaces two servers one after the other. Clients with tickets move without a
// call of Authenticate, keep their ids and rooms, and are never two.
func TestRollingRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const clients = 50
		bus := memory.NewBus(memory.Config{})
		var authenticated atomic.Int32
		newServer := func() *rig {
			return startPiped(t, resumable(config{
				Broker: bus.Broker(), Timeouts: hearth.Timeouts{Drain: 10 * time.Second},
				Authenticate: func(ctx context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
					authenticated.Add(1)
					return accept(ctx, req)
				},
			}))
		}
		current := newServer()
		peers, tickets, ids := make([]*peer, clients), make([]string, clients), make([]string, clients)
		for i := range peers {
			peers[i], tickets[i] = current.resumableMember("ada")
			ids[i] = peers[i].id
			peers[i].text(fmt.Sprintf(`{"event":"join","data":{"rooms":["room %d"]},"id":1}`, i))
			peers[i].event()
		}
		for range 3 {
			next := newServer()
			time.Sleep(time.Second)
			ended := make(chan error, 1)
			go func() { ended <- current.Shutdown(context.Background()) }()
			for i, p := range peers {
				for {
					got := p.next()
					if got.code == 1012 {
						break
					}
					var m struct{ Data struct{ Ticket string } }
					if json.Unmarshal([]byte(got.text), &m) != nil || m.Data.Ticket == "" {
						t.Fatalf("got %v, want a ticket or close 1012", got)
					}
					tickets[i] = m.Data.Ticket
				}
				p = next.peer()
				p.resume(tickets[i])
				got := p.wantsResumed()
				if got.ID != ids[i] || !slices.Contains(got.Rooms, fmt.Sprint("room ", i)) || len(got.Rooms) != 4 {
					t.Fatalf("client %d resumed as %+v", i, got)
				}
				peers[i], tickets[i] = p, p.ticket()
			}
			must(t, <-ended)
			if n, err := next.Count(t.Context(), hearth.ToAll()); n != clients || err != nil {
				t.Errorf("%d clients, %v", n, err)
			}
			current = next
		}
		if n := authenticated.Load(); n != clients {
			t.Errorf("Authenticate was called %d times for %d clients", n, clients)
		}
	})
}

// TestTicketRejected checks which tickets are not accepted, and that the client can authenticate
// then.
func TestTicketRejected(t *testing.T) {
	disabled := resumable(config{})
	disabled.Resume.Enabled = false
	for name, c := range map[string]struct {
		cfg  config // of the server that gets the ticket
		do   func(t *testing.T, r *rig, p *peer, ticket string) string
		stat func(hearth.TicketStats) uint64
	}{
		"expired": {do: func(_ *testing.T, _ *rig, p *peer, ticket string) string {
			p.hangUp()
			time.Sleep(2 * time.Minute)
			return ticket
		}, stat: func(s hearth.TicketStats) uint64 { return s.Expired }},
		"malformed": {do: func(*testing.T, *rig, *peer, string) string { return "AaBb" },
			stat: func(s hearth.TicketStats) uint64 { return s.Invalid }},
		"changed": {do: func(_ *testing.T, _ *rig, _ *peer, ticket string) string {
			return ticket[:60] + strings.Map(func(c rune) rune { return c ^ 1 }, ticket[60:61]) + ticket[61:]
		}, stat: func(s hearth.TicketStats) uint64 { return s.Invalid }},
		"foreign key": {cfg: resumable(config{Resume: hearth.Resume{Keys: [][]byte{bytes.Repeat([]byte{8}, 32)}}}),
			stat: func(s hearth.TicketStats) uint64 { return s.Invalid }},
		"the client was disconnected": {do: func(t *testing.T, r *rig, p *peer, ticket string) string {
			must(t, r.client(p).Disconnect(4100, "out"))
			return ticket
		}, stat: func(s hearth.TicketStats) uint64 { return s.Used + s.Revoked }},
		"its id was disconnected": {do: func(t *testing.T, r *rig, p *peer, ticket string) string {
			_, err := r.Disconnect(t.Context(), hearth.ToClient(p.id), 4100, "out")
			must(t, err)
			return ticket
		}, stat: func(s hearth.TicketStats) uint64 { return s.Used + s.Revoked }},
		"its user was disconnected": {do: func(t *testing.T, r *rig, _ *peer, ticket string) string {
			_, err := r.Disconnect(t.Context(), hearth.ToUser("ada"), 4100, "out")
			must(t, err)
			return ticket
		}, stat: func(s hearth.TicketStats) uint64 { return s.Revoked }},
		"the user's tickets were revoked": {do: func(t *testing.T, r *rig, _ *peer, ticket string) string {
			must(t, r.RevokeTickets(t.Context(), hearth.ToUser("ada")))
			return ticket
		}, stat: func(s hearth.TicketStats) uint64 { return s.Revoked }},
		"the client's tickets were revoked": {do: func(t *testing.T, r *rig, p *peer, ticket string) string {
			must(t, r.RevokeTickets(t.Context(), hearth.ToClient(p.id)))
			return ticket
		}, stat: func(s hearth.TicketStats) uint64 { return s.Used + s.Revoked }},
		"the application rejects it": {cfg: resumable(config{Resumed: func(_ context.Context, r hearth.ResumeRequest[profile]) error {
			if r.UserID != "ada" || r.Metadata.Name != "ada" || len(r.Rooms) != 3 || r.ClientID == "" || r.Issued.IsZero() {
				panic(fmt.Sprintf("%+v", r))
			}
			return fmt.Errorf("banned: %w", hearth.ErrRejected)
		}}), stat: func(s hearth.TicketStats) uint64 { return s.Unavailable }},
		"the application fails": {cfg: resumable(config{Resumed: func(context.Context, hearth.ResumeRequest[profile]) error {
			panic("oops")
		}}), stat: func(s hearth.TicketStats) uint64 { return s.Unavailable }},
		"no tickets": {cfg: disabled, stat: func(s hearth.TicketStats) uint64 { return s.Unavailable }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				bus := memory.NewBus(memory.Config{})
				first := resumable(config{Broker: bus.Broker()})
				a := startPiped(t, first)
				cfg := c.cfg
				if !cfg.Resume.Enabled && name != "no tickets" {
					cfg = resumable(cfg)
				}
				cfg.Broker = bus.Broker()
				b := startPiped(t, cfg)
				time.Sleep(time.Second)
				p, ticket := a.resumableMember("ada")
				if c.do != nil {
					ticket = c.do(t, a, p, ticket)
				}
				second := b.peer()
				second.resume(ticket)
				second.wantsTicketRejected()
				if n := c.stat(b.Stats().Tickets); n != 1 {
					t.Errorf("stats %+v", b.Stats().Tickets)
				}
				wantErrors := uint64(0)
				if name == "the application fails" {
					wantErrors = 1
				}
				if n := b.Stats().CallbackErrors; n != wantErrors {
					t.Errorf("%d callbacks failed", n)
				}
				second.text(`{"event":"join","data":{"rooms":["a"]}}`)
				second.wantsError("Not authenticated")
				second.extended("ada", `"resume"`)
				if second.id == p.id {
					t.Error("the client got the id of the ticket")
				}
			})
		})
	}
}

// TestTicketDeadline checks that tickets which are rejected do not extend the time to authenticate.
func TestTicketDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, resumable(config{}))
		begun := time.Now()
		p := r.peer()
		for range 4 {
			time.Sleep(time.Second)
			p.resume("AaBb")
			p.wantsTicketRejected()
		}
		p.wantsClose(4001, "Authentication timeout")
		wantsAfter(t, begun, 5*time.Second)
	})
}

// TestTicketRenewal checks that a connected client always has a valid ticket.
func TestTicketRenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, resumable(config{Resume: hearth.Resume{Lifetime: 10 * time.Second}, Timeouts: hearth.Timeouts{Heartbeat: time.Hour}}))
		p, ticket := r.resumableMember("ada")
		for range 5 {
			begun := time.Now()
			next := p.ticket()
			if waited := time.Since(begun); next == ticket || waited < 4*time.Second || waited > 6*time.Second {
				t.Errorf("the next ticket came after %v", waited)
			}
			ticket = next
		}
		p.hangUp()
		time.Sleep(9 * time.Second)
		p = r.peer()
		p.resume(ticket)
		p.wantsResumed()
	})
}

// TestTicketNotIssued checks that a client whose metadata cannot be encoded, or whose ticket would
// be too large, works without a ticket.
func TestTicketNotIssued(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, resumable(config{Authenticate: func(context.Context, hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
			return hearth.Identity[profile]{Metadata: profile{repeat("x", 10_000)}}, nil
		}}))
		p := r.peer()
		p.extended("ada", `"resume"`)
		must(t, r.Send(t.Context(), hearth.ToClient(p.id), "hi", nil))
		p.wants(`{"event":"hi","data":null}`)
		synctest.Wait()
		if s := r.Stats().Tickets; s.Failed != 1 || s.Issued != 0 {
			t.Errorf("stats %+v", s)
		}
		r.client(p).SetMetadata(profile{"small"})
		ticket := p.ticket()
		p.hangUp()
		p = r.peer()
		p.resume(ticket)
		p.wantsResumed()
	})
}

// TestResumeEncrypted resumes an encrypted session: it must be encrypted again, with other keys.
func TestResumeEncrypted(t *testing.T) {
	t.Parallel()
	r := start(t, resumable(config{Encryption: hearth.Encryption{Mode: hearth.EncryptionOptional}}))
	connect := func(member string) *encryptedPeer {
		s := r.encryptedPeer()
		s.text(fmt.Sprintf(`{"event":"authenticate","data":{"as":"ada","publicKey":%q},"hearth":{"version":1,"features":["resume"]%s}}`, s.key.PublicKey(), member))
		s.takeKeys()
		return s
	}
	ticketOf := func(s *encryptedPeer) string {
		var m struct{ Data struct{ Ticket string } }
		must(t, json.Unmarshal([]byte(s.nextOpened()), &m))
		return m.Data.Ticket
	}
	first := connect("")
	ticket := ticketOf(first)
	first.hangUp()
	second := connect(fmt.Sprintf(`,"ticket":%q`, ticket))
	if second.id != first.id || r.Stats().Tickets.Accepted != 1 {
		t.Errorf("resumed as %s, stats %+v", second.id, r.Stats().Tickets)
	}
	ticket = ticketOf(second)
	second.hangUp()
	third := r.peer()
	third.resume(ticket)
	third.wantsError("Encryption handshake failed")
	third.wantsClose(4004, "Encryption required")
}

// TestResumeRecovers checks that a client gets the messages that it missed, once and in order.
func TestResumeRecovers(t *testing.T) {
	t.Parallel()
	bus := memory.NewBus(memory.Config{History: chatHistory})
	a, b := start(t, resumable(config{Broker: bus.Broker()})), start(t, resumable(config{Broker: bus.Broker()}))
	epoch := epochOf(t, a, "chat")
	p := a.peer()
	p.extended("ada", `"recovery","resume"`)
	p.ticket()
	p.text(`{"event":"join","data":{"rooms":["chat"]}}`)
	p.wants(`{"event":"join","data":{"joined":[{"room":"chat","offset":0,"epoch":"` + epoch + `"}],"rejected":[]}}`)
	ticket := p.ticket()
	says(t, a, "chat", 1, 3)
	p.wantsPositions("chat", epoch, 1, 3)
	id := p.id
	p.hangUp()
	p.wantsEnd()
	says(t, a, "chat", 4, 6)
	must(t, b.Send(t.Context(), hearth.ToRoom("chat").Except(id), "mine", nil))
	says(t, b, "chat", 8, 9)

	p = b.peer()
	p.text(fmt.Sprintf(`{"event":"authenticate","hearth":{"version":1,"features":["recovery","resume"],"ticket":%q,"positions":{"chat":{"offset":3,"epoch":%q},"other":{"offset":1,"epoch":"e"}}}}`,
		ticket, epoch))
	got := p.next().text
	for _, want := range []string{`"id":"` + id + `"`, `{"room":"chat","offset":9,"epoch":"` + epoch + `","recovered":5}`} {
		if !strings.Contains(got, want) {
			t.Fatalf("got %s, which lacks %s", got, want)
		}
	}
	p.wantsPositions("chat", epoch, 4, 6)
	p.wantsPositions("chat", epoch, 8, 9)
	p.ticket()
	says(t, a, "chat", 10, 10)
	p.wantsPositions("chat", epoch, 10, 10)
}

// TestResumeOnce resumes one session many times at once, on several servers: one of them succeeds.
func TestResumeOnce(t *testing.T) {
	t.Parallel()
	bus := memory.NewBus(memory.Config{})
	var all []*rig
	for range 3 {
		all = append(all, start(t, resumable(config{Broker: bus.Broker()})))
	}
	all[0].counts(func(s hearth.Stats) bool { return s.Nodes == 3 })
	for range 10 {
		p, ticket := all[0].resumableMember("ada")
		results := make(chan bool)
		for i := range 9 {
			second := all[i%3].peer()
			go func() { // ends with the answer to the ticket
				_ = second.wire.send(opText, fmt.Appendf(nil, `{"event":"authenticate","hearth":{"version":1,"ticket":%q}}`, ticket))
				got, _ := second.in.take(answer)
				results <- strings.Contains(got.text, `"resumed"`)
			}()
		}
		accepted := 0
		for range 9 {
			if <-results {
				accepted++
			}
		}
		if accepted > 1 {
			t.Fatalf("%d clients have resumed the session of %s", accepted, p.id)
		}
	}
}

// A crashingBroker neither delivers nor publishes once it is cut.
type crashingBroker struct{ lossyBroker }

func (b *crashingBroker) Publish(ctx context.Context, m protocol.Message) error {
	if b.cut.Load() {
		return nil
	}
	return b.Broker.Publish(ctx, m)
}

// TestResumeAfterCrash checks that the clients of a server that has crashed can resume, all at
// once, after a second at most.
func TestResumeAfterCrash(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const clients = 300
		bus := memory.NewBus(memory.Config{})
		crashing := &crashingBroker{lossyBroker{Broker: bus.Broker()}}
		a := startPiped(t, resumable(config{Broker: crashing}))
		b := startPiped(t, resumable(config{Broker: bus.Broker(), Limits: hearth.Limits{MaxUnauthenticatedPerAddr: hearth.Unlimited}}))
		time.Sleep(time.Second)
		tickets := make([]string, clients)
		for i := range tickets {
			var p *peer
			p, tickets[i] = a.resumableMember(fmt.Sprint("user ", i))
			p.hangUp()
		}
		crashing.cut.Store(true)
		begun := time.Now()
		peers := make([]*peer, clients)
		for i := range peers {
			peers[i] = b.peer()
			peers[i].resume(tickets[i])
		}
		for _, p := range peers {
			p.wantsResumed()
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v", took)
		}
		p, ticket := b.resumableMember("late")
		p.hangUp()
		begun = time.Now()
		p = b.peer()
		p.resume(ticket)
		p.wantsResumed()
		wantsAfter(t, begun, 0)
	})
}

// TestResumeGivesUp checks that a ticket stays valid whose client has left before its server has
// asked the others about it.
func TestResumeGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bus := memory.NewBus(memory.Config{})
		crashing := &crashingBroker{lossyBroker{Broker: bus.Broker()}}
		startPiped(t, resumable(config{Broker: crashing}))
		b := startPiped(t, resumable(config{Broker: bus.Broker()}))
		time.Sleep(time.Second)
		first, ticket1 := b.resumableMember("ada")
		second, ticket2 := b.resumableMember("bob")
		first.hangUp()
		second.hangUp()
		crashing.cut.Store(true)
		p := b.peer()
		p.resume(ticket1) // the call takes a second
		synctest.Wait()
		leaving := b.peer()
		leaving.resume(ticket2) // waits for the end of that call
		synctest.Wait()
		leaving.hangUp()
		p.wantsResumed()
		back := b.peer()
		back.resume(ticket2)
		back.wantsResumed()
	})
}

// TestResumeExpiry checks that a resumed client has the expiry of its credentials, also after new
// ones, and that a ticket does not outlive them.
func TestResumeExpiry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		lifetime := 30 * time.Second
		r := startPiped(t, resumable(config{Authenticate: func(_ context.Context, req hearth.AuthRequest[credentials]) (hearth.Identity[profile], error) {
			return hearth.Identity[profile]{UserID: "ada", Metadata: profile{req.Credentials.Name}, ExpiresAt: time.Now().Add(lifetime)}, nil
		}}))
		p, ticket := r.resumableMember("old")
		first := r.client(p).ExpiresAt()
		p.hangUp()
		time.Sleep(10 * time.Second)
		p = r.peer()
		p.resume(ticket)
		p.wantsResumed()
		p.ticket()
		if at := r.client(p).ExpiresAt(); at.Sub(first).Abs() > time.Millisecond {
			t.Errorf("the resumed client expires at %v, not %v", at, first)
		}
		lifetime = time.Hour
		p.text(`{"event":"authenticate","data":{"name":"new"},"id":1}`)
		for range 2 { // the ticket comes up to a second later
			if event, raw := p.event(); event == "hearth:ticket" {
				var d struct{ Ticket string }
				must(t, json.Unmarshal(raw, &d))
				ticket = d.Ticket
			}
		}
		second := r.client(p).ExpiresAt()
		p.hangUp()
		time.Sleep(time.Minute)
		p = r.peer()
		p.resume(ticket)
		p.wantsResumed()
		p.ticket()
		if c := r.client(p); c.ExpiresAt().Sub(second).Abs() > time.Millisecond || c.Metadata().Name != "new" {
			t.Errorf("the resumed client expires at %v, not %v, and is %+v", c.ExpiresAt(), second, c.Metadata())
		}
	})
}
