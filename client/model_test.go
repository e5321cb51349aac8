package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/client"
	"github.com/hearthws/hearth/internal/test/behaviour"
	"pgregory.net/rapid"
)

// TestModel lets the network and the server fail at random while messages are sent, and compares
// what clients have received with what was sent: each client must have received each message of its
// rooms once and in order, or the room must have reported in the right place that messages may be
// missing.
func TestModel(t *testing.T) {
	t.Parallel()
	var total totals
	rapid.Check(t, func(rt *rapid.T) {
		m := model{
			cfg: behaviour.Config{
				History: rapid.SampledFrom([]int{3, 50, 1000}).Draw(rt, "history"), Encryption: "optional",
				Resume: rapid.SampledFrom([]int{0, 120}).Draw(rt, "resume"), Buffer: 32 << 10,
				DefaultRooms: rapid.SampledFrom([][]string{{}, {"h:a"}, {"h:a", "plain"}}).Draw(rt, "default rooms"),
			},
			steps: rapid.SliceOfN(rapid.Custom(drawStep), 1, 40).Draw(rt, "steps"),
		}
		synctest.Test(t, func(t *testing.T) { m.run(t) })
		total.add(m.totals)
		if len(m.errs) > 0 {
			rt.Fatalf("%v", errors.Join(m.errs...))
		}
	})
	t.Logf("%+v", total)
	if !t.Failed() && (total.Recovered == 0 || total.Reported == 0 || total.Received == 0) {
		t.Errorf("the model does not test recovery: %+v", total)
	}
}

// modelStep is one step of the model: something that happens, and a time afterwards.
type modelStep struct {
	Kind string
	N    int           // of messages
	Room string        // for send and leave
	Wait time.Duration // afterwards
}

func drawStep(t *rapid.T) modelStep {
	return modelStep{
		Kind: rapid.SampledFrom([]string{"send", "send", "send", "send", "cut", "cut", "kill", "stop", "freeze", "remove", "block", "request"}).Draw(t, "kind"),
		N:    rapid.IntRange(1, 30).Draw(t, "n"),
		Room: rapid.SampledFrom(modelRooms).Draw(t, "room"),
		Wait: rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, 100 * time.Millisecond, time.Second, 3 * time.Second, 50 * time.Second}).Draw(t, "wait"),
	}
}

var modelRooms = []string{"h:a", "h:b", "plain"}

type totals struct{ Sent, Received, Recovered, Reported, Missing int }

func (t *totals) add(other totals) {
	t.Sent += other.Sent
	t.Received += other.Received
	t.Recovered += other.Recovered
	t.Reported += other.Reported
	t.Missing += other.Missing
}

// model is one run. Only its goroutine and, one at a time, the callbacks of its clients use it.
type model struct {
	cfg   behaviour.Config
	steps []modelStep

	world    *behaviour.World
	sent     map[string]int // messages of each room
	watchers []*watcher
	asking   sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	errs   []error
	totals totals
}

// watcher checks what one client receives.
type watcher struct {
	m      *model
	name   string
	client *client.Client
	rooms  map[string]*client.Room
	last   map[string]int  // the number of the last message of each room; owned by the callbacks
	gap    map[string]bool // the room has reported a gap since; owned by the callbacks
	block  chan time.Duration
	done   map[string]chan struct{} // closed after the last message of the room
}

func (m *model) fail(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.errs = append(m.errs, fmt.Errorf(format, args...))
}

// numbered is the data of a message: its room, its number, and text that makes it larger.
type numbered struct {
	Room string
	N    int
	Last bool
	Pad  string
}

func (m *model) run(t *testing.T) {
	m.world, m.sent = newWorld(t, m.cfg), map[string]int{}
	for _, encrypted := range []bool{false, true} {
		m.watch(t, fmt.Sprint("encrypted ", encrypted), encrypted)
	}
	for _, s := range m.steps {
		m.perform(t, s)
		<-time.After(s.Wait)
	}
	m.finish(t)
}

// watch makes a client that is in all rooms.
func (m *model) watch(t *testing.T, name string, encrypted bool) {
	w := &watcher{m: m, name: name, rooms: map[string]*client.Room{}, last: map[string]int{}, gap: map[string]bool{},
		block: make(chan time.Duration, 1000), done: map[string]chan struct{}{}}
	w.client = newClient(t, m.world, client.Config{Credentials: login{User: "ada"}, Encryption: encrypted, Buffer: 8 << 10})
	client.On(w.client, "numbered", w.received)
	for _, name := range modelRooms {
		room, err := w.client.Join(name, client.RoomConfig{Changed: func(s client.RoomStatus) { w.changed(name, s) }})
		must(t, err)
		w.rooms[name], w.done[name] = room, make(chan struct{})
	}
	must(t, w.client.Connect(t.Context()))
	for _, room := range w.rooms {
		must(t, room.Wait(t.Context()))
	}
	m.watchers = append(m.watchers, w)
}

// received checks a message.
func (w *watcher) received(n numbered) {
	select {
	case d := <-w.block:
		<-time.After(d)
	default:
	}
	w.m.mu.Lock()
	w.m.totals.Received++
	w.m.totals.Missing += max(0, n.N-w.last[n.Room]-1)
	w.m.mu.Unlock()
	switch last := w.last[n.Room]; {
	case n.N <= last:
		w.m.fail("%s: %s: message %d after %d", w.name, n.Room, n.N, last)
	case n.N > last+1 && !w.gap[n.Room]:
		w.m.fail("%s: %s: message %d after %d, and no report", w.name, n.Room, n.N, last)
	}
	w.last[n.Room], w.gap[n.Room] = n.N, false
	if n.Last {
		close(w.done[n.Room])
	}
}

// changed notes reports.
func (w *watcher) changed(room string, s client.RoomStatus) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.m.totals.Recovered += s.Recovered
	if s.Unrecovered != "" {
		w.m.totals.Reported++
		w.gap[room] = true
	}
}

// perform performs a step.
func (m *model) perform(t *testing.T, s modelStep) {
	switch s.Kind {
	case "send":
		for range s.N {
			m.send(t, s.Room, false)
		}
	case "cut":
		do(t, m.world, `"cut"`)
	case "kill", "stop":
		do(t, m.world, `"`+s.Kind+`"`)
		<-time.After(s.Wait)
		must(t, m.world.Start(m.cfg))
	case "freeze":
		do(t, m.world, `"freeze"`)
		for range min(s.N, 5) {
			m.send(t, s.Room, false)
		}
		<-time.After(s.Wait)
		do(t, m.world, `"thaw"`)
	case "remove":
		if strings.HasPrefix(s.Room, "h:") {
			do(t, m.world, `"remove-history","`+s.Room+`"`)
		}
	case "block":
		for _, w := range m.watchers {
			w.block <- time.Duration(s.N) * 10 * time.Millisecond
		}
	case "request":
		for _, w := range m.watchers {
			m.asking.Go(func() { m.ask(w, s.N) })
		}
	}
}

// ask makes a request, which must be answered or fail.
func (m *model) ask(w *watcher, n int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	v, err := client.Request[int](ctx, w.client, "echo", n)
	if err == nil && v != n || err != nil && !errors.Is(err, client.ErrDisconnected) {
		m.fail("%s: request %d: %d, %v", w.name, n, v, err)
	}
}

func (m *model) send(t *testing.T, room string, last bool) {
	m.sent[room]++
	m.mu.Lock()
	m.totals.Sent++
	m.mu.Unlock()
	must(t, m.world.Send(t.Context(), "room:"+room, "numbered", numbered{room, m.sent[room], last, strings.Repeat("x", 500)}))
}

// finish lets the clients connect and receive the rest, and sends a last message to each room.
func (m *model) finish(t *testing.T) {
	m.asking.Wait()
	<-time.After(time.Hour) // longer than any wait
	for _, w := range m.watchers {
		if s := w.client.State(); s.Phase != client.Connected {
			m.fail("%s: %+v", w.name, s)
			return
		}
	}
	for _, room := range modelRooms {
		m.send(t, room, true)
	}
	for _, w := range m.watchers {
		for _, room := range modelRooms {
			select {
			case <-w.done[room]:
			case <-time.After(time.Hour):
				m.fail("%s: %s: the last message has not arrived: %+v", w.name, room, w.rooms[room].Status())
			}
		}
	}
}
