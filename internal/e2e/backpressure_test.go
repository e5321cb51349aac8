package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/hearthws/hearth"
)

// slowPeer authenticates as user and then stops to read. Its kernel buffer is small, but larger
// than one segment of the loopback interface: with less, TCP itself slows down.
func (r *rig) slowPeer(user string) *rawWire {
	r.t.Helper()
	conn, err := r.dial()
	must(r.t, err)
	must(r.t, conn.(*net.TCPConn).SetReadBuffer(256<<10))
	w, err := upgrade(conn)
	must(r.t, err)
	r.t.Cleanup(w.close)
	must(r.t, w.send(opText, []byte(`{"event":"authenticate","data":{"as":"`+user+`"}}`)))
	_, _, err = w.recv()
	must(r.t, err)
	return w
}

type numbered struct {
	N       int
	Padding string
}

// flood sends numbered messages to all clients, at the pace of quick, until enough returns true. It
// returns the number of messages.
func (r *rig) flood(quick *peer, enough func(sent int) bool) int {
	r.t.Helper()
	n := 0
	for padding := repeat("x", 1000); !enough(n); n++ {
		must(r.t, r.Local().Send(r.t.Context(), hearth.ToAll(), "m", numbered{n, padding}))
		must(r.t, r.Local().WaitPending(r.t.Context(), hearth.ToClient(quick.id), 32<<10))
		if n > 100_000 {
			r.t.Fatal("a client that does not read accepts every message")
		}
	}
	return n
}

func (p *peer) wantsNumbers(n int) {
	p.t.Helper()
	for i := range n {
		_, data := p.event()
		var m numbered
		if err := json.Unmarshal(data, &m); err != nil || m.N != i {
			p.t.Fatalf("got message %d (%v), want %d", m.N, err, i)
		}
	}
}

// TestBackpressure checks that a client that reads too slowly loses messages, is marked and
// recovers, and that other clients are not affected.
func TestBackpressure(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		r := start(t, config{Transport: transport, Limits: hearth.Limits{BackpressureLimit: 256 << 10}})
		quick := r.member("quick")
		w := r.slowPeer("slow")
		slow := r.Local().Clients(hearth.ToUser("slow"))[0]
		most := 0
		// the kernel takes some messages now and then, until its buffers are full
		total := r.flood(quick, func(int) bool {
			waiting := r.Local().Pending(hearth.ToAll())
			most = max(most, waiting)
			return r.Stats().Dropped >= 50 && slow.Backpressured() && waiting > 200<<10
		})
		// the limit, the messages that the loop has not handled yet, and those that are being
		// handed over, which count twice
		if most > 400<<10 {
			t.Errorf("up to %d bytes were pending", most)
		}
		if r.client(quick).Backpressured() {
			t.Error("the quick client is marked")
		}
		quick.wantsNumbers(total)
		r.counts(func(s hearth.Stats) bool { return int(s.Delivered+s.Dropped) == 2*total+2 })
		dropped := int(r.Stats().Dropped)

		late := newPeer(t, w) // starts to read
		last := -1
		for range total - dropped { // some are missing; the rest are in order
			_, data := late.event()
			var m numbered
			if err := json.Unmarshal(data, &m); err != nil || m.N <= last {
				t.Fatalf("got message %d behind %d (%v)", m.N, last, err)
			}
			last = m.N
		}
		must(t, r.Local().WaitPending(t.Context(), hearth.ToAll(), 0))
		if slow.Backpressured() {
			t.Error("still marked after it has read everything")
		}
		must(t, slow.Send("again", 1))
		late.wants(`{"event":"again","data":1}`)
		r.counts(func(s hearth.Stats) bool {
			return int(s.Dropped) == dropped && int(s.Delivered) == 2*total-dropped+1+2 && s.SlowClosed == 0
		})
	})
}

func TestCloseOnBackpressure(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		type end struct {
			code   int
			reason string
		}
		closed := make(chan end, 10)
		r := start(t, config{
			Transport: transport, Limits: hearth.Limits{BackpressureLimit: 256 << 10, CloseOnBackpressure: true}, Timeouts: hearth.Timeouts{Close: time.Minute},
			Disconnected: func(_ context.Context, _ *client, code int, reason string) { closed <- end{code, reason} },
		})
		quick := r.member("quick")
		w := r.slowPeer("slow")
		total := r.flood(quick, func(int) bool { return r.Local().Count(hearth.ToUser("slow")) == 0 })
		if e := <-closed; e != (end{1013, "Slow consumer"}) {
			t.Errorf("disconnected with %v", e)
		}
		quick.wantsNumbers(total)
		late := newPeer(t, w)
		n := 0
		for msg := late.next(); ; msg = late.next() {
			if msg.code == 1013 && msg.reason == "Slow consumer" {
				break
			}
			if msg.text == "" {
				t.Fatalf("got %v after %d messages", msg, n)
			}
			n++
		}
		if n == 0 || n >= total {
			t.Errorf("%d of %d messages before the close", n, total)
		}
		if s := r.Stats(); s.SlowClosed != 1 || s.Clients != 1 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// TestPacing checks that a sender that waits for the slowest client loses no message.
func TestPacing(t *testing.T) {
	t.Parallel()
	forTransports(t, func(t *testing.T, transport hearth.Transport) {
		const messages, limit = 4000, 256 << 10
		r := start(t, config{Transport: transport, Limits: hearth.Limits{BackpressureLimit: limit}})
		quick := r.member("quick")
		w := r.slowPeer("slow")
		done := make(chan error, 1)
		go func() { // ends with the last message, or with the connection
			for i := range messages {
				_, payload, err := w.recv()
				var m struct{ Data numbered }
				if err == nil {
					err = json.Unmarshal(payload, &m)
				}
				if err == nil && m.Data.N != i {
					err = errors.New("a message is missing")
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		for i := range messages {
			must(t, r.Local().Send(t.Context(), hearth.ToAll(), "m", numbered{i, repeat("x", 2000)}))
			must(t, r.Local().WaitPending(t.Context(), hearth.ToAll(), limit/4))
			// what is being handed over may count twice
			if n := r.Local().Pending(hearth.ToAll()); n > 2*limit/4 {
				t.Fatalf("%d bytes pending", n)
			}
		}
		must(t, <-done)
		quick.wantsNumbers(messages)
		if s := r.Stats(); s.Dropped != 0 {
			t.Errorf("%d messages dropped", s.Dropped)
		}
	})
}

// TestWaitPendingTooLong checks that waiting for a client that reads nothing lasts until the
// context ends.
func TestWaitPendingTooLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := startPiped(t, config{})
		w := r.raw()
		must(t, w.send(opText, []byte(`{"event":"authenticate","data":{"as":"slow"}}`)))
		_, _, err := w.recv() // connected; nothing is read after it
		must(t, err)
		must(t, r.Local().Send(t.Context(), hearth.ToUser("slow"), "m", 1))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := r.Local().WaitPending(ctx, hearth.ToUser("slow"), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a context that ends: %v", err)
		}
		wantsAfter(t, began, 10*time.Millisecond)
		waiting := make(chan error, 1)
		// ends when the client is closed
		go func() { waiting <- r.Local().WaitPending(t.Context(), hearth.ToUser("slow"), 0) }()
		w.close()
		must(t, <-waiting)
	})
}

func TestWaitPendingEnds(t *testing.T) {
	t.Parallel()
	r := start(t, config{Limits: hearth.Limits{BackpressureLimit: 256 << 10}})
	quick := r.member("quick")
	w := r.slowPeer("slow")
	r.flood(quick, func(int) bool { return r.Stats().Dropped > 0 })
	waiting := make(chan error, 1)
	// ends when the client is closed
	go func() { waiting <- r.Local().WaitPending(t.Context(), hearth.ToUser("slow"), -1) }()
	w.close()
	must(t, <-waiting)
}

// TestSendQueue checks that senders that are faster than the loops get ErrQueueFull.
func TestSendQueue(t *testing.T) {
	t.Parallel()
	r := start(t, config{Limits: hearth.Limits{SendQueue: 64 << 10, BackpressureLimit: 64 << 20}})
	p := r.member("u")
	padding := repeat("x", 32<<10)
	sent, full := 0, 0
	for full == 0 {
		switch err := r.Local().Send(t.Context(), hearth.ToAll(), "m", numbered{sent, padding}); {
		case err == nil:
			sent++
		case errors.Is(err, hearth.ErrQueueFull):
			full++
		default:
			t.Fatal(err)
		}
		if sent > 100_000 {
			t.Skip("the loop is faster than this goroutine")
		}
	}
	p.wantsNumbers(sent)
}
