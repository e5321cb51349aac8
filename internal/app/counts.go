package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hearthws/hearth/internal/app/jwtauth"
	"github.com/hearthws/hearth/internal/app/webhook"
)

// counts are the metrics of a service: what became of the credentials of clients. They go on when
// the configuration is loaded again.
type counts struct {
	tokens, grants, webhook *prometheus.CounterVec // by result
}

func newCounts() counts {
	vec := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"result"})
	}
	c := counts{
		tokens:  vec("hearth_tokens_total", "Tokens of clients, by result."),
		grants:  vec("hearth_grants_total", "Grants of clients, by result."),
		webhook: vec("hearth_webhook_requests_total", "Requests to the webhook, by result."),
	}
	// All series exist from the beginning, so that the first increase is seen.
	for _, r := range jwtauth.Reasons() {
		c.tokens.WithLabelValues(r.String())
		c.grants.WithLabelValues(r.String())
	}
	for _, r := range webhook.Results() {
		c.webhook.WithLabelValues(r.String())
	}
	return c
}

func (c counts) collectors() []prometheus.Collector {
	return []prometheus.Collector{c.tokens, c.grants, c.webhook}
}
