package e2e_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker/memory"
	"pgregory.net/rapid"
)

// A diary is what the callbacks of one client heard, in order. It belongs to these callbacks until
// the client has gone.
type callbackLog struct {
	lines []string
	rooms map[string]bool // those that the callbacks take the client to be in
	wrong []string
	gone  chan struct{} // closed by Disconnected
}

func (d *callbackLog) note(what string) { d.lines = append(d.lines, what) }

func (d *callbackLog) change(room string, joined bool) {
	if d.rooms[room] == joined {
		d.wrong = append(d.wrong, fmt.Sprintf("%s: joined %v twice in %v", room, joined, d.lines))
	}
	if d.rooms[room] = joined; !joined {
		delete(d.rooms, room)
	}
	d.note(map[bool]string{true: "joined ", false: "left "}[joined] + room)
}

// callbackLogs are those of all clients, by id.
type callbackLogs struct{ sync.Map }

func (all *callbackLogs) of(id string) *callbackLog {
	d, _ := all.LoadOrStore(id, &callbackLog{rooms: make(map[string]bool), gone: make(chan struct{})})
	return d.(*callbackLog)
}

// config has every callback write a line. A message `call` runs calls by its data.
func (all *callbackLogs) config(calls map[string]func(c *client)) config {
	return config{
		DefaultRooms:  []string{"home"},
		ValidateRooms: func(_ context.Context, _ *client, rooms []string) ([]string, error) { return rooms, nil },
		Connected:     func(_ context.Context, c *client) { all.of(c.ID()).note("connected") },
		Joined:        func(_ context.Context, c *client, room string) { all.of(c.ID()).change(room, true) },
		Left:          func(_ context.Context, c *client, room string) { all.of(c.ID()).change(room, false) },
		Message: func(_ context.Context, c *client, m hearth.Message) error {
			d := all.of(c.ID())
			if m.Event == "call" {
				var name string
				if err := m.Decode(&name); err != nil {
					return err
				}
				calls[name](c)
			}
			d.note(m.Event)
			if m.Event == "sync" {
				return c.Send("synced", d.lines)
			}
			return nil
		},
		Disconnected: func(_ context.Context, c *client, _ int, _ string) {
			d := all.of(c.ID())
			d.note("disconnected")
			close(d.gone)
		},
	}
}

// lines waits until the client's messages have been handled, and returns its diary.
func (p *peer) lines() string {
	p.t.Helper()
	p.say("sync", "0")
	event, data := p.event()
	var lines []string
	if err := json.Unmarshal(data, &lines); err != nil || event != "synced" {
		p.t.Fatalf("got %s %s, want synced", event, data)
	}
	return strings.Join(lines, ", ")
}

// ended waits for Disconnected and returns the diary.
func (all *callbackLogs) ended(t testing.TB, id string) string {
	t.Helper()
	d := all.of(id)
	select {
	case <-d.gone:
	case <-time.After(answer):
		t.Fatal("Disconnected was not called")
	}
	if len(d.wrong) > 0 || len(d.rooms) > 0 {
		t.Errorf("%v; the client is still in %v", d.wrong, d.rooms)
	}
	return strings.Join(d.lines, ", ")
}

// TestJoinedAndLeft: every way in and out is reported, and Connected and Disconnected are around
// it.
func TestJoinedAndLeft(t *testing.T) {
	t.Parallel()
	ins := map[string]func(t *testing.T, r *rig, p *peer){
		"join":         func(_ *testing.T, _ *rig, p *peer) { p.say("join", `{"rooms":["r"]}`) },
		"Client.Join":  func(t *testing.T, r *rig, p *peer) { must(t, r.client(p).Join(t.Context(), "r", "r", p.id)) },
		"in a message": func(_ *testing.T, _ *rig, p *peer) { p.say("call", `"join"`) },
		"Server.Join": func(t *testing.T, r *rig, p *peer) {
			if n, err := r.Join(t.Context(), hearth.ToUser(p.user), "r"); n != 1 || err != nil {
				t.Errorf("join: %d, %v", n, err)
			}
		},
	}
	outs := map[string]struct {
		do   func(t *testing.T, r *rig, p *peer)
		gone bool
	}{
		"leave":        {func(_ *testing.T, _ *rig, p *peer) { p.say("leave", `{"rooms":["r","never"]}`) }, false},
		"Client.Leave": {func(_ *testing.T, r *rig, p *peer) { r.client(p).Leave("r", "never", p.id) }, false},
		"in a message": {func(_ *testing.T, _ *rig, p *peer) { p.say("call", `"leave"`) }, false},
		"Server.Leave": {func(t *testing.T, r *rig, p *peer) {
			if n, err := r.Leave(t.Context(), hearth.ToUser(p.user), "r"); n != 1 || err != nil {
				t.Errorf("leave: %d, %v", n, err)
			}
		}, false},
		"close":      {func(_ *testing.T, _ *rig, p *peer) { p.bye(1000, "") }, true},
		"hang up":    {func(_ *testing.T, _ *rig, p *peer) { p.hangUp() }, true},
		"Disconnect": {func(t *testing.T, r *rig, p *peer) { must(t, r.client(p).Disconnect(4000, "")) }, true},
		"Shutdown":   {func(t *testing.T, r *rig, _ *peer) { must(t, r.Shutdown(t.Context())) }, true},
	}
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		for how, in := range ins {
			for end, out := range outs {
				t.Run(how+", "+end, func(t *testing.T) {
					t.Parallel()
					var all callbackLogs
					cfg := all.config(map[string]func(c *client){
						"join":  func(c *client) { must(t, c.Join(t.Context(), "r")) },
						"leave": func(c *client) { c.Leave("r") },
					})
					cfg.Transport = transport
					r := start(t, cfg)
					p := r.member("u")
					in(t, r, p)
					want := "connected, joined home, joined r, sync"
					if strings.HasPrefix(how, "in a") {
						want = strings.Replace(want, "joined r", "call, joined r", 1)
					}
					if got := p.lines(); got != want {
						t.Errorf("got  %s\nwant %s", got, want)
					}
					out.do(t, r, p)
					if out.gone {
						want += ", left home, left r, disconnected"
						if got := all.ended(t, p.id); got != want {
							t.Errorf("got  %s\nwant %s", got, want)
						}
						return
					}
					if strings.HasPrefix(end, "in a") {
						want += ", call"
					}
					want += ", left r, sync"
					if got := p.lines(); got != want {
						t.Errorf("got  %s\nwant %s", got, want)
					}
				})
			}
		}
	})
}

// TestJoinedByClusterCall: a call to all servers is reported on the server that has the client.
func TestJoinedByClusterCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var all callbackLogs
		bus := memory.NewBus(memory.Config{})
		start := func() *rig {
			cfg := all.config(nil)
			cfg.Broker = bus.Broker()
			return startPiped(t, cfg)
		}
		one, two := start(), start()
		p := two.member("u")
		for range 3 {
			if n, err := one.Join(t.Context(), hearth.ToUser("u"), "r"); n != 1 || err != nil {
				t.Errorf("join: %d, %v", n, err)
			}
		}
		synctest.Wait()
		for range 3 {
			if n, err := one.Leave(t.Context(), hearth.ToClient(p.id), "r"); n != 1 || err != nil {
				t.Errorf("leave: %d, %v", n, err)
			}
		}
		if got, want := p.lines(), "connected, joined home, joined r, left r, sync"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// TestJoinedBetweenMessages: a client's joins and leaves are reported before the message behind
// them, and what it sent before it went away is handled before it has left.
func TestJoinedBetweenMessages(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		var all callbackLogs
		cfg := all.config(nil)
		cfg.Transport = transport
		joined := cfg.Joined
		cfg.Joined = func(ctx context.Context, c *client, room string) {
			if !c.In(room) {
				t.Errorf("Joined %s: the client is not in it", room)
			}
			if rand.IntN(4) == 0 {
				time.Sleep(time.Millisecond)
			}
			joined(ctx, c, room)
		}
		r := start(t, cfg)
		for round := range 20 {
			p := r.member("u")
			var messages []string
			want := []string{"connected", "joined home"}
			for i := range 40 {
				messages = append(messages, `{"event":"join","data":{"rooms":["a","b"]}}`, fmt.Sprintf(`{"event":"m%d"}`, i),
					`{"event":"leave","data":{"rooms":["a"]}}`, `{"event":"n"}`, `{"event":"leave","data":{"rooms":["b"]}}`)
				want = append(want, "joined a", "joined b", fmt.Sprint("m", i), "left a", "n", "left b")
			}
			for _, m := range messages {
				p.text(m)
			}
			p.text(`{"event":"join","data":{"rooms":["c"]}}`)
			want = append(want, "joined c", "sync")
			if got := p.lines(); got != strings.Join(want, ", ") {
				t.Fatalf("round %d: got  %s\nwant %s", round, got, want)
			}
			for range 40 {
				p.text(`{"event":"late"}`)
				want = append(want, "late")
			}
			p.bye(1000, "")
			want = append(want, "left home", "left c", "disconnected")
			if got := all.ended(t, p.id); got != strings.Join(want, ", ") {
				t.Fatalf("round %d: got  %s\nwant %s", round, got, want)
			}
		}
	})
}

// TestChangesWhileBusy: changes that are made while a callback of the client runs are reported
// after it, as few as tell where the client is, and whether it has missed anything.
func TestChangesWhileBusy(t *testing.T) {
	t.Parallel()
	rooms := []string{"a", "b", "c", "d"}
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		var all callbackLogs
		var script atomic.Pointer[[]string] // of "+room" and "-room"
		cfg := all.config(map[string]func(c *client){"script": func(c *client) {
			for _, step := range *script.Load() {
				if step[0] == '+' {
					must(t, c.Join(t.Context(), step[1:]))
				} else {
					c.Leave(step[1:])
				}
			}
		}})
		cfg.Transport, cfg.DefaultRooms, cfg.Limits = transport, []string{}, hearth.Limits{MaxRooms: len(rooms)}
		r := start(t, cfg)
		rapid.Check(t, func(t *rapid.T) {
			p := r.member("u")
			defer p.hangUp()
			in, reports := map[string]bool{}, []string{"connected"}
			for range rapid.IntRange(1, 3).Draw(t, "messages") {
				var steps []string
				for range rapid.IntRange(1, 30).Draw(t, "steps") {
					steps = append(steps, rapid.SampledFrom([]string{"+", "-"}).Draw(t, "way")+rapid.SampledFrom(rooms).Draw(t, "room"))
				}
				script.Store(&steps)
				p.say("call", `"script"`)
				reports = append(reports, "call")
				reports = append(reports, reported(in, steps)...)
				reports = append(reports, "sync")
				if got, want := p.lines(), strings.Join(reports, ", "); got != want {
					t.Fatalf("after %v:\ngot  %s\nwant %s", steps, got, want)
				}
			}
		})
	})
}

// reported is what the callbacks hear of steps that were made while one of them was running: for
// each room that the client was in, its first leave, and for each that it is in now, its last join,
// unless it has been there all the time.
func reported(in map[string]bool, steps []string) (reports []string) {
	type event struct {
		step int
		text string
	}
	before := maps.Clone(in)
	firstLeft, lastJoined := map[string]int{}, map[string]int{}
	for i, step := range steps {
		joined, room := step[0] == '+', step[1:]
		if in[room] == joined {
			continue
		}
		in[room] = joined
		if joined {
			lastJoined[room] = i
		} else if _, ok := firstLeft[room]; !ok {
			firstLeft[room] = i
		}
	}
	var events []event
	for room, i := range firstLeft {
		if before[room] {
			events = append(events, event{i, "left " + room})
		}
	}
	for room, i := range lastJoined {
		if in[room] {
			events = append(events, event{i, "joined " + room})
		}
	}
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.step, b.step) })
	for _, e := range events {
		reports = append(reports, e.text)
	}
	return reports
}

// TestConcurrentRoomChanges: while others move a client at random, Joined and Left alternate for
// each room, the callbacks know in the end where the client is, and at the end of the client that
// it is nowhere.
func TestConcurrentRoomChanges(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		var all callbackLogs
		stayed := make(chan struct{}, 100)
		cfg := all.config(map[string]func(c *client){
			"move": func(c *client) { changeAtRandom(t, c) },
			"check": func(c *client) { // nobody moves it any more
				d := all.of(c.ID())
				for _, room := range c.Rooms()[1:] {
					if !d.rooms[room] {
						t.Errorf("Joined was not called for %s: %v", room, d.lines)
					}
				}
				if len(d.rooms) != len(c.Rooms())-1 {
					t.Errorf("in %v by the callbacks, in %v in truth", d.rooms, c.Rooms())
				}
				stayed <- struct{}{}
			},
		})
		cfg.Transport, cfg.Limits = transport, hearth.Limits{MaxRooms: 3}
		connected, joined, left := cfg.Connected, cfg.Joined, cfg.Left
		cfg.Connected = func(ctx context.Context, c *client) {
			connected(ctx, c)
			changeAtRandom(t, c)
		}
		cfg.Joined = func(ctx context.Context, c *client, room string) {
			joined(ctx, c, room)
			if rand.IntN(4) == 0 {
				changeAtRandom(t, c)
			}
		}
		cfg.Left = func(ctx context.Context, c *client, room string) {
			left(ctx, c, room)
			if rand.IntN(4) == 0 {
				changeAtRandom(t, c)
			}
		}
		r := start(t, cfg)
		for i := range 40 {
			p := r.member("u")
			c := r.client(p)
			var movers sync.WaitGroup
			for range 2 {
				movers.Go(func() { // ends by itself
					for range 50 {
						changeAtRandom(t, c)
					}
				})
			}
			for range 20 {
				p.say([]string{"join", "leave"}[rand.IntN(2)], fmt.Sprintf(`{"rooms":["m%d"]}`, rand.IntN(4)))
				p.say("call", `"move"`)
			}
			if i%2 == 0 { // else it leaves in the middle
				movers.Wait()
				p.say("call", `"check"`)
				<-stayed
			}
			p.hangUp()
			all.ended(t, p.id)
			movers.Wait()
		}
	})
}

// changeAtRandom makes a change at random.
func changeAtRandom(t *testing.T, c *client) {
	room := fmt.Sprint("m", rand.IntN(4))
	if rand.IntN(2) == 0 {
		c.Leave(room)
		return
	}
	if err := c.Join(t.Context(), room); err != nil && !errors.Is(err, hearth.ErrTooManyRooms) && !errors.Is(err, hearth.ErrNotConnected) {
		t.Error(err)
	}
}

// TestHistoryWithoutGap: a client that is sent the history in Joined has all that was ever sent to
// the room, whenever it joins.
func TestHistoryWithoutGap(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		for name, brokers := range map[string]func() []hearth.Config[credentials, profile]{
			"alone": func() []config { return []config{{}} },
			"two servers": func() []config {
				bus := memory.NewBus(memory.Config{})
				return []config{{Broker: bus.Broker()}, {Broker: bus.Broker()}}
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				testHistoryWithoutGap(t, transport, brokers())
			})
		}
	})
}

func testHistoryWithoutGap(t *testing.T, transport hearth.Transport, servers []config) {
	const clients, joins = 8, 30 // each
	var mu sync.Mutex            // guards history
	var history []int
	var rigs []*rig
	for _, cfg := range servers {
		cfg.Transport, cfg.Limits = transport, hearth.Limits{BackpressureLimit: 64 << 20}
		cfg.ValidateRooms = func(_ context.Context, _ *client, rooms []string) ([]string, error) { return rooms, nil }
		cfg.Joined = func(_ context.Context, c *client, room string) {
			if room != "r" {
				return
			}
			mu.Lock()
			past := slices.Clone(history)
			mu.Unlock()
			if err := c.Send("history", past); err != nil && !errors.Is(err, hearth.ErrNotConnected) {
				t.Error(err)
			}
		}
		rigs = append(rigs, start(t, cfg))
	}
	publisher, subscriber := rigs[0], rigs[len(rigs)-1]

	stop := make(chan struct{})
	var publishing sync.WaitGroup
	defer publishing.Wait()
	defer close(stop)
	publishing.Go(func() { // ends with stop
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			mu.Lock()
			history = append(history, n)
			mu.Unlock()
			if err := publisher.Send(t.Context(), hearth.ToRoom("r"), "live", n); err != nil {
				t.Error(err)
			}
			time.Sleep(200 * time.Microsecond)
		}
	})
	var joining sync.WaitGroup
	for range clients {
		joining.Go(func() {
			p := subscriber.peer()
			p.login("u")
			for range joins {
				p.say("join", `{"rooms":["r"]}`)
				if gap := p.gap(10); gap != "" {
					t.Error(gap)
					return
				}
				p.say("leave", `{"rooms":["r"]}`)
			}
		})
	}
	joining.Wait()
}

// gap reads the history and what follows it, until that many messages behind the history have come.
// It returns what is missing. What came before the join of the history does not count: it may be of
// an earlier visit.
func (p *peer) gap(behind int) string {
	has := map[int]bool{}
	past, most := -1, -1
	for past < 0 || most < past+behind {
		r, ok := p.in.take(answer)
		var e struct {
			Event string
			Data  json.RawMessage
		}
		if !ok || json.Unmarshal([]byte(r.text), &e) != nil {
			return fmt.Sprintf("got %v, want a message", r)
		}
		switch e.Event {
		case "live":
			var n int
			_ = json.Unmarshal(e.Data, &n)
			has[n] = true
			most = max(most, n)
		case "history":
			var ns []int
			_ = json.Unmarshal(e.Data, &ns)
			for _, n := range ns {
				has[n] = true
			}
			past = len(ns)
		}
	}
	for n := range past + behind {
		if !has[n] {
			return fmt.Sprintf("message %d is missing; the history had %d", n, past)
		}
	}
	return ""
}

// TestShutdownWaitsForLeft: Shutdown waits for Joined and Left; when its context has ended, so has
// theirs.
func TestShutdownWaitsForLeft(t *testing.T) {
	t.Parallel()
	for name, patience := range map[string]time.Duration{"waits": time.Minute, "gives up": time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var calls []string
				cfg := config{DefaultRooms: []string{"a", "b"}}
				report := func(ctx context.Context, what string) {
					select {
					case <-time.After(5 * time.Second):
						calls = append(calls, what)
					case <-ctx.Done():
						calls = append(calls, "no "+what)
					}
				}
				cfg.Joined = func(ctx context.Context, _ *client, room string) { report(ctx, "joined "+room) }
				cfg.Left = func(ctx context.Context, _ *client, room string) { report(ctx, "left "+room) }
				cfg.Disconnected = func(context.Context, *client, int, string) { calls = append(calls, "disconnected") }
				r := startPiped(t, cfg)
				r.member("u")
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				err := r.Shutdown(ctx)
				want := "[joined a joined b left a left b disconnected]"
				if patience < 5*time.Second {
					want = "[no joined a no joined b no left a no left b disconnected]"
				}
				if got := fmt.Sprint(calls); got != want || (err == nil) != (patience > 5*time.Second) {
					t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
				}
			})
		})
	}
}

// TestJoinedFails: a panic in Joined and Left, and one of the two alone, harm nothing.
func TestJoinedFails(t *testing.T) {
	t.Parallel()
	fail := func(context.Context, *client, string) { panic("fail") }
	for name, cfg := range map[string]config{
		"both": {Joined: fail, Left: fail}, "Joined": {Joined: fail}, "Left": {Left: fail},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cfg.DefaultRooms = []string{}
				cfg.ValidateRooms = func(_ context.Context, _ *client, rooms []string) ([]string, error) { return rooms, nil }
				cfg.Message = func(_ context.Context, c *client, m hearth.Message) error { return c.Send(m.Event, m.Data) }
				r := startPiped(t, cfg)
				p := r.member("u")
				p.say("join", `{"rooms":["r"]}`)
				p.say("leave", `{"rooms":["r"]}`)
				p.say("m", "1")
				p.wants(`{"event":"m","data":1}`)
				want := uint64(1)
				if name == "both" {
					want = 2
				}
				if n := r.Stats().CallbackErrors; n != want {
					t.Errorf("%d callback errors", n)
				}
			})
		})
	}
}
