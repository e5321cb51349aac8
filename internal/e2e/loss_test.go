package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/protocol"
)

// lossBroker reports the losses that the test passes to lose.
type lossBroker struct {
	*memory.Broker
	receiver broker.Receiver
}

func (b *lossBroker) Start(ctx context.Context, r broker.Receiver) error {
	b.receiver = r
	return b.Broker.Start(ctx, r)
}

var errCut = errors.New("the connection was cut")

func (b *lossBroker) lose(l broker.Loss) {
	l.Cause = errCut
	if l.Until.IsZero() {
		l.Since, l.Until = time.Now().Add(-time.Millisecond), time.Now()
	}
	b.receiver.Lost(l)
}

// resynced takes the next message, which must be a resync, and returns its rooms and targets.
func (p *peer) resynced() string {
	p.t.Helper()
	event, data := p.event()
	var r struct {
		Rooms, Targets []string
		Since, Until   time.Time
	}
	if err := json.Unmarshal(data, &r); err != nil || event != protocol.EventResync || r.Since.After(r.Until) {
		p.t.Fatalf("got %s %s (%v), want resync", event, data, err)
	}
	return strings.Join(r.Rooms, " ") + "/" + strings.Join(r.Targets, " ")
}

// silent fails the test if p has received anything. It must run within a bubble.
func (p *peer) silent() {
	p.t.Helper()
	synctest.Wait()
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	if len(p.in.items) > 0 {
		p.t.Errorf("got %v", p.in.items)
	}
}

// TestResync checks that each client receives a resync for those of its own rooms that are
// affected, and for no others.
func TestResync(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		channels func(a *peer) []string
		a, b, c  string // the resync that each client receives; empty for none
	}{
		"anything": {
			func(*peer) []string { return nil },
			"r ws-default ws-notification x/broadcast user client", "r ws-default ws-notification/broadcast user client",
			"ws-default ws-notification/broadcast client",
		},
		"nothing":         {func(*peer) []string { return []string{} }, "", "", ""},
		"a room":          {func(*peer) []string { return []string{protocol.RoomChannel("r")} }, "r/", "r/", ""},
		"a room of one":   {func(*peer) []string { return []string{protocol.RoomChannel("x")} }, "x/", "", ""},
		"another room":    {func(*peer) []string { return []string{protocol.RoomChannel("z"), "other:channel", "ws:room:"} }, "", "", ""},
		"a user":          {func(*peer) []string { return []string{protocol.UserChannel("v")} }, "", "/user", ""},
		"a client":        {func(a *peer) []string { return []string{protocol.ClientChannel(a.id)} }, "/client", "", ""},
		"a client's room": {func(a *peer) []string { return []string{protocol.RoomChannel(a.id)} }, "/client", "", ""},
		"all":             {func(*peer) []string { return []string{protocol.BroadcastChannel} }, "/broadcast", "/broadcast", "/broadcast"},
		"several": {
			func(a *peer) []string {
				return []string{protocol.UserChannel("u"), protocol.RoomChannel("x"), protocol.RoomChannel("ws-default"), protocol.UserChannel("v")}
			}, "ws-default x/user", "ws-default/user", "ws-default/",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				lossy := &lossBroker{Broker: memory.New()}
				r := startPiped(t, config{Broker: lossy, Resync: true})
				a, b, c := r.member("u"), r.member("v"), r.member("")
				must(t, joinRoom(t.Context(), r, a.id, "x", "r"))
				must(t, joinRoom(t.Context(), r, b.id, "r"))
				lossy.lose(broker.Loss{Channels: tt.channels(a)})
				count := uint64(0)
				for p, want := range map[*peer]string{a: tt.a, b: tt.b, c: tt.c} {
					if want == "" {
						p.silent()
					} else if got := p.resynced(); got != want {
						t.Errorf("user %q received a resync of %s, want %s", p.user, got, want)
					} else {
						count++
					}
				}
				synctest.Wait() // the last report has been counted
				if st := r.Stats(); st.Resyncs != count || st.BrokerLosses != 1 {
					t.Errorf("%d resyncs, %d losses", st.Resyncs, st.BrokerLosses)
				}
			})
		})
	}
}

// TestResyncOff checks that clients receive a resync only if Config.Resync is set and they were
// connected during the loss.
func TestResyncOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		off, on := &lossBroker{Broker: memory.New()}, &lossBroker{Broker: memory.New()}
		one, two := startPiped(t, config{Broker: off}), startPiped(t, config{Broker: on, Resync: true})
		before := time.Now()
		p, early := one.member("u"), two.member("u")
		time.Sleep(time.Second)
		late := two.member("u")
		off.lose(broker.Loss{})
		on.lose(broker.Loss{Since: before, Until: before.Add(500 * time.Millisecond)})
		early.resynced()
		p.silent()
		late.silent()
	})
}

// TestLossesInQuickSuccession checks that the first loss is reported at once, and later ones
// together, a second later.
func TestLossesInQuickSuccession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lossy := &lossBroker{Broker: memory.New()}
		r := startPiped(t, config{Broker: lossy, Resync: true})
		p := r.member("u")
		begin := time.Now()
		for i := range 100 {
			lossy.lose(broker.Loss{Messages: 1, Channels: []string{protocol.RoomChannel([]string{"ws-default", "ws-notification"}[i%2])}})
			synctest.Wait()
		}
		if got := p.resynced(); got != "ws-default/" || time.Since(begin) > 0 {
			t.Errorf("first %s, after %v", got, time.Since(begin))
		}
		if got := p.resynced(); got != "ws-default ws-notification/" || time.Since(begin) != time.Second {
			t.Errorf("then %s, after %v", got, time.Since(begin))
		}
		time.Sleep(time.Minute)
		p.silent()
		if st := r.Stats(); st.BrokerLosses != 100 || st.BrokerLost != 100 || st.Resyncs != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// TestBrokerLost checks a callback that blocks, panics and calls Goexit. Neither the broker nor the
// clients wait for it, and every loss is reported in the end.
func TestBrokerLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lossy := &lossBroker{Broker: memory.New()}
		calls, free := make(chan broker.Loss, 10), make(chan func(), 10)
		r := startPiped(t, config{Broker: lossy, Resync: true, BrokerLost: func(_ context.Context, l broker.Loss) {
			calls <- l
			(<-free)()
		}})
		p := r.member("u")
		since := time.Now()
		lossy.lose(broker.Loss{Messages: 3, Channels: []string{"ws:room:a"}})
		if l := <-calls; l.Messages != 3 || !slices.Equal(l.Channels, []string{"ws:room:a"}) || !errors.Is(l.Cause, errCut) {
			t.Errorf("reported %+v", l)
		}
		for i := range 3 {
			time.Sleep(time.Second)
			lossy.lose(broker.Loss{Messages: uint64(i + 1), Channels: []string{fmt.Sprint("ws:room:", i), "ws:room:ws-default"}})
		}
		p.resynced() // although the callback still handles the first loss
		free <- func() { panic("too many losses") }
		l := <-calls
		if want := []string{"ws:room:0", "ws:room:1", "ws:room:2", "ws:room:ws-default"}; l.Messages != 6 || !slices.Equal(l.Channels, want) {
			t.Errorf("reported %+v", l)
		}
		if got := l.Until.Sub(l.Since); got != 2*time.Second+time.Millisecond || l.Since.Before(since) {
			t.Errorf("from %v on, for %v", l.Since, got)
		}
		lossy.lose(broker.Loss{Messages: 5})
		lossy.lose(broker.Loss{Channels: []string{"ws:room:a"}})
		free <- runtime.Goexit
		if l := <-calls; l.Messages != 0 || l.Channels != nil {
			t.Errorf("reported %+v, want an unknown number", l)
		}
		free <- func() {}
		lossy.lose(broker.Loss{})
		<-calls
		free <- func() {}
		if st := r.Stats(); st.CallbackErrors != 2 {
			t.Errorf("%d callback errors", st.CallbackErrors)
		}
	})
}

// TestShutdownWhileBrokerLostRuns checks that a shutdown cancels the context of a blocked callback,
// and that the loss is reported.
func TestShutdownWhileBrokerLostRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lossy := &lossBroker{Broker: memory.New()}
		entered := make(chan struct{})
		r := startPiped(t, config{Broker: lossy, BrokerLost: func(ctx context.Context, _ broker.Loss) {
			close(entered)
			<-ctx.Done()
		}})
		lossy.lose(broker.Loss{})
		<-entered
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		must(t, r.Shutdown(ctx))
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("after %v", took)
		}
	})
}

// TestOverflowIsReported checks that messages of other nodes that do not fit into the send queue
// are reported like messages that the broker lost: to the application and to the affected clients.
// Every published message is either delivered or reported.
func TestOverflowIsReported(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		typ      protocol.MessageType
		target   func(a *peer) string
		together int    // messages in one call
		a, b     string // what each client receives; empty for none
	}{
		"a room":            {typ: protocol.TypeRoom, target: func(*peer) string { return "r" }, together: 1, a: "r/"},
		"a room, in series": {typ: protocol.TypeRoom, target: func(*peer) string { return "r" }, together: 7, a: "r/"},
		"a client":          {typ: protocol.TypeClient, target: func(a *peer) string { return a.id }, together: 1, a: "/client"},
		"a client's room":   {typ: protocol.TypeRoom, target: func(a *peer) string { return a.id }, together: 2, a: "/client"},
		"a user":            {typ: protocol.TypeUser, target: func(*peer) string { return "u" }, together: 3, a: "/user"},
		"all":               {typ: protocol.TypeBroadcast, target: func(*peer) string { return "" }, together: 1, a: "/broadcast", b: "/broadcast"},
		"all, in series":    {typ: protocol.TypeBroadcast, target: func(*peer) string { return "" }, together: 5, a: "/broadcast", b: "/broadcast"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				lossy := &lossBroker{Broker: memory.New()}
				reported := uint64(0)
				r := startPiped(t, config{
					Broker: lossy, Resync: true, Limits: hearth.Limits{SendQueue: 64 << 10, BackpressureLimit: 1 << 30},
					BrokerLost: func(_ context.Context, l broker.Loss) {
						if l.Messages == 0 || !errors.Is(l.Cause, hearth.ErrQueueFull) {
							t.Errorf("reported %+v", l)
						}
						reported += l.Messages
					},
				})
				a, b := r.member("u"), r.member("v")
				must(t, joinRoom(t.Context(), r, a.id, "r"))
				m := protocol.Message{ServerID: "other", Type: tt.typ, Target: tt.target(a), Event: "e", Data: json.RawMessage(`"` + repeat("x", 4<<10) + `"`)}
				published := 0
				for ; r.Stats().DeliveriesLost < 1000; published += tt.together {
					lossy.receiver.DeliverAll(slices.Repeat([]protocol.Message{m}, tt.together))
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				for p, want := range map[*peer]string{a: tt.a, b: tt.b} {
					got, resyncs := p.tally(want)
					if want == "" {
						if got+resyncs > 0 {
							t.Errorf("the other client got %d messages and %d resyncs", got, resyncs)
						}
						continue
					}
					if got+int(reported) != published || resyncs == 0 {
						t.Errorf("of %d messages, %d were delivered and %d reported; %d resyncs", published, got, reported, resyncs)
					}
				}
				if st := r.Stats(); st.BrokerLost != reported || st.DeliveriesLost != reported || st.Dropped != 0 || st.BrokerLosses == 0 {
					t.Errorf("reported %d; stats: %+v", reported, st)
				}
			})
		})
	}
}

// tally counts the messages and resyncs that p has received. Every resync must have the given rooms
// and targets.
func (p *peer) tally(affected string) (messages, resyncs int) {
	p.t.Helper()
	p.in.mu.Lock()
	waiting := len(p.in.items)
	p.in.mu.Unlock()
	for range waiting {
		event, data := p.event()
		if event != protocol.EventResync {
			messages++
			continue
		}
		resyncs++
		var r struct{ Rooms, Targets []string }
		if err := json.Unmarshal(data, &r); err != nil || strings.Join(r.Rooms, " ")+"/"+strings.Join(r.Targets, " ") != affected {
			p.t.Errorf("resync %s, want %s", data, affected)
		}
	}
	return messages, resyncs
}

// TestLossesAreLoggedSparsely checks that a flood of messages from other nodes does not flood the
// log.
func TestLossesAreLoggedSparsely(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		lossy := &lossBroker{Broker: memory.New()}
		r := startPiped(t, config{
			Broker: lossy, Logger: slog.New(slog.NewTextHandler(&log, nil)), Limits: hearth.Limits{SendQueue: 64 << 10},
		})
		r.member("u")
		// This runs on the broker's goroutine: of the node, only the loop can run meanwhile.
		m := protocol.Message{ServerID: "other", Type: protocol.TypeBroadcast, Event: "e", Data: json.RawMessage(`"` + repeat("x", 60<<10) + `"`)}
		for r.Stats().DeliveriesLost < 1000 {
			lossy.receiver.Deliver(m)
		}
		synctest.Wait() // the goroutine that reports the loss also logs it
		if n := strings.Count(log.String(), "message of another node dropped"); n != 1 {
			t.Errorf("%d lines were logged", n)
		}
	})
}

// unconfirmedBroker confirms no hold.
type unconfirmedBroker struct {
	*memory.Broker
	err error
}

func (b unconfirmedBroker) Hold(ctx context.Context, channels ...string) error {
	return errors.Join(b.err, b.Broker.Hold(ctx, channels...))
}

// TestUnconfirmedJoinsAreLoggedSparsely checks the log while the broker does not confirm that
// messages of other nodes reach the clients. With ErrDown nothing is logged, since the broker has
// reported it already. Other errors share one line.
func TestUnconfirmedJoinsAreLoggedSparsely(t *testing.T) {
	t.Parallel()
	for err, most := range map[error]int{broker.ErrDown: 0, errCut: 1} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			r := startPiped(t, config{
				Broker: unconfirmedBroker{memory.New(), err}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
				ValidateRooms: func(_ context.Context, _ *client, rooms []string) ([]string, error) { return rooms, nil },
			})
			for range 20 {
				r.member("u").say("join", `{"rooms":["r"]}`)
			}
			synctest.Wait()
			if n := r.Local().Count(hearth.ToRoom("r")); n != 20 {
				t.Errorf("%v: %d clients are in the room, want 20", err, n)
			}
			if lines := strings.Count(log.String(), "broker did not confirm the channels of clients"); lines != most {
				t.Errorf("%v: %d lines were logged, want %d", err, lines, most)
			}
			if strings.Count(log.String(), "\n") > 3 {
				t.Errorf("%v: more than 3 lines were logged:\n%s", err, log.String())
			}
		})
	}
}
