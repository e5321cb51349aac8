// Package admin serves the figures of a server to its operators: metrics for Prometheus, health
// checks, and live figures as JSON and as server-sent events. It can change nothing, and checks no
// credentials: its listener must not be public.
package admin

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hearthws/hearth/internal/app/metrics"
)

// Config configures a handler. All fields are required.
type Config struct {
	Metrics  *metrics.Collector   // the counters of the server
	Registry *prometheus.Registry // what /metrics serves; includes Metrics
	Health   http.HandlerFunc     // answers /healthz
	Ready    http.HandlerFunc     // answers /readyz
	Status   func() Status        // the state of the server
	Log      *slog.Logger
}

// A Status describes a server.
type Status struct {
	Node   string `json:"node"`   // the id of the server
	Name   string `json:"name"`   // its name in logs
	Ready  bool   `json:"ready"`  // whether /readyz answers 200
	Status string `json:"status"` // the text of /readyz
}

// Figures is the JSON of /figures and of each event of /figures/stream.
type Figures struct {
	Status
	Time    time.Time          `json:"time"`    // of the reading
	Figures map[string]float64 `json:"figures"` // by the name of the series, as in /metrics
}

// maxScrapes bounds the requests for metrics at the same time.
const maxScrapes = 8

// timeout bounds the writing of one answer, or of one event.
const timeout = 10 * time.Second

// New returns the handler. Requests for streams last until the client leaves or the context of the
// HTTP server ends (http.Server.BaseContext).
func New(c Config) http.Handler {
	mux := http.NewServeMux()
	scrape := promhttp.HandlerFor(c.Registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelError), MaxRequestsInFlight: maxScrapes, Timeout: timeout,
	})
	s := &streams{figures: c.figures, slots: make(chan struct{}, maxStreams)}
	mux.Handle("GET /metrics", bounded(scrape.ServeHTTP))
	mux.Handle("GET /healthz", bounded(c.Health))
	mux.Handle("GET /readyz", bounded(c.Ready))
	mux.Handle("GET /figures", bounded(c.serveFigures))
	mux.HandleFunc("GET /figures/stream", s.serve)
	mux.Handle("GET /{$}", bounded(index))
	return mux
}

// bounded sets a write deadline. Streams set one for each event.
func bounded(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// If the connection does not support deadlines, answer without one.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout))
		w.Header().Set("X-Content-Type-Options", "nosniff")
		h(w, r)
	})
}

func index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, "/metrics         for Prometheus\n/healthz         whether the process works\n/readyz          whether new clients should connect to this server\n"+
		"/figures         the figures of /metrics as JSON\n/figures/stream  the same as server-sent events, ?interval=1s\n")
}

func (c Config) figures() Figures {
	return Figures{Status: c.Status(), Time: time.Now().UTC().Round(time.Millisecond), Figures: c.Metrics.Figures()}
}

func (c Config) serveFigures(w http.ResponseWriter, _ *http.Request) {
	b, err := json.Marshal(c.figures())
	if err != nil {
		c.Log.Error("encode the figures failed", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(b)
}
