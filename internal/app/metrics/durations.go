package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearthws/hearth"
)

// Durations measure how long the callbacks of a server take. It implements prometheus.Collector,
// and is safe for concurrent use.
type Durations struct {
	*prometheus.HistogramVec
}

// NewDurations returns the metric hearth_callback_duration_seconds, without observations.
func NewDurations() *Durations {
	return &Durations{prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "hearth_callback_duration_seconds",
		Help:    "Duration of callbacks, which handle what clients do.",
		Buckets: []float64{0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10},
	}, []string{"callback"})}
}

// Observe makes d measure the callbacks that are set in cfg. It costs each call about 200 ns.
func Observe[A, M any](d *Durations, cfg *hearth.Config[A, M]) {
	if f := cfg.Authenticate; f != nil {
		took := d.timer("authenticate")
		cfg.Authenticate = func(ctx context.Context, r hearth.AuthRequest[A]) (hearth.Identity[M], error) {
			defer took(time.Now())
			return f(ctx, r)
		}
	}
	if f := cfg.ValidateRooms; f != nil {
		took := d.timer("validate_rooms")
		cfg.ValidateRooms = func(ctx context.Context, c *hearth.Client[M], rooms []string) ([]string, error) {
			defer took(time.Now())
			return f(ctx, c, rooms)
		}
	}
	if f := cfg.Message; f != nil {
		took := d.timer("message")
		cfg.Message = func(ctx context.Context, c *hearth.Client[M], m hearth.Message) error {
			defer took(time.Now())
			return f(ctx, c, m)
		}
	}
	observeChanges(d, cfg)
}

// observeChanges measures the callbacks that have no result.
func observeChanges[A, M any](d *Durations, cfg *hearth.Config[A, M]) {
	if f := cfg.Connected; f != nil {
		took := d.timer("connected")
		cfg.Connected = func(ctx context.Context, c *hearth.Client[M]) {
			defer took(time.Now())
			f(ctx, c)
		}
	}
	if f := cfg.Disconnected; f != nil {
		took := d.timer("disconnected")
		cfg.Disconnected = func(ctx context.Context, c *hearth.Client[M], code int, reason string) {
			defer took(time.Now())
			f(ctx, c, code, reason)
		}
	}
	if f := cfg.Joined; f != nil {
		cfg.Joined = observeRoom(d, "joined", f)
	}
	if f := cfg.Left; f != nil {
		cfg.Left = observeRoom(d, "left", f)
	}
}

func observeRoom[M any](d *Durations, name string, f func(context.Context, *hearth.Client[M], string)) func(context.Context, *hearth.Client[M], string) {
	took := d.timer(name)
	return func(ctx context.Context, c *hearth.Client[M], room string) {
		defer took(time.Now())
		f(ctx, c, room)
	}
}

// timer returns a function that records the time since a call began, also if the callback panics.
func (d *Durations) timer(callback string) func(time.Time) {
	h := d.WithLabelValues(callback)
	return func(began time.Time) { h.Observe(time.Since(began).Seconds()) }
}
