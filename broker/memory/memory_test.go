package memory_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/brokertest"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/protocol"
)

func TestSuite(t *testing.T) {
	for name, config := range map[string]memory.Config{
		"defaults":       {},
		"short of slots": {QueueMessages: 3000},
	} {
		t.Run(name, func(t *testing.T) {
			brokertest.Run(t, brokertest.Suite{
				New: func(*testing.T) func() broker.Broker {
					bus := memory.NewBus(config)
					return func() broker.Broker { return bus.Broker() }
				},
				NewHistory: func(_ *testing.T, rules broker.HistoryRules) func() broker.Broker {
					config := config
					config.History = rules
					bus := memory.NewBus(config)
					return func() broker.Broker { return bus.Broker() }
				},
				Overflow: 1<<16 + 100,
			})
		})
	}
}

func broadcast(from, event string, size int) protocol.Message {
	data := []byte(`"` + strings.Repeat("x", size-2) + `"`)
	return protocol.Message{ServerID: from, Type: protocol.TypeBroadcast, Event: event, Data: data}
}

// TestLossReportOrder checks the exact sequence of deliveries and losses, with limits on messages
// and on bytes.
func TestLossReportOrder(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config memory.Config
		sizes  []int // sizes of messages 1, 2, …, published while message 0 is being delivered
		want   string
	}{
		"by number":           {memory.Config{QueueMessages: 2}, []int{10, 10, 10, 10}, "0 1 2 lost:2 last"},
		"by bytes":            {memory.Config{QueueBytes: 25}, []int{10, 10, 10, 5, 10}, "0 1 2 lost:1 4 lost:1 last"},
		"large, but alone":    {memory.Config{QueueBytes: 25}, []int{1000, 2}, "0 1 lost:1 last"},
		"small ones after it": {memory.Config{QueueBytes: 25}, []int{20, 10, 10, 3}, "0 1 lost:2 4 last"},
		"nothing":             {memory.Config{}, []int{10, 10}, "0 1 2 last"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				bus := memory.NewBus(tt.config)
				a, b := bus.Broker(), bus.Broker()
				release := make(chan struct{})
				var got []string // owned by b's receiver, until it is closed
				err := b.Start(t.Context(), broker.Receiver{
					ServerID: "b",
					Deliver: func(m protocol.Message) {
						<-release
						got = append(got, m.Event)
					},
					Lost: func(l broker.Loss) { got = append(got, fmt.Sprintf("lost:%d", l.Messages)) },
				})
				if err != nil {
					t.Fatal(err)
				}
				publish := func(event string, size int) {
					if err := a.Publish(t.Context(), broadcast("a", event, size)); err != nil {
						t.Error(err)
					}
				}
				publish("0", 10)
				synctest.Wait() // message 0 has left the queue
				for i, size := range tt.sizes {
					publish(fmt.Sprint(i+1), size)
				}
				close(release)
				synctest.Wait()
				publish("last", 10)
				synctest.Wait()
				_ = b.Close()
				if got := strings.Join(got, " "); got != tt.want {
					t.Errorf("%s, want %s", got, tt.want)
				}
			})
		})
	}
}

// TestIdleHasNoGoroutine checks that idle brokers have no goroutine: synctest fails if one is left,
// although no broker is closed.
func TestIdleHasNoGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		bus := memory.NewBus(memory.Config{})
		delivered := 0
		for i := range 3 {
			r := broker.Receiver{ServerID: fmt.Sprint(i), Deliver: func(protocol.Message) { delivered++ }}
			if i > 0 {
				r.Deliver = func(protocol.Message) {}
			}
			n := bus.Broker()
			if err := n.Start(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if err := n.Publish(t.Context(), broadcast(r.ServerID, "hello", 10)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if delivered != 2 {
			t.Errorf("%d messages for the first node, want 2", delivered)
		}
	})
}

func TestAloneCostsNothing(t *testing.T) {
	n := memory.New()
	ctx := context.Background()
	err := n.Start(ctx, broker.Receiver{ServerID: "s", Deliver: func(protocol.Message) { t.Error("delivered") }})
	if err != nil {
		t.Fatal(err)
	}
	m := broadcast("s", "e", 10)
	channels := []string{"ws:room:a", "ws:room:b"}
	if got := testing.AllocsPerRun(100, func() {
		_ = n.Publish(ctx, m)
		_ = n.Hold(ctx, channels...)
		n.Release(channels...)
	}); got > 0 {
		t.Errorf("%v allocations", got)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, nodes := range []int{1, 2, 8} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			bus := memory.NewBus(memory.Config{})
			ctx := context.Background()
			var first *memory.Broker
			for i := range nodes {
				n := bus.Broker()
				defer func() { _ = n.Close() }()
				if err := n.Start(ctx, broker.Receiver{ServerID: fmt.Sprint(i), Deliver: func(protocol.Message) {}}); err != nil {
					b.Fatal(err)
				}
				if first == nil {
					first = n
				}
			}
			m := broadcast("0", "e", 100)
			b.ReportAllocs()
			for b.Loop() {
				if err := first.Publish(ctx, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
