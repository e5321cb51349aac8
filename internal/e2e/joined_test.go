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

// A callbackLog records the callbacks of one client in order. Its fields belong to these callbacks
// until gone is closed.
type callbackLog struct {
	lines  []string
	rooms  map[string]bool // the rooms that the client is in, by the callbacks
	wrong  []string
	closed chan struct{} // closed by Disconnected
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

// callbackLogs has the logs of all clients, by id.
type callbackLogs struct{ sync.Map }

func (all *callbackLogs) of(id string) *callbackLog {
	d, _ := all.LoadOrStore(id, &callbackLog{rooms: make(map[string]bool), closed: make(chan struct{})})
	return d.(*callbackLog)
}

// config returns a configuration in which every callback adds a line. A message `call` runs the
// function in calls that its data names.
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
			close(d.closed)
		},
	}
}

// lines waits until the client's messages have been handled, and returns its log.
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

// ended waits for Disconnected and returns the log.
func (all *callbackLogs) ended(t testing.TB, id string) string {
	t.Helper()
	d := all.of(id)
	select {
	case <-d.closed:
	case <-time.After(answer):
		t.Fatal("Disconnected was not called")
	}
	if len(d.wrong) > 0 || len(d.rooms) > 0 {
		t.Errorf("%v; the client is still in %v", d.wrong, d.rooms)
	}
	return strings.Join(d.lines, ", ")
}

// TestJoinedAndLeft checks that every way to join and leave is reported, after Connected and before
// Disconnected.
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
		do     func(t *testing.T, r *rig, p *peer)
		closed bool
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
					if out.closed {
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

// TestJoinedByClusterCall checks that a call to all servers is reported on the server that has the
// client.
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

// TestJoinedBetweenMessages checks that a client's joins and leaves are reported before its next
// message, and that messages from before a disconnect are handled before Left.
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

// TestChangesWhileBusy checks that changes made while a callback of the client runs are reported
// after it, with the fewest calls that tell where the client is and whether it was away.
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

// reported returns the calls that must report steps made during a callback: the first leave of each
// room that the client was in, and the last join of each room that it is in now, unless it never
// left.
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

// TestConcurrentRoomChanges makes random changes from several goroutines. Joined and Left alternate
// for each room. In the end the callbacks agree with the client's rooms, and after the disconnect
// they have left every room.
func TestConcurrentRoomChanges(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		var all callbackLogs
		stayed := make(chan struct{}, 100)
		cfg := all.config(map[string]func(c *client){
			"move": func(c *client) { changeAtRandom(t, c) },
			"check": func(c *client) { // after the last change
				d := all.of(c.ID())
				for _, room := range c.Rooms()[1:] {
					if !d.rooms[room] {
						t.Errorf("Joined was not called for %s: %v", room, d.lines)
					}
				}
				if len(d.rooms) != len(c.Rooms())-1 {
					t.Errorf("the callbacks report %v, the client is in %v", d.rooms, c.Rooms())
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
				movers.Go(func() { // ends after 50 changes
					for range 50 {
						changeAtRandom(t, c)
					}
				})
			}
			for range 20 {
				p.say([]string{"join", "leave"}[rand.IntN(2)], fmt.Sprintf(`{"rooms":["m%d"]}`, rand.IntN(4)))
				p.say("call", `"move"`)
			}
			if i%2 == 0 { // otherwise the client leaves during the changes
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

// changeAtRandom joins or leaves a random room.
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

// TestHistoryWithoutGap checks that a client that is sent the history in Joined receives every
// message of the room, whenever it joins.
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

// gap reads the history and the messages after it, up to the given number of messages, and returns
// a text that says which one is missing. Messages before the history may come from an earlier visit
// and do not count.
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

// TestShutdownWaitsForLeft checks that Shutdown waits for Joined and Left, and that the end of its
// context ends theirs.
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

// TestJoinedFails checks that panics in Joined and Left do no harm, and that each of the two may be
// set alone.
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
