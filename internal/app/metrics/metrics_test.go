package metrics_test

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/internal/app/metrics"
)

// skipped are the fields that have no metric, with the reason.
var skipped = map[string]string{
	"State": "it is a label", "Since": "not a number", "Err": "not a number", "Reason": "not a number: /readyz has it",
	"Lost": "part of Stats.BrokerLost", "Losses": "part of Stats.BrokerLosses",
}

// number sets each number of a struct, at any depth, to another value from next on. It returns
// the names of the fields by value.
func number(t *testing.T, v reflect.Value, next *uint64, names map[float64]string) {
	t.Helper()
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if skipped[field.Name] != "" {
			continue
		}
		*next++
		names[float64(*next)] = field.Name
		switch f := v.Field(i); f.Kind() {
		case reflect.Int:
			f.SetInt(int64(*next))
		case reflect.Uint64:
			f.SetUint(*next)
		case reflect.Struct:
			delete(names, float64(*next))
			number(t, f, next, names)
		default:
			t.Errorf("the test does not support %s, a %s", field.Name, f.Type())
		}
	}
}

// TestEveryCounterHasAMetric gives each field of the counters a value of its own, and looks for
// that value among the metrics.
func TestEveryCounterHasAMetric(t *testing.T) {
	t.Parallel()
	var stats hearth.Stats
	var health broker.Health
	next, names := uint64(1000), map[float64]string{}
	number(t, reflect.ValueOf(&stats).Elem(), &next, names)
	number(t, reflect.ValueOf(&health).Elem(), &next, names)
	c := metrics.NewCollector(source(stats, health))
	got := map[float64]bool{}
	for _, v := range c.Figures() {
		got[v] = true
	}
	for _, v := range slices.Sorted(maps.Keys(names)) {
		if !got[v] {
			t.Errorf("the counter %s has no metric: add it to table.go", names[v])
		}
	}
	if len(names) < 50 {
		t.Errorf("only %d counters were found", len(names))
	}
}

func source(stats hearth.Stats, health broker.Health) metrics.Source {
	return metrics.Source{
		Stats: func() hearth.Stats { return stats }, Health: func() broker.Health { return health }, Pending: func() int { return 77 },
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	var stats hearth.Stats
	stats.Clients, stats.SlowClosed, stats.Tickets.Used = 3, 4, 5
	reg := prometheus.NewPedanticRegistry()
	c := metrics.NewCollector(source(stats, broker.Health{State: broker.StateDegraded, Dropped: 6}))
	if err := reg.Register(c); err != nil {
		t.Fatal(err)
	}
	const want = `# HELP hearth_broker_dropped_total Messages of this server that were never published.
# TYPE hearth_broker_dropped_total counter
hearth_broker_dropped_total 6
# HELP hearth_broker_state 1 for the state of the broker, 0 for the other states.
# TYPE hearth_broker_state gauge
hearth_broker_state{state="degraded"} 1
hearth_broker_state{state="down"} 0
hearth_broker_state{state="idle"} 0
hearth_broker_state{state="ok"} 0
# HELP hearth_clients Authenticated clients.
# TYPE hearth_clients gauge
hearth_clients 3
# HELP hearth_pending_bytes Bytes that wait for the slowest client.
# TYPE hearth_pending_bytes gauge
hearth_pending_bytes 77
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "hearth_clients", "hearth_broker_dropped_total", "hearth_broker_state", "hearth_pending_bytes"); err != nil {
		t.Error(err)
	}
	figures := c.Figures()
	for series, v := range map[string]float64{`hearth_closes_total{cause="slow"}`: 4, `hearth_resumes_total{result="used"}`: 5, "hearth_clients": 3} {
		if figures[series] != v {
			t.Errorf("%s is %v, want %v", series, figures[series], v)
		}
	}
}

// TestConventions checks names, units and help texts as promtool does.
func TestConventions(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	d := metrics.NewDurations()
	cfg := hearth.Config[string, string]{Authenticate: func(context.Context, hearth.AuthRequest[string]) (hearth.Identity[string], error) {
		return hearth.Identity[string]{}, nil
	}}
	metrics.Observe(d, &cfg)
	reg.MustRegister(metrics.NewCollector(source(hearth.Stats{}, broker.Health{})), d)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, f := range families {
		if n := len(f.GetMetric()); n > 20 {
			t.Errorf("%s has %d series", f.GetName(), n)
		}
	}
}

// TestObserve calls each callback once, the message callback with a panic, and expects their
// results and one duration for each.
func TestObserve(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	var calls []string
	called := func(name string) { calls = append(calls, name) }
	cfg := hearth.Config[string, string]{
		Authenticate: func(_ context.Context, r hearth.AuthRequest[string]) (hearth.Identity[string], error) {
			return hearth.Identity[string]{UserID: r.Credentials}, failed
		},
		ValidateRooms: func(_ context.Context, _ *hearth.Client[string], rooms []string) ([]string, error) {
			return rooms[1:], failed
		},
		Message:   func(context.Context, *hearth.Client[string], hearth.Message) error { panic("message") },
		Connected: func(context.Context, *hearth.Client[string]) { called("connected") },
		Joined:    func(_ context.Context, _ *hearth.Client[string], room string) { called("joined " + room) },
		Left:      func(_ context.Context, _ *hearth.Client[string], room string) { called("left " + room) },
		Disconnected: func(_ context.Context, _ *hearth.Client[string], code int, reason string) {
			called("disconnected " + reason)
		},
	}
	d := metrics.NewDurations()
	metrics.Observe(d, &cfg)
	ctx := context.Background()
	if id, err := cfg.Authenticate(ctx, hearth.AuthRequest[string]{Credentials: "ada"}); id.UserID != "ada" || !errors.Is(err, failed) {
		t.Errorf("authenticate returned %v, %v", id, err)
	}
	if rooms, err := cfg.ValidateRooms(ctx, nil, []string{"a", "b"}); !slices.Equal(rooms, []string{"b"}) || !errors.Is(err, failed) {
		t.Errorf("validate rooms returned %v, %v", rooms, err)
	}
	func() {
		defer func() {
			if recover() != "message" {
				t.Error("the panic was lost")
			}
		}()
		_ = cfg.Message(ctx, nil, hearth.Message{})
	}()
	cfg.Connected(ctx, nil)
	cfg.Joined(ctx, nil, "a")
	cfg.Left(ctx, nil, "b")
	cfg.Disconnected(ctx, nil, 1000, "bye")
	if want := []string{"connected", "joined a", "left b", "disconnected bye"}; !slices.Equal(calls, want) {
		t.Errorf("calls %v, want %v", calls, want)
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(d)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var observed []string
	for _, m := range families[0].GetMetric() {
		if n := m.GetHistogram().GetSampleCount(); n != 1 {
			t.Errorf("%s was observed %d times", m.GetLabel()[0].GetValue(), n)
		}
		observed = append(observed, m.GetLabel()[0].GetValue())
	}
	slices.Sort(observed)
	if want := []string{"authenticate", "connected", "disconnected", "joined", "left", "message", "validate_rooms"}; !slices.Equal(observed, want) {
		t.Errorf("observed %v, want %v", observed, want)
	}
}
