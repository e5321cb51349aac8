package hub_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/hearthws/hearth/internal/hub"
	"github.com/hearthws/hearth/internal/ws"
)

func expect(t *testing.T, c *client, events ...string) {
	t.Helper()
	if diff := cmp.Diff(events, c.events()); diff != "" {
		t.Errorf("%s got (-want +got):\n%s", c.name, diff)
	}
}

func send(t *testing.T, h *hub.Hub, target hub.Target, event string, exclude ...string) {
	t.Helper()
	for i, name := range exclude {
		exclude[i] = idOf(name).String()
	}
	if err := h.Send(target, message(event), exclude); err != nil {
		t.Fatalf("send %s: %v", event, err)
	}
}

func TestNothingPrecedesTheWelcome(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	c := connect(h, "c", 0)
	c.Control(ws.AppendFrame(nil, ws.OpPing, nil))
	admit(h, "other", 0, "u", "r") // so that the groups exist before
	send(t, h, toAll(), "early")
	send(t, h, toRoom("r"), "early")
	h.Admit(&c.Member, hub.Admission{User: "u", Rooms: []string{"r"}, Welcome: message("connected")})
	send(t, h, toUser("u"), "late")
	settle(h, 1)
	expect(t, c, "ping", "connected", "late")
}

func TestClientsOwnRoom(t *testing.T) {
	t.Parallel()
	h := newHub(2, hub.Config{})
	c, guest := admit(h, "c", 0, ""), admit(h, "guest", 1, "")
	own := c.ID()
	if _, err := h.Join(&guest.Member, own); err != nil {
		t.Fatal(err)
	}
	send(t, h, toRoom(own), "both")
	if !h.Leave(&c.Member, own) || h.InRoom(&c.Member, own) || !h.InRoom(&guest.Member, own) {
		t.Error("the client is still in its own room")
	}
	send(t, h, toRoom(own), "guest only")
	send(t, h, toClient("c"), "client only")
	if got := h.Members(nil, toRoom(own)); len(got) != 1 || got[0] != &guest.Member {
		t.Errorf("members of the room: %v", got)
	}
	if joined, err := h.Join(&c.Member, own); !joined || err != nil {
		t.Errorf("join again: %v, %v", joined, err)
	}
	send(t, h, toRoom(own), "not the guest", "guest")
	settle(h, 2)
	expect(t, c, "connected", "both", "client only", "not the guest")
	expect(t, guest, "connected", "both", "guest only")
}

// TestDropped checks that a slow client loses the newest messages, keeps the order, and does not
// affect other clients.
func TestDropped(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	size := len(message("m0").Frame())
	quick, slow, full := admit(h, "quick", 0, ""), admit(h, "slow", 0, ""), admit(h, "full", 0, "")
	settle(h, 1)
	slow.room, full.room = 3*size, 0
	var all []string
	for i := range 8 { // one batch
		all = append(all, fmt.Sprint("m", i))
		send(t, h, toAll(), all[i])
	}
	settle(h, 1)
	expect(t, quick, append([]string{"connected"}, all...)...)
	expect(t, slow, "connected", "m0", "m1", "m2")
	expect(t, full, "connected")
	if slow.dropped != 5 || full.dropped != 8 || h.Dropped() != 13 {
		t.Errorf("dropped: slow %d, full %d, all %d", slow.dropped, full.dropped, h.Dropped())
	}
	if want := uint64(3 + 8 + 3); h.Delivered() != want {
		t.Errorf("delivered %d, want %d", h.Delivered(), want)
	}
	slow.room = -1
	send(t, h, toClient("slow"), "again")
	settle(h, 1)
	expect(t, slow, "connected", "m0", "m1", "m2", "again")
}

// TestDroppedClosed checks that a client that is closed for a dropped message gets no later
// message, although it would fit.
func TestDroppedClosed(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	c := admit(h, "c", 0, "", "r")
	settle(h, 1)
	c.room, c.dropClosed = 0, true
	send(t, h, toRoom("r"), "dropped")
	settle(h, 1)
	c.room = -1
	send(t, h, toRoom("r"), "too late")
	send(t, h, toClient("c"), "too late")
	c.CloseAfterFlush(nil)
	settle(h, 1)
	expect(t, c, "connected")
	if c.dropped != 1 || !c.finished {
		t.Errorf("dropped %d, finished %v", c.dropped, c.finished)
	}
}

// TestPositions checks that each member of a room gets the form of a message that it wants, alone
// and in a series, also if only a part of the series fits.
func TestPositions(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	plain, deflated := admit(h, "plain", 0, "", "r"), admit(h, "deflated", 0, "", "r")
	deflated.Deflate = true
	positions, both, slow := admit(h, "positions", 0, "", "r"), admit(h, "both", 0, "", "r"), admit(h, "slow", 0, "", "r")
	positions.Positions, slow.Positions = true, true
	both.Deflate, both.Positions = true, true
	settle(h, 1)
	series := func(names ...string) *ws.Message {
		return ws.BuildSeries(len(names), 0, func(dst []byte, i int) []byte {
			return append(append(append(dst, `{"event":"`...), names[i]...), `"}`...)
		})
	}
	slow.room = len(series("p1", "p2").Frame())
	for _, msg := range []*ws.Message{
		series("m1", "m2", "m3").WithPositions(series("p1", "p2", "p3")), message("both"), message("m4").WithPositions(message("p4")),
	} {
		if err := h.Send(toRoom("r"), msg, nil); err != nil {
			t.Fatal(err)
		}
	}
	settle(h, 1)
	for _, c := range []*client{plain, deflated} {
		expect(t, c, "connected", "m1", "m2", "m3", "both", "m4")
	}
	for _, c := range []*client{positions, both} {
		expect(t, c, "connected", "p1", "p2", "p3", "both", "p4")
	}
	expect(t, slow, "connected", "p1", "p2")
}

// TestLargeBatches sends more than fits into one write, and into one turn.
func TestLargeBatches(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	a, b := admit(h, "a", 0, "u", "r"), admit(h, "b", 0, "u", "r")
	want := []string{"connected"}
	targets := []hub.Target{toAll(), toRoom("r"), toUser("u"), toAll(), toAll()}
	filler := strings.Repeat("x", 40_000)
	for i := range 50 {
		event := fmt.Sprint("m", i)
		want = append(want, event)
		msg := ws.NewMessage([]byte(`{"event":"` + event + `","data":"` + filler + `"}`))
		if err := h.Send(targets[i%len(targets)], msg, nil); err != nil {
			t.Fatal(err)
		}
	}
	turns := 1
	for h.Lane(0).Tick() {
		turns++
	}
	if turns < 50*40_000/(512<<10) {
		t.Errorf("sent in %d turns: a loop would not read in between", turns)
	}
	expect(t, a, want...)
	expect(t, b, want...)
}

func TestCompressedAndPlain(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	plain := admit(h, "plain", 0, "", "r")
	deflated := connect(h, "deflated", 0)
	deflated.Deflate = true
	h.Admit(&deflated.Member, hub.Admission{Rooms: []string{"r"}, Welcome: message("connected")})
	settle(h, 1)
	before, beforeDeflated := len(plain.got), len(deflated.got)
	want := []string{"connected"}
	for i := range 3 {
		want = append(want, fmt.Sprint("m", i))
		msg := ws.NewMessage([]byte(`{"event":"` + want[i+1] + `","data":"` + strings.Repeat("again ", 500) + `"}`))
		if err := h.Send(toRoom("r"), msg, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.SendTo(&deflated.Member, ws.NewMessage([]byte(`{"event":"direct","data":"`+strings.Repeat("z", 3000)+`"}`))); err != nil {
		t.Fatal(err)
	}
	settle(h, 1)
	expect(t, plain, want...)
	expect(t, deflated, append(want, "direct")...)
	if p, d := len(plain.got)-before, len(deflated.got)-beforeDeflated; d*5 > p {
		t.Errorf("%d bytes compressed to %d", p, d)
	}
}

// TestQueueFull checks that a full lane rejects messages, and accepts welcomes and last frames.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	h := newHub(2, hub.Config{SendQueue: 1000})
	behind, other := admit(h, "behind", 0, ""), admit(h, "other", 1, "")
	settle(h, 2)
	var want []string
	for i := 0; ; i++ {
		event := fmt.Sprint("m", i)
		err := h.Send(toClient("behind"), message(event), nil)
		if errors.Is(err, hub.ErrQueueFull) {
			break
		}
		if err != nil || i > 1000 {
			t.Fatalf("message %d: %v", i, err)
		}
		want = append(want, event)
	}
	if err := h.SendTo(&behind.Member, message("more")); !errors.Is(err, hub.ErrQueueFull) {
		t.Errorf("SendTo: %v", err)
	}
	if err := h.Send(toAll(), message("to all"), nil); !errors.Is(err, hub.ErrQueueFull) {
		t.Errorf("to all: %v", err)
	}
	late := admit(h, "late", 0, "")
	behind.Member.CloseAfterFlush(ws.AppendClose(nil, 1001, ""))
	settle(h, 2)
	expect(t, behind, append(append([]string{"connected"}, want...), "close 1001")...)
	expect(t, other, "connected", "to all")
	expect(t, late, "connected")
	send(t, h, toAll(), "room again")
	settle(h, 2)
	expect(t, late, "connected", "room again")
}

func TestPending(t *testing.T) {
	t.Parallel()
	h := newHub(2, hub.Config{})
	a, b := admit(h, "a", 0, "u", "r"), admit(h, "b", 1, "u", "r")
	settle(h, 2)
	a.buffered.Store(100)
	b.buffered.Store(300)
	for target, want := range map[hub.Target]int{
		toAll(): 300, toRoom("r"): 300, toUser("u"): 300, toClient("a"): 100, toRoom(a.ID()): 100, toRoom("nobody"): 0, toClient("x"): 0,
	} {
		if got := h.Pending(target); got != want {
			t.Errorf("Pending(%v) = %d, want %d", target, got, want)
		}
	}
	send(t, h, toClient("a"), "waiting")
	if got, want := h.Pending(toClient("a")), 100+len(message("waiting").Frame()); got != want {
		t.Errorf("Pending with a message in the lane = %d, want %d", got, want)
	}
	settle(h, 2)
	if got := h.Pending(toClient("a")); got != 100 {
		t.Errorf("Pending after the turn = %d, want 100", got)
	}
}

// TestPendingDuringATurn checks that a message counts in the lane until the end of the turn, when
// it may count in the link, too.
func TestPendingDuringATurn(t *testing.T) {
	t.Parallel()
	h := newHub(1, hub.Config{})
	size := len(message("waiting").Frame())
	w := &watchedClient{client: client{room: -1}}
	w.Init(idOf("a"), w, h.Lane(0), w)
	h.Admit(&w.Member, hub.Admission{Rooms: []string{"r"}, Welcome: message("connected")})
	settle(h, 1)
	asked := 0
	w.writing = func(taken int) {
		asked++
		if got := h.Pending(toRoom("r")); got < size || got > size+taken {
			t.Errorf("Pending = %d, want %d to %d", got, size, size+taken)
		}
	}
	send(t, h, toRoom("r"), "waiting")
	settle(h, 1)
	if got := h.Pending(toRoom("r")); got != size || asked != 2 {
		t.Errorf("Pending = %d after the turn, want %d; called %d times within it, want 2", got, size, asked)
	}
}

// watchedClient calls writing before and after its link accepts bytes, with their number.
type watchedClient struct {
	client
	writing func(taken int)
}

func (w *watchedClient) WriteNow(p []byte) bool { return w.Write(p) }

func (w *watchedClient) Write(p []byte) bool {
	if w.writing != nil {
		w.writing(0)
		w.buffered.Add(int64(len(p)))
		w.writing(len(p))
	}
	return w.client.Write(p)
}

// TestPendingOfALaneWithoutBacklog checks that Pending does not read the members of such a lane.
func TestPendingOfALaneWithoutBacklog(t *testing.T) {
	t.Parallel()
	backlogged := []bool{false, true}
	h := newHub(2, hub.Config{Backlogged: func(lane int) bool { return backlogged[lane] }})
	a, b := admit(h, "a", 0, "u", "r"), admit(h, "b", 1, "u", "r")
	settle(h, 2)
	a.buffered.Store(300)
	b.buffered.Store(100)
	if got := h.Pending(toRoom("r")); got != 100 {
		t.Errorf("Pending = %d, want that of the only lane with a backlog, 100", got)
	}
	send(t, h, toRoom("r"), "waiting")
	if got, want := h.Pending(toRoom("r")), 100+len(message("waiting").Frame()); got != want {
		t.Errorf("Pending with a message in the lanes = %d, want %d", got, want)
	}
}

func TestWaitPending(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var woken atomic.Int32
		h := newHub(1, hub.Config{Wake: func(int) { woken.Add(1) }})
		c := admit(h, "c", 0, "")
		settle(h, 1)
		c.buffered.Store(1000)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		for range 3 {
			go func() { done <- h.WaitPending(ctx, toClient("c"), 500) }()
		}
		synctest.Wait()
		if woken.Load() < 2 {
			t.Error("WaitPending did not wake the loop, which may have ended its turn already")
		}
		c.buffered.Store(700)
		settle(h, 1)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("WaitPending(500) returned at 700 bytes: %v", err)
		default:
		}
		c.buffered.Store(500)
		settle(h, 1)
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		c.buffered.Store(1000)
		go func() { done <- h.WaitPending(ctx, toAll(), 0) }()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		if err := h.WaitPending(t.Context(), toRoom("nobody"), 0); err != nil {
			t.Errorf("WaitPending for an empty room: %v", err)
		}
		for _, end := range []func(){func() { h.Leave(&c.Member, "r") }, func() { h.Remove(&c.Member) }} {
			if _, err := h.Join(&c.Member, "r"); err != nil {
				t.Fatal(err)
			}
			go func() { done <- h.WaitPending(t.Context(), toRoom("r"), 0) }()
			synctest.Wait()
			end()
			synctest.Wait()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			default:
				t.Fatal("still waiting after the slowest client has left")
			}
		}
	})
}

// TestConcurrency calls all methods concurrently, for the race detector. It checks that the
// messages of one goroutine to a client that stays arrive in order.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	const lanes, messages = 2, 300
	h := newHub(lanes, hub.Config{})
	stays := admit(h, "stays", 0, "u", "r")
	var loops, work sync.WaitGroup
	stop := make(chan struct{})
	for i := range lanes {
		loops.Go(func() { // ends with stop
			for {
				select {
				case <-stop:
					return
				default:
					h.Lane(i).Tick()
					runtime.Gosched()
				}
			}
		})
	}
	for g := range 3 {
		work.Go(func() {
			for i := range messages {
				target := []hub.Target{toAll(), toRoom("r"), toUser("u"), toClient("stays")}[i%4]
				if err := h.Send(target, message(fmt.Sprint(g, "-", i)), []string{idOf("x1-2").String()}); err != nil {
					t.Error(err)
				}
			}
		})
		work.Go(func() {
			for i := range messages {
				c := admit(h, fmt.Sprint("x", g, "-", i), i%lanes, "u", "r")
				_, _ = h.Join(&c.Member, "s")
				h.Leave(&c.Member, "r")
				_, _ = h.Join(&c.Member, "r")
				h.Members(nil, toUser("u"))
				h.Remove(&c.Member)
			}
		})
	}
	work.Wait()
	close(stop)
	loops.Wait()
	settle(h, lanes)
	events := stays.events()
	for g := range 3 {
		var want, got []string
		for i := range messages {
			want = append(want, fmt.Sprint(g, "-", i))
		}
		for _, e := range events {
			if strings.HasPrefix(e, fmt.Sprint(g, "-")) {
				got = append(got, e)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("goroutine %d: messages are missing or out of order: got %d of %d", g, len(got), len(want))
		}
	}
	if n := h.Count(toAll()); n != 1 {
		t.Errorf("%d members left", n)
	}
}

// TestMemoryIsFreed checks that 100,000 rooms without members use no memory, whether a lane takes
// turns or not.
func TestMemoryIsFreed(t *testing.T) {
	const members, rooms = 100, 1000
	h := newHub(1, hub.Config{})
	for i := range members {
		admit(h, fmt.Sprint("stays", i), 0, "u", "r")
	}
	settle(h, 1)
	before := heap()
	for i := range members {
		c := admit(h, fmt.Sprint("c", i), 0, fmt.Sprint("user", i), "r")
		c.room = 0
		for j := range rooms {
			if _, err := h.Join(&c.Member, fmt.Sprint("room", i, "-", j)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := h.CountRooms(); n != members*rooms+1 {
		t.Fatalf("%d rooms", n)
	}
	for i := range members {
		m := h.Client(idOf(fmt.Sprint("c", i)).String())
		for j := range rooms / 2 {
			h.Leave(m, fmt.Sprint("room", i, "-", j))
		}
		h.Remove(m)
	}
	settle(h, 1)
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("%d bytes are in use after all clients have left", grown)
	}
	if n := h.CountRooms(); n != 1 {
		t.Errorf("%d rooms are left, want 1", n)
	}
	runtime.KeepAlive(h)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // frees the content of pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
