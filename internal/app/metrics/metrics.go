// Package metrics exports the counters of a server to Prometheus: those of hearth.Stats and
// broker.Health, and the durations of the callbacks.
//
// The table in table.go names every metric. A Collector reads the counters when it is asked, so
// metrics cost a server nothing between two requests. The durations are an exception,
// see Durations.
package metrics

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearthws/hearth"
	"github.com/hearthws/hearth/broker"
)

// A Source has the counters of one server. All fields are required.
type Source struct {
	Stats   func() hearth.Stats  // of Server.Stats
	Health  func() broker.Health // of Server.Health
	Pending func() int           // the bytes that wait for the slowest client
}

// Of returns the counters of a server.
func Of[A, M any](s *hearth.Server[A, M]) Source {
	return Source{Stats: s.Stats, Health: s.Health, Pending: func() int { return s.Local().Pending(hearth.ToAll()) }}
}

func (s Source) read() *reading { return &reading{s.Stats(), s.Health(), s.Pending()} }

// A Collector collects the metrics of one server. It implements prometheus.Collector, and is safe
// for concurrent use.
type Collector struct {
	source Source
	descs  []*prometheus.Desc // for each of table
}

// NewCollector returns the collector of a server.
func NewCollector(source Source) *Collector {
	c := &Collector{source: source}
	for i := range table {
		m := &table[i]
		var labels prometheus.Labels
		if m.label != "" {
			labels = prometheus.Labels{m.label: m.labelValue}
		}
		c.descs = append(c.descs, prometheus.NewDesc(m.name, m.help, nil, labels))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	now := c.source.read()
	for i := range table {
		kind := prometheus.CounterValue
		if table[i].gauge() {
			kind = prometheus.GaugeValue
		}
		ch <- prometheus.MustNewConstMetric(c.descs[i], kind, table[i].value(now))
	}
}

// Figures returns the current values by the names of their series, as in
// `hearth_closes_total{cause="slow"}`. The caller may change the map.
func (c *Collector) Figures() map[string]float64 {
	now := c.source.read()
	figures := make(map[string]float64, len(table))
	for i := range table {
		figures[table[i].series()] = table[i].value(now)
	}
	return figures
}

// A reading has the counters at one moment.
type reading struct {
	hearth.Stats
	health  broker.Health
	pending int
}

// A metric is one series.
type metric struct {
	name  string
	help  string
	label string // empty if there is none

	labelValue string
	value      func(*reading) float64
}

func (m *metric) gauge() bool { return !strings.HasSuffix(m.name, "_total") }

func (m *metric) series() string {
	if m.label == "" {
		return m.name
	}
	return fmt.Sprintf("%s{%s=%q}", m.name, m.label, m.labelValue)
}
