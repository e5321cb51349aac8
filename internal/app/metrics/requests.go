package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Requests count the requests of the HTTP API. It implements prometheus.Collector, and is safe for
// concurrent use.
type Requests struct {
	count *prometheus.CounterVec
	took  *prometheus.HistogramVec
}

// NewRequests returns the metrics hearth_api_requests_total and
// hearth_api_request_duration_seconds.
func NewRequests() *Requests {
	return &Requests{
		count: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hearth_api_requests_total", Help: "Requests of the HTTP API, by operation and status.",
		}, []string{"operation", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hearth_api_request_duration_seconds", Help: "Duration of the requests of the HTTP API.",
			Buckets: []float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5},
		}, []string{"operation"}),
	}
}

// Observe records a request. The values of operation must be few, and not the text of a client.
func (r *Requests) Observe(operation string, status int, took time.Duration) {
	r.count.WithLabelValues(operation, strconv.Itoa(status)).Inc()
	r.took.WithLabelValues(operation).Observe(took.Seconds())
}

// Describe implements prometheus.Collector.
func (r *Requests) Describe(ch chan<- *prometheus.Desc) {
	r.count.Describe(ch)
	r.took.Describe(ch)
}

// Collect implements prometheus.Collector.
func (r *Requests) Collect(ch chan<- prometheus.Metric) {
	r.count.Collect(ch)
	r.took.Collect(ch)
}
